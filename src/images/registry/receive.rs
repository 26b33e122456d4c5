//! One layer: what comes in is hashed, kept, decompressed, hashed again and unpacked in the same pass.

use std::convert::Infallible;
use std::io::{self, Read, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::super::add::scan;
use super::super::error::{Doing as _, Error, is_full};
use super::super::partial::Partial;
use super::super::snapshot::{expect_archive, unpack_stream};
use super::super::store::Inner;
use super::super::{Digest, Layer, pipeline};
use super::gate::Unfinished;
use crate::sys::fault;
use crate::sys::file::begin_writing;

/// Pieces from the network that may wait for the disk.
const WAITING: usize = 8;

/// Bytes of a blob that the disk is given to write while more come.
const AT_ONCE: u64 = 4 << 20;

/// A layer to be received.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) inner: Arc<Inner>,
    pub(super) layer: Layer,
    pub(super) chain_id: Digest,
    pub(super) below: Unfinished,
    pub(super) _alive: mpsc::Sender<Infallible>,
}

/// The other side of a layer that a thread receives.
#[derive(Debug)]
pub(super) struct Receiving {
    /// Takes what comes from the network; dropped early, the layer fails.
    pub(super) feed: mpsc::Sender<Bytes>,
    /// How it ended.
    pub(super) end: oneshot::Receiver<Ended>,
}

/// A layer that has been received, or not.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) wanted: Wanted,
    /// What came, where it is not all.
    pub(super) rest: Option<Partial>,
    pub(super) result: Result<(), Error>,
}

/// Starts a thread that receives a layer of which `partial` has the beginning.
pub(super) fn receive(wanted: Wanted, partial: Partial) -> Result<Receiving, Error> {
    let (feed, from) = mpsc::channel(WAITING);
    let (tell, end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("layer".to_owned()).spawn(move || {
        let (rest, result) = match wanted.take_in(&partial, from) {
            Ok(()) => (None, partial.store(&wanted.inner.blobs)),
            Err(error) => (Some(partial), Err(error)),
        };
        // Nobody waits any more when the command was interrupted.
        let _ = tell.send(Ended { wanted, rest, result });
    });
    thread.doing(|| "starting a thread".to_owned())?;
    Ok(Receiving { feed, end })
}

/// Unpacks a layer whose blob is in the store.
pub(super) fn unpack_stored(wanted: Wanted) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let (tell, end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("layer".to_owned()).spawn(move || {
        let unpack = || {
            wanted.inner.make_snapshot(&wanted.chain_id.hex(), |aside| {
                let blob = wanted.inner.blobs.open_blob(&wanted.layer.digest)?;
                unpack_stream(&wanted.layer, blob, |_| Ok(()), aside, &wanted.below)
            })
        };
        let _ = tell.send(unpack());
    });
    thread.doing(|| "starting a thread".to_owned())?;
    Ok(end)
}

impl Wanted {
    fn take_in(&self, partial: &Partial, from: mpsc::Receiver<Bytes>) -> Result<(), Error> {
        let keeping = || format!("keeping layer {}", self.layer.digest);
        let before = partial.len().doing(keeping)?;
        let (start, mut end) = partial.halves().doing(keeping)?;
        let left = self.layer.size.saturating_sub(before);
        let source = start.chain(Incoming { from, piece: Bytes::new(), left });
        let mut known = before;
        let mut still = self.layer.size;
        let (mut written, mut begun) = (before, before);
        let blobs = &self.inner.blobs;
        let keep = move |bytes: &[u8]| {
            let old = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
            known -= old as u64;
            let kept =
                fault::point(|| "keeping a piece of a blob".to_owned()).and_then(|()| end.write_all(&bytes[old..]));
            match kept {
                Err(e) if is_full(&e) => Err(Full { needed: still, free: blobs.free() }.into()),
                other => {
                    still = still.saturating_sub(bytes.len() as u64);
                    written += (bytes.len() - old) as u64;
                    if written - begun >= AT_ONCE {
                        begin_writing(&end, begun, written - begun);
                        begun = written;
                    }
                    other
                }
            }
        };
        let mut source = Some((source, keep));
        self.inner.make_snapshot(&self.chain_id.hex(), |aside| {
            let Some((source, keep)) = source.take() else { return Ok(()) };
            unpack_stream(&self.layer, source, keep, aside, &self.below)
        })?;
        match source.take() {
            // The layer is unpacked already, by whoever had the blob before.
            Some((source, keep)) => {
                expect_archive(&self.layer, &pipeline::read(source, Some(self.layer.digest), keep, scan)?)
            }
            None => Ok(()),
        }
    }
}

/// The disk became full: what of the blob is still to be kept, and what was free just then.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{needed} bytes more are needed")]
pub(super) struct Full {
    pub(super) needed: u64,
    pub(super) free: u64,
}

impl From<Full> for io::Error {
    fn from(full: Full) -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, full)
    }
}

/// What comes from the network, as a stream that fails where it ends early.
#[derive(Debug)]
struct Incoming {
    from: mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.piece = self.from.blocking_recv().ok_or(io::ErrorKind::ConnectionAborted)?;
            self.left = self.left.saturating_sub(self.piece.len() as u64);
        }
        let n = self.piece.len().min(into.len());
        into[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}
