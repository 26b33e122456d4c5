//! Reading a layer's archive in three stages that run at once: read and hash; decompress and hash; unpack.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::compression::{self, Compression};
use super::digest::{Digest, Hasher};
use super::error::Error;

/// Bytes per piece handed from stage to stage, and how many may wait: what bounds memory. Pieces go back when they are used.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

/// What is known of an archive that has been read to its end.
#[derive(Debug)]
pub(super) struct Archive {
    /// How it was compressed.
    pub(super) compression: Compression,
    /// Digest of the archive itself.
    pub(super) diff_id: Digest,
}

/// Reads `source` to its end, gives what comes to `keep`, and what it holds to `make`.
///
/// Where the digest of the stream is known, a wrong one is what is reported, not what followed from it: the stream is then read
/// to its end although its content is bad.
pub(super) fn read(
    source: impl Read + Send,
    wanted: Option<Digest>,
    keep: impl FnMut(&[u8]) -> io::Result<()> + Send,
    make: impl FnOnce(&mut dyn BufRead) -> Result<(), Error>,
) -> Result<Archive, Error> {
    thread::scope(|scope| {
        let (raw_out, raw_in) = pieces();
        let (plain_out, mut plain) = pieces();
        let first = scope.spawn(move || pump(source, keep, &raw_out, wanted.is_some()));
        let second = scope.spawn(move || {
            let decoded = compression::decode(raw_in);
            match decoded {
                Ok((compression, stream)) => {
                    pump(stream, |_| Ok(()), &plain_out, false).map(|digest| (compression, digest))
                }
                Err(e) => {
                    let _ = plain_out.to.send(Err(e));
                    None
                }
            }
        });
        let made = make(&mut plain).and_then(|()| {
            let rest = io::copy(&mut plain, &mut io::sink());
            rest.map(|_| ()).map_err(|source| Error::Io { what: "reading the layer's archive".to_owned(), source })
        });
        drop(plain);
        let stopped = || Error::Unsupported {
            what: "the layer's archive".to_owned(),
            why: "reading it stopped early".to_owned(),
        };
        let (first, second) = (first.join(), second.join());
        let raw = first.ok().flatten();
        if let (Some(wanted), Some((found, _))) = (wanted, raw)
            && wanted != found
        {
            return Err(Error::Mismatch { what: "the blob".to_owned(), wanted, found });
        }
        made?;
        raw.ok_or_else(stopped)?;
        let (compression, (diff_id, _)) = second.ok().flatten().ok_or_else(stopped)?;
        Ok(Archive { compression, diff_id })
    })
}

/// Sends a stream on in pieces, hashing it. None when it failed, which the receiver has been told, or when that is gone and
/// the digest not wanted all the same.
fn pump(
    mut source: impl Read,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
    out: &Outlet,
    to_the_end: bool,
) -> Option<(Digest, u64)> {
    let mut hasher = Hasher::default();
    loop {
        let mut piece = out.back.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
        piece.clear();
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        hasher.update(&piece);
        if let Err(e) = read.and_then(|_| keep(&piece)) {
            let _ = out.to.send(Err(e));
            return None;
        }
        if piece.is_empty() {
            return Some(hasher.finish());
        }
        if out.to.send(Ok(piece)).is_err() && !to_the_end {
            return None;
        }
    }
}

/// Where a stage puts its pieces, and gets them back when they are used.
#[derive(Debug)]
struct Outlet {
    to: SyncSender<io::Result<Vec<u8>>>,
    back: Receiver<Vec<u8>>,
}

/// A stream of pieces from another stage.
#[derive(Debug)]
struct Pieces {
    from: Receiver<io::Result<Vec<u8>>>,
    back: Sender<Vec<u8>>,
    piece: Vec<u8>,
    used: usize,
}

/// The way from one stage to the next.
fn pieces() -> (Outlet, Pieces) {
    let (to, from) = sync_channel(WAITING);
    let (give, back) = channel();
    (Outlet { to, back }, Pieces { from, back: give, piece: Vec::new(), used: 0 })
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(into.len());
        into[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.piece.len()
            && let Ok(next) = self.from.recv()
        {
            let used = std::mem::replace(&mut self.piece, next?);
            self.used = 0;
            if used.capacity() > 0 {
                // Nobody takes it any more after the last.
                let _ = self.back.send(used);
            }
        }
        Ok(&self.piece[self.used..])
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::add::scan;

    #[test]
    fn both_digests_and_all_bytes() {
        let plain = vec![7; 3 << 20];
        let raw = zstd::encode_all(plain.as_slice(), 1).unwrap();
        let mut kept = Vec::new();
        let keep = |bytes: &[u8]| {
            kept.extend_from_slice(bytes);
            Ok(())
        };
        let read = read(raw.as_slice(), None, keep, |stream| {
            let mut first = [0; 10];
            stream.read_exact(&mut first).unwrap();
            assert_eq!(first, [7; 10]);
            Ok(())
        });
        let read = read.unwrap();
        assert_eq!(read.diff_id, Digest::of(&plain));
        assert_eq!(read.compression, Compression::Zstd);
        assert_eq!(kept, raw);
    }

    #[test]
    fn each_stage_can_fail() {
        let full = |_: &[u8]| Err(io::ErrorKind::StorageFull.into());
        assert!(read(vec![1; 5 << 20].as_slice(), None, full, |_| Ok(())).is_err());
        assert!(read(vec![1; 5 << 20].as_slice(), None, |_| Ok(()), |_| Err(Error::BuiltIn("x"))).is_err());
        assert!(read(&b"\x1f\x8bnonsense"[..], None, |_| Ok(()), |_| Ok(())).is_err());
    }

    #[test]
    fn a_wrong_digest_is_named_whatever_it_led_to() {
        let wanted = Some(Digest::of(b"other"));
        let error = read(&b"\x1f\x8bnonsense"[..], wanted, |_| Ok(()), scan).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    }
}
