//! The container's own process, from its clone to its program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::config::{Config, Process};
use super::linux::{Device, Kind};
use super::options::Propagation;
use super::state::{State, Status};
use super::trees::{self, Prepared};
use super::{console, devices, guard, hook, identity, mounts};
use crate::runtime::child::process::Program;
use crate::runtime::child::{Port, Step};
use crate::runtime::error::LaunchError;
use crate::runtime::launch;
use crate::runtime::seccomp::Bundled;
use crate::sys::path::{self, Missing};
use crate::sys::{self, mount, netns};

/// What the container's process says, and the process before it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The container's process is there, and waits.
    Cloned(i32),
    /// Everything is mounted; it waits for the hooks.
    Mounted,
    /// Its terminal's master comes along.
    Terminal,
    /// The listener of its filter comes along; it waits until that is handed over.
    Listener,
    /// It waits for its start.
    Ready,
    /// It failed and ends.
    Failed(LaunchError),
}

/// A start with everything that is known or open before the clone.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    pub(super) process: Option<&'a Process>,
    pub(super) state: State,
    pub(super) port: Port,
    pub(super) root: OwnedFd,
    pub(super) rootfs: &'a Path,
    pub(super) mounts: Vec<Prepared<'a>>,
    pub(super) devices: Vec<(OwnedFd, Device)>,
    pub(super) views: Vec<(String, PathBuf)>,
    pub(super) filter: Option<Bundled>,
    pub(super) go: OwnedFd,
    pub(super) outcome: OwnedFd,
    pub(super) no_pivot: bool,
    pub(super) preserved: u32,
}

/// Gives signals the meaning that a program expects to start with.
pub(super) fn forget_signals() {
    sys::process::reset_signals();
    let _ = sys::process::unblock_signals();
}

/// Runs in the clone; returns its exit code if it doesn't become the program.
pub(super) fn run(plan: Plan<'_>) -> i32 {
    forget_signals();
    let code = match prepare(&plan) {
        Ok(ready) => {
            let reason = await_start(&plan, ready);
            tell_outcome(&plan, &reason);
            1
        }
        Err(error) => {
            let code = error.code;
            let _ = plan.port.tell(&Word::Failed(error), None);
            code
        }
    };
    std::mem::forget(plan);
    code
}

fn tell_outcome(plan: &Plan<'_>, message: &str) {
    let _ = rustix::io::write(&plan.outcome, message.as_bytes());
}

/// Waits for what the runtime says: the container's pid as the host numbers it.
fn await_pid(plan: &Plan<'_>) -> Result<i32, LaunchError> {
    match plan.port.await_word::<i32>().step(|| "wait for the runtime")? {
        Some((pid, _)) => Ok(pid),
        None => Err(LaunchError::refused("wait for the runtime", "it is gone")),
    }
}

/// What is left when everything is set up: the program, if there is one, and the own pid as the host numbers it.
struct Ready {
    program: Option<Program>,
    pid: i32,
}

fn prepare(plan: &Plan<'_>) -> Result<Ready, LaunchError> {
    let Plan { config, root, .. } = plan;
    let linux = &config.linux;
    let pid = await_pid(plan)?;
    if linux.namespace(Kind::User).is_some() {
        sys::userns::become_root().step(|| "become the container's root")?;
    }
    rustix::process::setsid().step(|| "start a session")?;
    name_host(config)?;
    if linux.has_new(Kind::Network) {
        netns::raise_loopback().step(|| "raise the loopback interface")?;
    }
    rustix::process::umask(Mode::empty());
    let own_mounts = linux.has_new(Kind::Mount);
    if own_mounts {
        mount::make_all_private().step(|| "make mounts private")?;
    }
    let place = if own_mounts { Path::new("/") } else { plan.rootfs };
    mount::attach_at(root.as_fd(), place).step(|| "mount the root")?;
    mounts::attach(root.as_fd(), config, &plan.mounts, &plan.views)?;
    devices::inside(root.as_fd(), config, &plan.devices)?;
    guard::write_sysctls(config)?;
    plan.port.tell(&Word::Mounted, None).step(|| "tell the runtime")?;
    await_pid(plan)?;
    let state = State { pid, ..plan.state.clone() };
    hook::run("createContainer", &config.hooks.create_container, &state, &[])
        .map_err(|e| LaunchError::refused("create", e))?;
    guard::cover(root.as_fd(), config)?;
    let program = if let Some(process) = plan.process {
        Some(become_process(plan, process, own_mounts)?)
    } else {
        enter_root(plan, own_mounts)?;
        None
    };
    plan.port.tell(&Word::Ready, None).step(|| "tell the runtime")?;
    Ok(Ready { program, pid })
}

fn become_process(plan: &Plan<'_>, process: &Process, own_mounts: bool) -> Result<Program, LaunchError> {
    let root = plan.root.as_fd();
    if process.terminal {
        let devpts = console::devpts(root)?;
        let peer = console::open(devpts.as_fd(), process.console_size, process.user.uid, |master| {
            plan.port.tell(&Word::Terminal, Some(master))
        })?;
        console::show(root, peer.as_fd())?;
        console::connect(&peer)?;
    }
    enter_root(plan, own_mounts)?;
    rustix::process::umask(Mode::from(0o022));
    let program = program(process)?;
    change_folder(root, process)?;
    if let Some(policy) = &plan.config.linux.memory_policy {
        sys::schedule::set_memory_policy(&policy.mode, &policy.flags, &policy.nodes)
            .step(|| "set linux.memoryPolicy")?;
    }
    program.check()?;
    confine(plan, process)?;
    Ok(program)
}

fn confine(plan: &Plan<'_>, process: &Process) -> Result<(), LaunchError> {
    match sys::process::new_keyring() {
        Err(e) if e.raw_os_error() != Some(libc::ENOSYS) => return Err(LaunchError::new("join a new keyring", e)),
        _ => {}
    }
    // From here on, a filter may allow no more than programs need.
    let kept = [plan.port.as_fd(), plan.go.as_fd(), plan.outcome.as_fd()];
    let first = 3 + plan.preserved;
    sys::process::close_on_exec_from(first).step(|| "close descriptors")?;
    sys::process::close_from_except(first, &kept).step(|| "close descriptors")?;
    let process = Process { personality: plan.config.linux.personality.clone(), ..process.clone() };
    identity::take_on(&process, plan.filter.as_ref(), |listener| {
        let step = || "hand over the listener of the system call filter";
        plan.port.tell(&Word::Listener, Some(listener.as_fd())).step(step)
    })
}

fn name_host(config: &Config) -> Result<(), LaunchError> {
    if let Some(name) = config.hostname.as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).step(|| format!("set host name {name}"))?;
    }
    if let Some(name) = config.domainname.as_deref().filter(|name| !name.is_empty()) {
        sys::process::set_domain_name(name).step(|| format!("set domain name {name}"))?;
    }
    Ok(())
}

/// Makes the root the process's own.
fn enter_root(plan: &Plan<'_>, own_mounts: bool) -> Result<(), LaunchError> {
    let step = || "change the root";
    let root = plan.root.as_fd();
    if own_mounts && !plan.no_pivot {
        mount::pivot(root).step(step)?;
    } else {
        rustix::process::fchdir(root).step(step)?;
        rustix::process::chroot(".").step(step)?;
        rustix::process::chdir("/").step(step)?;
    }
    let asked = plan.config.linux.rootfs_propagation.as_deref().and_then(Propagation::parse);
    if let (Some(asked), true) = (asked, own_mounts) {
        trees::propagate(&plan.root, asked).step(|| "set linux.rootfsPropagation")?;
    }
    if plan.config.root.as_ref().is_some_and(|root| root.readonly) {
        mount::restrict(root, mount::READ_ONLY, false).step(|| "make the root read-only")?;
    }
    Ok(())
}

/// The program; without one of its own in the environment, the home folder is that of the user's entry.
pub(super) fn program(process: &Process) -> Result<Program, LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).step(|| "open the root")?;
    let user = crate::runtime::resolve_user(root.as_fd(), &process.user.uid.to_string(), &[])?;
    let plain = launch::Process { args: process.args.clone(), env: process.env.clone(), ..launch::Process::default() };
    Program::new(&plain, &user)
}

/// Changes to the working directory, which is made if missing, and has to lie in the container.
pub(super) fn change_folder(root: BorrowedFd<'_>, process: &Process) -> Result<(), LaunchError> {
    let cwd = Path::new(&process.cwd);
    let step = || format!("change to the working directory {}", cwd.display());
    let folder = match path::ensure_in_root(root, cwd, Missing::Folder) {
        // Of a root that can't be written to, say.
        Err(_) => path::open_in_root(root, cwd, OFlags::PATH).step(step)?,
        Ok(folder) => folder,
    };
    rustix::process::fchdir(&folder).step(step)?;
    let name = rustix::process::getcwd(Vec::new()).step(step)?;
    if name.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(LaunchError::refused(step(), "it lies outside of the container"))
}

/// Waits until somebody starts the container, and becomes its program; returns why it couldn't.
fn await_start(plan: &Plan<'_>, ready: Ready) -> String {
    let mut word = [0; 1];
    loop {
        match rustix::io::read(&plan.go, &mut word) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return format!("wait for the start: {e}"),
        }
    }
    let (Some(process), Some(program)) = (plan.process, ready.program) else {
        return "config.json has no process: there is nothing to start".to_owned();
    };
    let state = State { status: Status::Created, pid: ready.pid, ..plan.state.clone() };
    match hook::run("startContainer", &plan.config.hooks.start_container, &state, &process.env) {
        Ok(()) => program.exec().message,
        Err(e) => e.to_string(),
    }
}
