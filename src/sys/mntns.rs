//! Mount namespaces: work done on a thread of its own in a new one, or in another process's.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};

use super::mount;

/// Runs `f` in a copy of the caller's mounts that nothing propagates to or from. The copy lives as long as the thread
/// or a descriptor of it ([`own`]).
pub fn with_new<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount::make_all_private()?;
        f()
    })
}

/// Runs `f` among the mounts of the process behind a pidfd, `/` being the root there.
pub fn with_mounts_of<T: Send>(pidfd: BorrowedFd<'_>, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        // The kernel changes the mounts only of a thread that shares its root folder with no other.
        unshare(CloneFlags::CLONE_FS)?;
        setns(pidfd, CloneFlags::CLONE_NEWNS)?;
        f()
    })
}

/// The calling thread's mount namespace.
pub fn own() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mounts".to_owned()).spawn_scoped(scope, f)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
