//! Netlink messages, written and read without a copy per attribute, and the sockets that carry them.
//!
//! Many requests travel in one datagram: the kernel works them off in order, so that a whole container costs one system
//! call per socket. Each request carries words for the error that it may become.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, SndBuf, SndBufForce};

use super::error::Error;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCL: u16 = 0x200;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const ACK_MESSAGE: u16 = 1;

/// Attributes being written.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(super) fn put_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// A number in the host's byte order, as rtnetlink wants it.
    pub(super) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order, as nftables wants it.
    pub(super) fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes as they are: a fixed header, or attributes written elsewhere.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Requests that travel together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    out: Attributes,
    actions: Vec<String>,
    acked: usize,
    /// Where each request starts.
    starts: Vec<usize>,
}

impl Batch {
    /// Adds a request; `action` says in an error what could not be done, in words that follow "cannot".
    pub(super) fn add(
        &mut self,
        action: impl Into<String>,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes),
    ) {
        let start = self.out.bytes.len();
        self.starts.push(start);
        self.actions.push(action.into());
        self.acked += usize::from(flags & ACK != 0);
        self.out.bytes.extend_from_slice(&[0; 4]);
        self.out.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.out.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.out.bytes.extend_from_slice(&[0; 8]);
        self.out.raw(header);
        fill(&mut self.out);
        let length = u32::try_from(self.out.bytes.len() - start).unwrap_or(u32::MAX);
        self.out.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Asks for an acknowledgement of the request added last.
    pub(super) fn acknowledge_last(&mut self) {
        if let Some(start) = self.starts.last() {
            let flags = u16_at(&self.out.bytes, start + 6) | ACK;
            self.out.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

/// Bytes of a socket's buffers.
const ROOM: usize = 8 << 20;

/// A message from the kernel: its type and what follows the netlink header.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

/// A netlink socket of the network namespace that the calling thread was in when it opened it.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    /// The next request's number: an answer is told from one that an earlier, failed batch left behind.
    sequence: AtomicU32,
}

impl Channel {
    /// For links, addresses and routes.
    pub(super) fn route() -> Result<Self, Error> {
        Self::open(NETLINK_ROUTE, "open a route netlink socket")
    }

    /// For nftables.
    pub(super) fn netfilter() -> Result<Self, Error> {
        Self::open(NETLINK_NETFILTER, "open a netfilter netlink socket")
    }

    fn open(protocol: isize, action: &str) -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            // A batch goes out as one message, and its acknowledgements come as one each: the usual 208 kB hold some
            // hundreds. Only the machine's root may exceed the machine's limit.
            let _ = setsockopt(&socket, SndBufForce, &ROOM).or_else(|_| setsockopt(&socket, SndBuf, &ROOM));
            let _ = setsockopt(&socket, RcvBufForce, &ROOM).or_else(|_| setsockopt(&socket, RcvBuf, &ROOM));
            Ok(socket)
        };
        open().map(|socket| Self { socket, sequence: AtomicU32::new(1) }).map_err(Error::system(action))
    }

    /// Sends all requests and waits for every acknowledgement; the first failure is the error, the requests after it
    /// have been tried nevertheless.
    pub(super) fn execute(&self, batch: &Batch) -> Result<(), Error> {
        if batch.len() == 0 {
            return Ok(());
        }
        let first = self.send(batch)?;
        let mut waiting = batch.acked;
        let mut failure = None;
        while waiting > 0 {
            for (_, answer) in self.receive(batch, first)? {
                if let Answer::Ended(end) = answer {
                    waiting = waiting.saturating_sub(1);
                    failure = failure.or(end);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Sends one atomic transaction: the first request opens it, the last but one asks for the acknowledgement.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), Error> {
        let first = self.send(batch)?;
        let acknowledged = batch.actions.len().saturating_sub(2);
        let mut failure = None;
        loop {
            for (index, answer) in self.receive(batch, first)? {
                if let Answer::Ended(end) = answer {
                    failure = failure.or(end);
                    if index == acknowledged || index == 0 {
                        return failure.map_or(Ok(()), Err);
                    }
                }
            }
        }
    }

    /// Sends one request for a listing and collects it.
    pub(super) fn dump(&self, batch: &Batch) -> Result<Vec<Reply>, Error> {
        let first = self.send(batch)?;
        let mut replies = Vec::new();
        loop {
            for (_, answer) in self.receive(batch, first)? {
                match answer {
                    Answer::Data(reply) => replies.push(reply),
                    Answer::Ended(end) => return end.map_or(Ok(replies), Err),
                }
            }
        }
    }

    /// Returns the number given to the first request.
    fn send(&self, batch: &Batch) -> Result<u32, Error> {
        let count = u32::try_from(batch.starts.len()).unwrap_or(u32::MAX);
        let first = self.sequence.fetch_add(count, Ordering::Relaxed);
        let mut bytes = batch.out.bytes.clone();
        for (number, start) in (first..).zip(&batch.starts) {
            bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
        }
        self.socket.send(&bytes, 0).map_err(Error::system("send to netlink"))?;
        Ok(first)
    }

    /// Answers to the requests of `batch`, each with the index of its request.
    fn receive(&self, batch: &Batch, first: u32) -> Result<Vec<(usize, Answer)>, Error> {
        let mut bytes = Vec::with_capacity(64 * 1024);
        self.socket.recv(&mut bytes, 0).map_err(Error::system("receive from netlink"))?;
        let ours = answers(&bytes).into_iter().filter_map(|(number, raw)| {
            let index = number.checked_sub(first)? as usize;
            let action = batch.actions.get(index)?;
            Some((
                index,
                match raw {
                    Raw::Data(reply) => Answer::Data(reply),
                    Raw::Ended { errno: 0, .. } => Answer::Ended(None),
                    Raw::Ended { errno, detail } => Answer::Ended(Some(Error::Netlink {
                        action: action.clone(),
                        detail,
                        source: io::Error::from_raw_os_error(errno),
                    })),
                },
            ))
        });
        Ok(ours.collect())
    }
}

#[derive(Debug)]
enum Answer {
    Data(Reply),
    /// Done, or why not.
    Ended(Option<Error>),
}

#[derive(Debug)]
enum Raw {
    Data(Reply),
    Ended { errno: i32, detail: Option<String> },
}

/// Messages with their numbers.
fn answers(mut bytes: &[u8]) -> Vec<(u32, Raw)> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let length = (u32_at(bytes, 0) as usize).clamp(HEADER, bytes.len());
        let (kind, flags, sequence) = (u16_at(bytes, 4), u16_at(bytes, 6), u32_at(bytes, 8));
        let payload = &bytes[HEADER..length];
        let raw = match kind {
            ERROR => Raw::Ended {
                errno: i32_at(payload, 0).saturating_neg(),
                detail: if flags & ACK_TLVS == 0 { None } else { detail(payload, flags) },
            },
            DONE => Raw::Ended { errno: i32_at(payload, 0).saturating_neg(), detail: None },
            _ => Raw::Data(Reply { kind, payload: payload.to_vec() }),
        };
        found.push((sequence, raw));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

/// Messages that nobody asked for.
pub(super) fn messages(bytes: &[u8]) -> Vec<Reply> {
    let data = |(_, raw)| if let Raw::Data(reply) = raw { Some(reply) } else { None };
    answers(bytes).into_iter().filter_map(data).collect()
}

fn detail(payload: &[u8], flags: u16) -> Option<String> {
    let echoed = if flags & CAPPED == 0 { u32_at(payload, 4) as usize } else { HEADER };
    attributes(payload.get(4 + echoed.next_multiple_of(4)..)?)
        .find(|(kind, _)| *kind == ACK_MESSAGE)
        .map(|(_, value)| text(value))
}

/// Walks over the attributes in `bytes`: kind and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.len() < 4 {
            return None;
        }
        let length = (u16_at(bytes, 0) as usize).clamp(4, bytes.len());
        let found = (u16_at(bytes, 2) & TYPE_MASK, &bytes[4..length]);
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(found)
    })
}

/// A nul-terminated text.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A number in the host's byte order, 0 if the bytes end before.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A number in network byte order, 0 if the bytes end before.
pub(super) fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |part| u32::from_be_bytes(*part))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

/// A number in the host's byte order, 0 if the bytes end before.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|part| part.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_read_back() {
        let mut written = Attributes::default();
        written.put_str(1, "eth0").nest(2, |inner| {
            inner.put(3, &[7]).put_be32(4, 5);
        });
        let read: Vec<_> = attributes(written.as_bytes()).collect();
        assert_eq!(read[0], (1, &b"eth0\0"[..]));
        assert_eq!(read[1].0, 2);
        let inner: Vec<_> = attributes(read[1].1).collect();
        assert_eq!(inner, [(3, &[7][..]), (4, &[0, 0, 0, 5][..])]);
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 1);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 1);
        assert_eq!(attributes(&[1]).count(), 0);
        assert_eq!(answers(&[255; 17]).len(), 1);
    }

    #[test]
    fn a_refusal_names_what_could_not_be_done() {
        let channel = Channel::route().unwrap();
        let mut batch = Batch::default();
        batch.add("remove the link nowhere0", libc::RTM_DELLINK, ACK, &[0; 16], |message| {
            message.put_str(libc::IFLA_IFNAME, "nowhere0");
        });
        let error = channel.execute(&batch).unwrap_err().to_string();
        assert!(error.starts_with("cannot remove the link nowhere0: "), "{error}");
    }
}
