//! Files that survive a crash: atomic replacement, and locks that the kernel releases.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::fault;

/// Replaces `path` by `bytes`: a reader sees the old content or the new, never a part.
///
/// With `durable`, content and name reach the disk before this returns; without, a power cut may bring back the old.
pub fn write_atomic(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.{}.tmp", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed)));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let pass = |when: &str| fault::point(|| format!("{when} {}", path.display()));
        pass("before writing")?;
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        drop(file);
        pass("before renaming")?;
        fs::rename(&temporary, path)?;
        pass("after renaming")?;
        match (durable, path.parent()) {
            (true, Some(parent)) => fs::File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Has the kernel begin to write a part of a file to the disk, and doesn't wait: a later sync of the file is shorter.
pub fn begin_writing(file: impl AsFd, begin: u64, length: u64) {
    let (Ok(begin), Ok(length)) = (libc::off64_t::try_from(begin), libc::off64_t::try_from(length)) else { return };
    // SAFETY: the descriptor is open while it is borrowed, and the call touches no memory of ours. Where it isn't supported,
    // the sync does it all.
    unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), begin, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// An exclusive lock on a file. The kernel releases it when the holder ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Waits for the lock. The file is made if missing.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(|()| Self { _file: file }).map_err(|e| with_path(e.into(), path)),
            }
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(with_path(e.into(), path)),
        }
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|e| with_path(e.into(), path))
}

fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("failed to lock file `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_no_remains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_atomic(&path, b"old", false).unwrap();
        write_atomic(&path, b"new", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_held_lock_is_refused_and_released_on_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}
