//! A process started in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::port::Port;
use super::process::{Program, Setting, raise_limit};
use super::rootfs::fail;
use super::{Standard, Step, user};
use crate::runtime::cgroup::Group;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Process;
use crate::runtime::seccomp::Filter;
use crate::sys::{self, path};

/// File system number of devpts.
const DEVPTS: i64 = 0x1cd1;

/// An exec with everything that the clone needs already open.
#[derive(Debug)]
pub(crate) struct Joined<'a> {
    pub(crate) process: &'a Process,
    pub(crate) port: Port,
    pub(crate) standard: Standard,
    pub(crate) filter: Option<Filter>,
    pub(crate) group: &'a Group,
    /// Process 1 of the container.
    pub(crate) container: &'a OwnedFd,
    /// The container has a user namespace.
    pub(crate) guest: bool,
}

/// Runs in the clone, which is in the container's pid namespace already.
pub(crate) fn run(joined: &Joined<'_>) -> i32 {
    match prepare(joined) {
        Ok(program) => {
            let _ = sys::process::unblock_signals();
            fail(&joined.port, program.exec())
        }
        Err(error) => fail(&joined.port, error),
    }
}

fn prepare(joined: &Joined<'_>) -> Result<Program, LaunchError> {
    let process = joined.process;
    if let Some(adjustment) = process.oom_score_adj {
        fs_err::write("/proc/self/oom_score_adj", adjustment.to_string()).step(|| "set oom_score_adj")?;
    }
    joined.group.join()?;
    let mut namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
    if joined.guest {
        namespaces |= libc::CLONE_NEWUSER;
        // Inside, limits can only be lowered.
        process.rlimits.iter().try_for_each(|limit| raise_limit(limit, 0))?;
    }
    sys::process::enter(joined.container.as_fd(), namespaces).step(|| "enter the container")?;
    if joined.guest {
        sys::userns::become_root().step(|| "become the container's root")?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).step(|| "open the root")?;
    let user = user::resolve(root.as_fd(), &process.user, &process.groups)?;
    let program = Program::new(process, &user)?;
    let devpts = if process.tty { open_devpts(&root)? } else { root.try_clone().step(|| "open the root")? };
    let setting = Setting {
        process,
        port: &joined.port,
        filter: joined.filter.as_ref(),
        root: root.as_fd(),
        devpts: devpts.as_fd(),
        first: false,
    };
    setting.connect(&joined.standard, &user)?;
    setting.confine(&user)?;
    Ok(program)
}

/// The terminals of the container whose root this is.
pub(crate) fn open_devpts(root: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    let step = || "open /dev/pts";
    let devpts = path::open_in_root(root.as_fd(), Path::new("dev/pts"), OFlags::PATH | OFlags::DIRECTORY).step(step)?;
    if rustix::fs::fstatfs(&devpts).step(step)?.f_type == DEVPTS {
        return Ok(devpts);
    }
    Err(LaunchError::refused(step(), "it isn't a terminal file system"))
}
