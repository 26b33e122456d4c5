//! The socket keeper: a program that is started again refuses nobody meanwhile.
//!
//! At `listen` the shim keeps a copy of the socket. When the program dies, connections queue in the kernel; at the next
//! program's `bind` to that address the kept socket takes the place of its own. What can't be kept goes on as ever:
//! other protocols, groups of sockets that share a port, other addresses than before.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::net::{Protocol, SocketType, sockopt};

use super::server::Shim;
use crate::runtime::cgroup::Group;
use crate::sys::process;
use crate::sys::seccomp::{Call, Listener};

/// How long connections may wait for a program to come back.
const HOLD: Duration = Duration::from_secs(30);
/// Connections that may wait meanwhile; `net.core.somaxconn` limits it further.
const BACKLOG: i32 = 4096;
/// Sockets kept of one container.
const MOST: usize = 64;
/// Bytes of an internet address with its family and port.
const ADDRESS: usize = size_of::<libc::sockaddr_in6>();

/// What is kept of one container.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    kept: Vec<Kept>,
    /// When those are let go that nobody has come back for.
    until: Option<Instant>,
}

/// A socket that listens.
#[derive(Debug)]
struct Kept {
    socket: OwnedFd,
    /// Names the socket among all.
    inode: u64,
    place: Place,
    /// Nobody else holds it.
    free: bool,
    /// More connections may wait than its program asked for.
    queued: bool,
    /// That its program listens was told.
    told: bool,
}

/// What two sockets must have in common to stand for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    address: SocketAddr,
    protocol: Option<Protocol>,
    only_v6: bool,
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// The kernel carries it out.
    CarryOn,
    /// It is done.
    Done,
    /// It is done, and the program serves this address from now on.
    Listens(SocketAddr),
    /// It fails.
    Refuse(i32),
}

impl Keeper {
    /// Gives the program the kept socket of the address that it binds to, if there is one that nobody holds.
    pub(super) fn bind(&mut self, listener: &Listener, call: &Call, group: &Group) -> io::Result<Answer> {
        if self.kept.is_empty() {
            return Ok(Answer::CarryOn);
        }
        let Some(wanted) = address(call)? else { return Ok(Answer::CarryOn) };
        if wanted.port() == 0 || !self.kept.iter().any(|kept| kept.place.address.port() == wanted.port()) {
            return Ok(Answer::CarryOn);
        }
        let number = u32::try_from(call.args[0]).map_err(io::Error::other)?;
        let socket = descriptor(call, number)?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        if self.kept.iter().any(|kept| kept.inode == inode) {
            // A signal interrupted the call after it was answered.
            return Ok(Answer::Done);
        }
        if sockopt::socket_type(&socket)? != SocketType::STREAM {
            return Ok(Answer::CarryOn);
        }
        let place = Place::of(&socket, wanted)?;
        let close_on_exec = closes_on_exec(call, number)?;
        if !listener.still_waits(call) {
            return Ok(Answer::CarryOn);
        }
        for kept in self.kept.iter_mut().filter(|kept| kept.place.address.port() == wanted.port()) {
            kept.free = kept.free || !is_held(group, kept.inode);
        }
        let found = self.kept.iter_mut().find(|kept| kept.free && Some(&kept.place) == place.as_ref());
        let Some(kept) = found else {
            self.let_go_of(|kept| kept.free && kept.place.excludes(wanted));
            return Ok(Answer::CarryOn);
        };
        rustix::fs::fcntl_setfl(&kept.socket, rustix::fs::fcntl_getfl(&socket)?)?;
        listener.replace(call, kept.socket.as_fd(), number, close_on_exec)?;
        (kept.free, kept.queued, kept.told) = (false, true, false);
        Ok(Answer::Done)
    }

    /// Makes the program's socket listen, and keeps it.
    pub(super) fn listen(&mut self, listener: &Listener, call: &Call) -> io::Result<Answer> {
        let socket = descriptor(call, u32::try_from(call.args[0]).map_err(io::Error::other)?)?;
        let tcp =
            [libc::AF_INET, libc::AF_INET6].map(u16::try_from).contains(&Ok(sockopt::socket_domain(&socket)?.as_raw()))
                && sockopt::socket_type(&socket)? == SocketType::STREAM;
        if !tcp || !listener.still_waits(call) {
            return Ok(Answer::CarryOn);
        }
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        let before = self.kept.iter_mut().find(|kept| kept.inode == inode);
        // The kernel looks at the lower half, too.
        let backlog = u32::try_from(call.args[1] & u64::from(u32::MAX)).unwrap_or(u32::MAX).cast_signed();
        let queued = before.as_ref().is_some_and(|kept| kept.queued);
        if let Err(e) = rustix::net::listen(&socket, if queued { backlog.max(BACKLOG) } else { backlog }) {
            return Ok(Answer::Refuse(e.raw_os_error()));
        }
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        if let Some(kept) = before {
            kept.free = false;
            return Ok(if std::mem::replace(&mut kept.told, true) { Answer::Done } else { Answer::Listens(address) });
        }
        if let Some(place) = Place::of(&socket, address)?
            && self.kept.len() < MOST
        {
            self.kept.push(Kept { socket, inode, place, free: false, queued: false, told: true });
        }
        Ok(Answer::Listens(address))
    }

    /// What is kept of the program that runs.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.kept.iter().filter(|kept| !kept.free).map(|kept| kept.socket.as_fd())
    }

    /// Goes on with what another shim kept, of a program that runs.
    pub(super) fn keep_on(&mut self, sockets: impl Iterator<Item = OwnedFd>) {
        let known = |socket: OwnedFd| -> io::Result<Option<Kept>> {
            let inode = rustix::fs::fstat(&socket)?.st_ino;
            let place = Place::of(&socket, SocketAddr::try_from(rustix::net::getsockname(&socket)?)?)?;
            Ok(place.map(|place| Kept { socket, inode, place, free: false, queued: true, told: true }))
        };
        self.kept.extend(sockets.filter_map(|socket| known(socket).ok().flatten()));
    }

    /// The program is about to end: more connections may wait than it asked for.
    pub(super) fn deepen(&mut self) {
        for kept in &mut self.kept {
            kept.queued = true;
            let _ = rustix::net::listen(&kept.socket, BACKLOG);
        }
    }

    /// The program ended: from now on connections wait for the next.
    pub(super) fn hold(&mut self) {
        self.deepen();
        self.kept.iter_mut().for_each(|kept| kept.free = true);
        self.until = (!self.kept.is_empty()).then(|| Instant::now() + HOLD);
    }

    /// Keeps nothing any more: who connects is refused where no program listens.
    pub(super) fn let_go(&mut self) {
        self.let_go_of(|_| true);
        self.until = None;
    }

    fn let_go_if_due(&mut self) {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.let_go_of(|kept| kept.free);
            self.until = None;
        }
    }

    fn let_go_of(&mut self, picked: impl Fn(&Kept) -> bool) {
        for kept in self.kept.extract_if(.., |kept| picked(kept)) {
            if kept.free {
                // A child of the shim that is not a program yet may have a copy.
                let _ = rustix::net::shutdown(&kept.socket, rustix::net::Shutdown::Both);
            }
        }
    }
}

impl Shim {
    /// How long the loop may sleep before something kept is let go.
    pub(super) fn holds_for(&self) -> Option<Duration> {
        let until = self.containers.values().filter_map(|container| container.keeper.until).min();
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Lets go of sockets that nobody has come back for.
    pub(super) fn end_holds(&mut self) {
        self.containers.values_mut().for_each(|container| container.keeper.let_go_if_due());
    }
}

impl Place {
    /// What a stream socket is, or is about to be, at `address`; none if it shares that with others.
    fn of(socket: &OwnedFd, address: SocketAddr) -> io::Result<Option<Self>> {
        if sockopt::socket_reuseport(socket)? {
            return Ok(None);
        }
        let only_v6 = address.is_ipv6() && sockopt::ipv6_v6only(socket)?;
        Ok(Some(Self { address, protocol: sockopt::socket_protocol(socket)?, only_v6 }))
    }

    /// Whether the kernel would refuse `other` while this one listens.
    fn excludes(&self, other: SocketAddr) -> bool {
        let both = self.address.is_ipv6() == other.is_ipv6() || !self.only_v6;
        let (a, b) = (self.address.ip().to_canonical(), other.ip().to_canonical());
        self.address.port() == other.port() && both && (a == b || a.is_unspecified() || b.is_unspecified())
    }
}

/// The internet address that a call of bind(2) names.
fn address(call: &Call) -> io::Result<Option<SocketAddr>> {
    let mut bytes = [0; ADDRESS];
    let length = usize::try_from(call.args[2]).unwrap_or(ADDRESS).min(ADDRESS);
    let length = call.read(call.args[1], &mut bytes[..length])?;
    Ok(parse(&bytes[..length]))
}

/// A socket address as the kernel takes it.
fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)), port)),
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let scope = rest.first_chunk::<4>().map_or(0, |scope| u32::from_ne_bytes(*scope));
            let flow = u32::from_be_bytes(*flow);
            Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, flow, scope).into())
        }
        _ => None,
    }
}

/// A copy of the caller's descriptor.
fn descriptor(call: &Call, number: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(call.pid).map_err(io::Error::other)?;
    // Only the first thread of a process has a pidfd.
    let pidfd = process::pidfd_open(pid).or_else(|_| process::pidfd_open(process::leader(pid)?))?;
    let number = i32::try_from(number).map_err(io::Error::other)?;
    Ok(rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty())?)
}

fn closes_on_exec(call: &Call, number: u32) -> io::Result<bool> {
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", call.pid))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
    let flags = flags.and_then(|flags| u32::from_str_radix(flags, 8).ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(flags & libc::O_CLOEXEC.cast_unsigned() != 0)
}

/// Whether a program of the group has the socket.
fn is_held(group: &Group, inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let file = |path: &str| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = file("/proc/self/exe");
    group.members().into_iter().any(|pid| {
        // A child of the shim has copies of all that the shim has, until it becomes a program.
        if file(&format!("/proc/{pid}/exe")) == own {
            return false;
        }
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str, only_v6: bool) -> Place {
        Place { address: address.parse().unwrap(), protocol: None, only_v6 }
    }

    #[test]
    fn an_address_is_read_as_the_kernel_reads_it() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&v4), Some("127.0.0.1:8080".parse().unwrap()));
        let mut v6 = [0; 28];
        (v6[0], v6[2], v6[3], v6[23]) = (10, 0, 80, 1);
        assert_eq!(parse(&v6), Some("[::1]:80".parse().unwrap()));
        assert_eq!(parse(&v6[..20]), None);
        assert_eq!(parse(&[1, 0, b'/', b'a']), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn kept_sockets_give_way_to_what_they_would_keep_out() {
        let other = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(place("0.0.0.0:80", false).excludes(other("127.0.0.1:80")));
        assert!(place("127.0.0.1:80", false).excludes(other("0.0.0.0:80")));
        assert!(place("[::]:80", false).excludes(other("0.0.0.0:80")));
        assert!(!place("[::]:80", true).excludes(other("0.0.0.0:80")));
        assert!(!place("127.0.0.1:80", false).excludes(other("127.0.0.2:80")));
        assert!(!place("0.0.0.0:80", false).excludes(other("0.0.0.0:81")));
    }
}
