//! Messages with file descriptors over a unix stream socket.
//!
//! A frame is a header (length of the body and number of descriptors, both little-endian `u32`), and the body. The
//! descriptors travel as `SCM_RIGHTS` with the frame's first byte. The kernel may hand out several frames in one
//! read, so received descriptors queue up and each frame takes the number that its header says.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::sync::Mutex;

/// Largest body in bytes.
pub const MAX_BODY: usize = 64 << 20;
/// Most descriptors of one frame; the kernel's `SCM_MAX_FD` is 253.
pub const MAX_FDS: usize = 250;
const HEADER: usize = 8;

/// A received message.
#[derive(Debug)]
pub struct Frame {
    /// Body.
    pub bytes: Vec<u8>,
    /// Descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Sends a frame over a blocking socket.
pub fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut outgoing = Outgoing::new(bytes, fds.len())?;
    while !outgoing.is_done() {
        match outgoing.write(socket.as_fd(), fds) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
    }
    Ok(())
}

/// What has been read of a connection but not been taken as frames yet.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Receives the next frame from a blocking socket; `None` at the end of the stream.
    pub fn recv(&mut self, socket: &UnixStream) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.fill(socket.as_fd()) {
                Ok(0) => return self.end(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => other.map(drop)?,
            }
        }
    }

    /// One read. Returns the number of bytes, 0 at the end of the stream.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let wanted = self.missing().clamp(4096, 1 << 20);
        let start = self.bytes.len();
        self.bytes.resize(start + wanted, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.bytes[start..])];
        let received = rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        let count = received.as_ref().map_or(0, |message| message.bytes);
        self.bytes.truncate(start + count);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        received.map(|_| count).map_err(Into::into)
    }

    /// The next whole frame, if it is there.
    pub fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some((body, fds)) = self.header()? else { return Ok(None) };
        if self.bytes.len() < HEADER + body {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(invalid("a message came without its file descriptors"));
        }
        let bytes = self.bytes[HEADER..HEADER + body].to_vec();
        self.bytes.drain(..HEADER + body);
        Ok(Some(Frame { bytes, fds: self.fds.drain(..fds).collect() }))
    }

    /// The end of the stream: fine between frames, an error inside one.
    pub fn end(&self) -> io::Result<Option<Frame>> {
        if self.bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn header(&self) -> io::Result<Option<(usize, usize)>> {
        let Some((body, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let Some((fds, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let (body, fds) = (u32::from_le_bytes(*body) as usize, u32::from_le_bytes(*fds) as usize);
        if body > MAX_BODY || fds > MAX_FDS {
            return Err(invalid("a message is larger than allowed"));
        }
        Ok(Some((body, fds)))
    }

    fn missing(&self) -> usize {
        self.header().ok().flatten().map_or(0, |(body, _)| (HEADER + body).saturating_sub(self.bytes.len()))
    }
}

/// A frame on its way out, for sockets that may take it in parts.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Prepares a frame of `bytes` and `fds` descriptors.
    pub fn new(bytes: &[u8], fds: usize) -> io::Result<Self> {
        let too_large = || invalid("a message is larger than allowed");
        if bytes.len() > MAX_BODY || fds > MAX_FDS {
            return Err(too_large());
        }
        let mut framed = Vec::with_capacity(HEADER + bytes.len());
        framed.extend_from_slice(&u32::try_from(bytes.len()).map_err(|_| too_large())?.to_le_bytes());
        framed.extend_from_slice(&u32::try_from(fds).map_err(|_| too_large())?.to_le_bytes());
        framed.extend_from_slice(bytes);
        Ok(Self { bytes: framed, sent: 0 })
    }

    /// Whether everything is sent.
    pub fn is_done(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// One write. `fds` must be the same at every call; they go with the first byte.
    pub fn write(&mut self, socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if self.sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(invalid("too many file descriptors in a message"));
        }
        let parts = [IoSlice::new(&self.bytes[self.sent..])];
        self.sent += rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// A connection in an async program. One task may send while another receives.
#[derive(Debug)]
pub struct AsyncFrames {
    socket: tokio::net::UnixStream,
    incoming: Mutex<Incoming>,
    turn: Mutex<()>,
}

impl AsyncFrames {
    /// Takes over a connected socket.
    pub fn new(socket: tokio::net::UnixStream) -> Self {
        Self { socket, incoming: Mutex::default(), turn: Mutex::default() }
    }

    /// Takes over a connected socket of the standard library. Needs a running tokio runtime.
    pub fn from_std(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(socket).map(Self::new)
    }

    /// Sends a frame; frames of several tasks never mix. Not cancel-safe: a dropped send breaks the connection.
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut outgoing = Outgoing::new(bytes, fds.len())?;
        let _turn = self.turn.lock().await;
        while !outgoing.is_done() {
            self.socket.async_io(Interest::WRITABLE, || outgoing.write(self.socket.as_fd(), fds)).await?;
        }
        Ok(())
    }

    /// Receives a frame; `None` at the end of the stream. Cancel-safe.
    pub async fn recv(&self) -> io::Result<Option<Frame>> {
        let mut incoming = self.incoming.lock().await;
        loop {
            if let Some(frame) = incoming.take()? {
                return Ok(Some(frame));
            }
            if self.socket.async_io(Interest::READABLE, || incoming.fill(self.socket.as_fd())).await? == 0 {
                return incoming.end();
            }
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    fn file_with(text: &str) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn frames_keep_their_bounds_and_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (one, two) = (file_with("one"), file_with("two"));
        send(&a, b"first", &[one.as_fd()]).unwrap();
        send(&a, b"", &[]).unwrap();
        send(&a, b"third", &[two.as_fd()]).unwrap();
        drop(a);
        let mut incoming = Incoming::default();
        let texts: Vec<_> = std::iter::from_fn(|| incoming.recv(&b).unwrap())
            .map(|mut frame| {
                let mut text = String::from_utf8(frame.bytes).unwrap();
                for fd in frame.fds.drain(..) {
                    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
                }
                text
            })
            .collect();
        assert_eq!(texts, ["firstone", "", "thirdtwo"]);
    }

    #[test]
    fn a_large_frame_passes_through_a_small_socket() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (a, b) = tokio::net::UnixStream::pair().unwrap();
            let (a, b) = (AsyncFrames::new(a), AsyncFrames::new(b));
            let body = vec![7; 5 << 20];
            let (sent, received) = tokio::join!(a.send(&body, &[]), b.recv());
            sent.unwrap();
            assert_eq!(received.unwrap().unwrap().bytes, body);
        });
    }

    #[test]
    fn a_torn_frame_is_an_error() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[9, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        drop(a);
        assert_eq!(Incoming::default().recv(&b).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
