//! Entering network namespaces.
//!
//! A thread that has entered a foreign namespace must not be reused for anything else, so each call gets a thread of its own.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Runs `f` on a fresh thread that has entered the network namespace `netns`, and returns what it returns.
///
/// Sockets that `f` opens stay in that namespace wherever they are used later; `/proc/sys/net` and
/// `/proc/thread-self/net` show it as well.
///
/// # Errors
/// The thread could not be started, or `setns(2)` refused (no `CAP_SYS_ADMIN`, not a network namespace).
pub fn with_netns<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
