//! Stopping and continuing everything in a group.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use super::write;

/// How long a freeze may take until it is no longer waited for. A process in the middle of a system call that can't be
/// interrupted stops at its end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Freezes or thaws a group of the unified hierarchy, and waits until everything in it has stopped.
pub(super) fn unified(folder: &Path, frozen: bool) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let events = rustix::fs::open(folder.join("cgroup.events"), flags, Mode::empty())?;
    write(&folder.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    if !frozen {
        return Ok(());
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let mut text = [0; 128];
        let length = rustix::io::pread(&events, &mut text, 0)?;
        let rest = end.saturating_duration_since(Instant::now());
        if text[..length].windows(8).any(|word| word == b"frozen 1") || rest.is_zero() {
            return Ok(());
        }
        // The kernel says when the file changes.
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(rest.subsec_nanos()) };
        match poll(&mut [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Freezes or thaws a group of the v1 freezer.
pub(super) fn v1(folder: &Path, frozen: bool) -> io::Result<()> {
    write(&folder.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
}
