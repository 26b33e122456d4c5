//! What runs inside a clone until the exec: the steps of a container's start, and of an exec, in order.
//!
//! The shim is single-threaded, so its clone may allocate. It reports over a socket that the exec closes.

pub(crate) mod dev;
pub(crate) mod exec;
mod init;
pub(crate) mod mask;
pub(crate) mod mounts;
mod port;
pub(crate) mod process;
mod rootfs;
mod sysctl;
pub(crate) mod user;

pub(crate) use dev::build as make_dev;
pub(crate) use exec::{Joined, run as run_exec};
pub(crate) use port::Port;
pub(crate) use process::raise_limit;
pub(crate) use rootfs::{Plan, run};

use std::io;
use std::os::fd::OwnedFd;

use super::error::LaunchError;
use super::launch::Ids;

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

impl Standard {
    /// Gives pipes to the root of a user namespace, so that its processes can open them again by name.
    pub(crate) fn give_to(&self, ids: Ids) -> Result<(), LaunchError> {
        use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
        let step = || "give the pipes to the container";
        for fd in self.fds.iter().flatten() {
            if FileType::from_raw_mode(fstat(fd).step(step)?.st_mode) == FileType::Fifo {
                fchown(fd, Some(Uid::from_raw(ids.base)), Some(Gid::from_raw(ids.base))).step(step)?;
            }
        }
        Ok(())
    }
}
