//! A container's start, step by step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::mask::Places;
use super::port::Port;
use super::process::{Program, Setting};
use super::user;
use super::{Standard, Step, dev, init, mounts, sysctl};
use crate::runtime::cgroup::Group;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Launch, Net, Share};
use crate::runtime::seccomp::Filter;
use crate::runtime::wire::Report;
use crate::sys::{self, mount, netns};

/// A start with everything that the clone needs already open.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) launch: &'a Launch,
    pub(crate) fds: &'a [OwnedFd],
    pub(crate) port: Port,
    pub(crate) standard: Standard,
    pub(crate) group: &'a Group,
    pub(crate) filter: Option<Filter>,
    /// Network, IPC and UTS namespaces to enter, with their kind.
    pub(crate) enter: Vec<(OwnedFd, i32)>,
    /// The process whose `/dev/shm` is shared.
    pub(crate) shared_memory_of: Option<OwnedFd>,
    /// The `/dev` of a container in a user namespace.
    pub(crate) dev: Option<OwnedFd>,
}

/// Above the standard descriptors.
const FIRST_INHERITED: u32 = 3;

/// Runs in the clone; returns its exit code if it doesn't become the program.
pub(crate) fn run(plan: &Plan<'_>) -> i32 {
    match prepare(plan) {
        Ok(program) => {
            // What is inherited from the shim, above all its ends of sockets, must not outlive it here: with a copy
            // of its own port's other end this process would never see that the shim is gone, nor would anybody else.
            if let Err(e) = sys::process::close_from_except(FIRST_INHERITED, &[plan.port.as_fd()]) {
                return fail(&plan.port, LaunchError::new("close the shim's descriptors", e));
            }
            if !plan.port.await_release() {
                return 125;
            }
            become_program(plan, &program)
        }
        Err(error) => {
            let code = fail(&plan.port, error);
            // A process that has ended has no namespaces any more, and the shim may be about to open them.
            if sys::process::close_from_except(FIRST_INHERITED, &[plan.port.as_fd()]).is_ok() {
                plan.port.await_release();
            }
            code
        }
    }
}

fn become_program(plan: &Plan<'_>, program: &Program) -> i32 {
    if plan.launch.init {
        let _ = sys::process::block_all_signals();
        match sys::process::fork() {
            Ok(Some(main)) => return init::run(main),
            Ok(None) => lead_terminal(plan.launch.process.tty),
            Err(e) => return fail(&plan.port, LaunchError::new("fork below init", e)),
        }
    }
    let _ = sys::process::unblock_signals();
    fail(&plan.port, program.exec())
}

/// The program below init gets a process group of its own, in the foreground of its terminal.
fn lead_terminal(tty: bool) {
    let _ = rustix::process::setpgid(None, None);
    if tty {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    }
}

pub(super) fn fail(port: &Port, error: LaunchError) -> i32 {
    let code = error.code;
    let _ = port.tell(&Report::Failed(error), None);
    code
}

fn prepare(plan: &Plan<'_>) -> Result<Program, LaunchError> {
    let Plan { launch, group, .. } = plan;
    // A guest is still the host's user 0 here, though with no right beyond that, and nobody inside.
    let guest = launch.ids.is_some();
    if guest {
        group.join()?;
        if !plan.port.await_release() {
            return Err(LaunchError::refused("wait for the user namespace", "the shim is gone"));
        }
        sys::userns::become_root().step(|| "become the container's root")?;
    } else {
        group.enter(&launch.cgroup, launch.privileged, &launch.devices)?;
    }
    for (namespace, kind) in &plan.enter {
        sys::process::enter(namespace.as_fd(), *kind).step(|| "join a namespace")?;
    }
    let shared_memory =
        plan.shared_memory_of.as_ref().map(|process| borrow_shared_memory(process.as_fd())).transpose()?;
    if let Some(adjustment) = launch.process.oom_score_adj.filter(|_| !guest) {
        fs_err::write("/proc/self/oom_score_adj", adjustment.to_string()).step(|| "set oom_score_adj")?;
    }
    if launch.namespaces.cgroup == Share::Private {
        // Only now, so that it is rooted at the container's groups.
        sys::process::unshare(libc::CLONE_NEWCGROUP).step(|| "unshare control groups")?;
    }
    if launch.namespaces.net == Net::None {
        netns::raise_loopback().step(|| "raise the loopback interface")?;
    }
    mount::make_all_private().step(|| "make mounts private")?;
    let files = mounts::files(&launch.mounts)?;
    let mut devices = if guest { Vec::new() } else { dev::elsewhere(&launch.devices)? };
    let root = plan
        .fds
        .get(launch.rootfs.0)
        .ok_or_else(|| LaunchError::refused("mount the root", "its descriptor is missing"))?
        .as_fd();
    mount::attach_at(root, Path::new("/")).step(|| "mount the root")?;
    let built = if plan.dev.is_none() { Some(dev::build(&launch.devices, None)?) } else { None };
    let own_dev = built.as_ref().or(plan.dev.as_ref());
    let own_dev = own_dev.ok_or_else(|| LaunchError::refused("make /dev", "it is missing"))?;
    let devpts = mounts::dev(root, own_dev.as_fd(), launch, shared_memory)?;
    if guest {
        devices = dev::waiting_elsewhere(own_dev.as_fd(), &launch.devices)?;
    }
    let (proc, sys) = mounts::kernel(root, launch)?;
    if launch.namespaces.cgroup == Share::Private {
        mounts::control_groups(sys.as_fd(), &group.views(), launch.privileged)?;
    }
    mounts::wanted(root, &launch.mounts, plan.fds, files)?;
    for (tree, device) in devices {
        mounts::place(root, tree.as_fd(), &device.path)?;
    }
    if guest {
        dev::forget_waiting(own_dev.as_fd(), &launch.devices)?;
    }
    name_host(launch)?;
    sysctl::write(proc.as_fd(), launch)?;
    if !launch.privileged {
        let places = Places { root, proc: Some(proc.as_fd()), sys: Some(sys.as_fd()), dev: own_dev.as_fd() };
        places.hide(&launch.masked)?;
        places.protect(&launch.read_only_paths)?;
    }
    mount::pivot(root).step(|| "change the root")?;
    let user = user::resolve(root, &launch.process.user, &launch.process.groups)?;
    let program = Program::new(&launch.process, &user)?;
    let setting = Setting {
        process: &launch.process,
        port: &plan.port,
        filter: plan.filter.as_ref(),
        root,
        devpts: devpts.as_fd(),
        first: true,
    };
    setting.connect(&plan.standard, &user)?;
    setting.make_folder()?;
    if launch.read_only {
        mount::restrict(root, mount::READ_ONLY, false).step(|| "make the root read-only")?;
    }
    setting.confine(&user)?;
    Ok(program)
}

fn name_host(launch: &Launch) -> Result<(), LaunchError> {
    if launch.namespaces.uts != Share::Private {
        return Ok(());
    }
    rustix::system::sethostname(launch.hostname.as_bytes()).step(|| format!("set host name {}", launch.hostname))?;
    match &launch.domainname {
        Some(name) => sys::process::set_domain_name(name).step(|| format!("set domain name {name}")),
        None => Ok(()),
    }
}

/// A copy of another container's `/dev/shm`, made inside its mount namespace, since nobody else may copy it.
fn borrow_shared_memory(process: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    let step = || "share /dev/shm";
    let own = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    sys::process::enter(process, libc::CLONE_NEWNS).step(step)?;
    let tree = mount::clone_tree(Path::new("/dev/shm"), false);
    sys::process::enter(own.as_fd(), libc::CLONE_NEWNS).step(step)?;
    tree.step(step)
}
