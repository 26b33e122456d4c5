//! Descriptors for others, over a unix socket that listens somewhere: a terminal's master, a filter's listener.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;

use super::error::{Doing as _, Error};
use super::state::{State, VERSION};

/// Sends a terminal's master.
pub(super) fn terminal(socket: &Path, master: BorrowedFd<'_>) -> Result<(), Error> {
    send(socket, b"/dev/ptmx", master).doing(|| format!("send the terminal to {}", socket.display()))
}

/// What goes with a filter's listener.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State,
}

/// Sends the listener of the filter that a process is under.
pub(super) fn listener(
    socket: &Path,
    listener: BorrowedFd<'_>,
    pid: i32,
    metadata: &str,
    state: &State,
) -> Result<(), Error> {
    let process = ProcessState { oci_version: VERSION, fds: ["seccompFd"], pid, metadata, state };
    let step = || format!("send the listener of the system call filter to {}", socket.display());
    let text = serde_json::to_vec(&process).map_err(io::Error::from).doing(step)?;
    send(socket, &text, listener).doing(step)
}

fn send(socket: &Path, text: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&stream, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
