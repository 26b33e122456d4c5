//! A container's named pipes in the run directory.
//!
//! Both ends are opened for reading and writing: the container's own descriptors keep a pipe and what is in it alive
//! when the shim dies, it never sees a broken pipe, and a new shim opens the pipe again by name.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mknodat, openat, unlinkat};
use rustix::io::Errno;

/// What a pipe holds before its writer has to wait, in bytes.
const CAPACITY: usize = 1 << 20;
const SUFFIXES: [&str; 2] = ["out", "err"];

/// The folder of the pipes.
#[derive(Debug)]
pub(super) struct Pipes(OwnedFd);

/// Both ends of a container's output and error: the shim's, the container's.
pub(super) struct Pair {
    pub(super) ours: [OwnedFd; 2],
    pub(super) theirs: [OwnedFd; 2],
}

impl Pipes {
    /// Opens or makes the folder.
    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        let folder = run_dir.join("fifo");
        match rustix::fs::mkdir(&folder, Mode::from(0o700)) {
            Err(e) if e != Errno::EXIST => return Err(e.into()),
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(folder, flags, Mode::empty())?))
    }

    /// Makes a container's pipes anew.
    pub(super) fn make(&self, id: &str) -> io::Result<Pair> {
        self.remove(id);
        for suffix in SUFFIXES {
            mknodat(&self.0, name(id, suffix), FileType::Fifo, Mode::from(0o600), 0)?;
        }
        let ours = self.reopen(id)?;
        for pipe in &ours {
            // Not more than the kernel's default where the limit of all pipes is reached.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, CAPACITY);
        }
        let theirs = [self.end(id, SUFFIXES[0], OFlags::empty())?, self.end(id, SUFFIXES[1], OFlags::empty())?];
        Ok(Pair { ours, theirs })
    }

    /// The shim's ends of pipes that exist.
    pub(super) fn reopen(&self, id: &str) -> io::Result<[OwnedFd; 2]> {
        Ok([self.end(id, SUFFIXES[0], OFlags::NONBLOCK)?, self.end(id, SUFFIXES[1], OFlags::NONBLOCK)?])
    }

    /// Removes a container's pipes.
    pub(super) fn remove(&self, id: &str) {
        for suffix in SUFFIXES {
            let _ = unlinkat(&self.0, name(id, suffix), AtFlags::empty());
        }
    }

    fn end(&self, id: &str, suffix: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(self.0.as_fd(), name(id, suffix), flags, Mode::empty())?)
    }
}

fn name(id: &str, suffix: &str) -> String {
    format!("{id}.{suffix}")
}
