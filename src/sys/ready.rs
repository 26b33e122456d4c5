//! Waiting for a descriptor in an async program.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the running tokio runtime.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and names the same file from here until the `AsyncFd` drops it.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
