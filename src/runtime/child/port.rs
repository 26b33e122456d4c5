//! The child's socket to the shim. It keeps the bounds of messages and closes with the exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::runtime::wire::Report;

const LARGEST: usize = 64 << 10;
const GO: &[u8] = b"go";

/// One end of the socket between a child and its shim.
#[derive(Debug)]
pub(crate) struct Port(OwnedFd);

impl Port {
    /// Both ends: the shim's, the child's.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (shim, child) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(shim), Self(child)))
    }

    /// The same end once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The child tells something.
    pub(crate) fn tell<T: Serialize>(&self, report: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(report)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The shim hears, without waiting. `None` at the end.
    pub(crate) fn hear(&self) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
        self.receive(RecvFlags::DONTWAIT)
    }

    /// Waits for what the other side tells. `None` at the end.
    pub(crate) fn await_word<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        loop {
            match self.receive(RecvFlags::empty()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn receive<T: DeserializeOwned>(&self, flags: RecvFlags) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut text = vec![0; LARGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut text)];
        let length = recvmsg(&self.0, &mut parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?.bytes;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&text[..length])?, fd)))
    }

    /// The shim lets the child go on.
    pub(crate) fn release(&self) -> io::Result<()> {
        rustix::net::send(&self.0, GO, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// The child waits for that; `false` if the shim is gone.
    pub(crate) fn await_release(&self) -> bool {
        let mut word = [0; GO.len()];
        loop {
            match rustix::net::recv(&self.0, &mut word[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => return matches!(other, Ok((length, _)) if length == GO.len()),
            }
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
