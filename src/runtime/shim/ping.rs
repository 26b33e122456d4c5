//! `ping` without `NET_RAW`: a program that asks for a raw ICMP socket gets one from the shim.
//!
//! Newer programs fall back to ICMP datagrams, which `ping_group_range` allows everyone; busybox and others know raw
//! sockets only. The capability would bring all of them, and packet sockets, too. What comes from here speaks ICMP alone, in
//! the container's own network, with headers by the kernel: the filter refuses the options that would change that.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::sys::netns;
use crate::sys::seccomp::{Call, Listener};

/// Gives the socket that the call asks for, or refuses it.
pub(super) fn answer(listener: &Listener, call: &Call) -> io::Result<()> {
    match open(listener, call) {
        Ok(socket) => listener.give(call, socket.as_fd(), call.args[1] & flag(libc::SOCK_CLOEXEC) != 0),
        Err(_) => listener.refuse(call, libc::EPERM),
    }
}

/// The socket that the call asks for, in its caller's network namespace; never in the shim's own.
fn open(listener: &Listener, call: &Call) -> io::Result<OwnedFd> {
    let theirs = netns::open(&PathBuf::from(format!("/proc/{}/ns/net", call.pid)))?;
    let (own, other) = (rustix::fs::fstat(netns::own()?)?, rustix::fs::fstat(&theirs)?);
    if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino) || !listener.still_waits(call) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (family, protocol) = if call.args[0] == flag(libc::AF_INET6) {
        (AddressFamily::INET6, ipproto::ICMPV6)
    } else {
        (AddressFamily::INET, ipproto::ICMP)
    };
    let nonblocking = call.args[1] & flag(libc::SOCK_NONBLOCK) != 0;
    let flags = SocketFlags::CLOEXEC | if nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
    let socket = netns::with_netns(theirs.as_fd(), || socket_with(family, SocketType::RAW, flags, Some(protocol)))??;
    Ok(socket)
}

fn flag(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}
