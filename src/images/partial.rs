//! Blobs on their way from a registry: kept by digest when a transfer breaks off, so that the next goes on from there.

use std::io::{self, Read, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::FlockOperation;

use super::Digest;
use super::blobs::Blobs;
use super::error::{Doing as _, Error};
use crate::sys::fault;

/// A blob that this process alone receives.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) digest: Digest,
    path: PathBuf,
    file: fs::File,
}

/// How such files end.
const SUFFIX: &str = ".partial";

/// Whether a file aside is kept for the next transfer.
pub(super) fn is_partial(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// Bytes that are there of a blob on its way.
pub(super) fn size(blobs: &Blobs, digest: Digest) -> u64 {
    fs::metadata(path(blobs, digest)).map_or(0, |metadata| metadata.len())
}

fn path(blobs: &Blobs, digest: Digest) -> PathBuf {
    blobs.aside().join(format!("{}{SUFFIX}", digest.hex()))
}

impl Partial {
    /// Begins or goes on with a blob; none when it is there. Waits while another process receives the same one, unless
    /// told not to, and then fails with [`io::ErrorKind::WouldBlock`].
    pub(super) fn open(blobs: &Blobs, digest: Digest, wait: bool) -> io::Result<Option<Partial>> {
        let path = path(blobs, digest);
        let how = if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
        loop {
            if blobs.has(&digest) {
                return Ok(None);
            }
            let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(file.as_fd(), how))?;
            // Who had it may have put it in its place, or thrown it away.
            let same = fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()));
            if same && !blobs.has(&digest) {
                return Ok(Some(Partial { digest, path, file }));
            }
        }
    }

    /// Bytes that are there from before.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Forgets what is there: it was no good.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.file().set_len(0)
    }

    /// What is there from before, and a place to write the rest.
    pub(super) fn halves(&self) -> io::Result<(impl Read + Send + use<>, fs::File)> {
        let mut end = fs::OpenOptions::new().append(true).open(&self.path)?;
        end.seek(io::SeekFrom::End(0))?;
        Ok((fs::File::open(&self.path)?.take(self.len()?), end))
    }

    /// Puts it in its place. It must be right, to the last byte.
    pub(super) fn store(self, blobs: &Blobs) -> Result<(), Error> {
        let storing = || format!("storing blob {}", self.digest);
        let pass = |when: &str| fault::point(|| format!("{when} blob {}", self.digest)).doing(storing);
        pass("before syncing")?;
        self.file.sync_data().doing(storing)?;
        pass("before naming")?;
        fs::rename(&self.path, blobs.path(&self.digest)).doing(storing)?;
        pass("after naming")
    }

    /// Throws it away.
    pub(super) fn discard(self) {
        // A remainder costs space until the next collection, and its digest is checked again before it counts.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_received_is_kept_and_only_one_receives() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let digest = Digest::of(b"content");
        let first = Partial::open(&blobs, digest, true).unwrap().unwrap();
        let (_, mut end) = first.halves().unwrap();
        end.write_all(b"cont").unwrap();
        let other = Partial::open(&blobs, digest, false).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::WouldBlock);
        drop((first, end));

        let second = Partial::open(&blobs, digest, true).unwrap().unwrap();
        let (mut before, mut end) = second.halves().unwrap();
        end.write_all(b"ent").unwrap();
        let mut text = String::new();
        before.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), second.len().unwrap()), ("cont", 7));
        second.store(&blobs).unwrap();
        assert!(Partial::open(&blobs, digest, true).unwrap().is_none());
        assert_eq!(blobs.document(&digest).unwrap(), b"content");
    }
}
