//! Containers in user namespaces: what only the shim may do for them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use fs_err as fs;
use rustix::pipe::PipeFlags;

use crate::runtime::child;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Ids, Process};
use crate::sys::process::{self, Cloned};
use crate::sys::userns;

/// Gives a clone the ids of its new user namespace, if it has one, and what a right of the host is needed for.
pub(super) fn admit(pid: i32, ids: Option<Ids>, wanted: &Process) -> Result<(), LaunchError> {
    if let Some(ids) = ids {
        let extent = [ids.extent()];
        userns::write_maps(pid, &extent, &extent).map_err(|e| LaunchError::new("map users and groups", e))?;
    }
    if let Some(adjustment) = wanted.oom_score_adj {
        fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string())
            .map_err(|e| LaunchError::new("set oom_score_adj", e))?;
    }
    wanted.rlimits.iter().try_for_each(|limit| child::raise_limit(limit, pid))
}

/// Clones into a user namespace that there is, and into others that belong to it.
///
/// Whoever enters one can't get back: a process in between does, and makes the clone a child of the shim.
pub(super) fn clone_inside(
    user: &OwnedFd,
    others: &[(OwnedFd, i32)],
    pids_of: Option<&OwnedFd>,
    flags: i32,
    group: Option<&OwnedFd>,
    body: impl FnOnce() -> i32,
) -> io::Result<Cloned> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let between = || -> io::Result<i32> {
        if let Some(other) = pids_of {
            process::enter(other.as_fd(), libc::CLONE_NEWPID)?;
        }
        for (namespace, kind) in others {
            process::enter(namespace.as_fd(), *kind)?;
        }
        process::enter(user.as_fd(), libc::CLONE_NEWUSER)?;
        Ok(process::clone(flags | libc::CLONE_PARENT, None, body)?.pid)
    };
    // Its end is reaped like that of any child.
    process::clone(0, group.map(AsFd::as_fd), || {
        let told = between().unwrap_or_else(|e| -e.raw_os_error().unwrap_or(libc::EIO));
        i32::from(rustix::io::write(&writer, &told.to_ne_bytes()).is_err())
    })?;
    drop(writer);
    let mut told = [0; 4];
    match rustix::io::read(&reader, &mut told)? {
        4 => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    match i32::from_ne_bytes(told) {
        pid if pid > 0 => Ok(Cloned { pid, pidfd: process::pidfd_open(pid)? }),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
