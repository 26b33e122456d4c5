//! What runs inside a clone until the exec: the steps of a container's start, and of an exec, in order.
//!
//! The shim is single-threaded, so its clone may allocate. It reports over a socket that the exec closes.

mod dev;
mod exec;
mod init;
mod mask;
mod mounts;
mod port;
mod process;
mod rootfs;
mod sysctl;
pub(crate) mod user;

pub(crate) use exec::{Joined, run as run_exec};
pub(crate) use port::Port;
pub(crate) use rootfs::{Plan, run};

use std::io;
use std::os::fd::OwnedFd;

use super::error::LaunchError;

/// Says which step an error belongs to.
pub(crate) trait Step<T> {
    /// Names the step, only if it failed.
    fn step<S: Into<String>>(self, name: impl FnOnce() -> S) -> Result<T, LaunchError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step<S: Into<String>>(self, name: impl FnOnce() -> S) -> Result<T, LaunchError> {
        self.map_err(|error| LaunchError::new(name(), error))
    }
}

/// A process's standard descriptors, unless it gets a terminal.
#[derive(Debug)]
pub(crate) struct Standard {
    /// Input, output, error; `/dev/null` where absent.
    pub(crate) fds: [Option<OwnedFd>; 3],
    /// Output and error are the container's own pipes, which its user must be able to open again.
    pub(crate) owned: bool,
}
