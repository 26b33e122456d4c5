//! A further process in a container.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::check;
use super::config::{Process, parse};
use super::error::{Doing as _, Error};
use super::inside::{self, Word};
use super::state::{Container, Status};
use super::{Oci, console, identity, send};
use crate::runtime::cgroup::Group;
use crate::runtime::child::{Port, Step};
use crate::runtime::error::LaunchError;
use crate::runtime::seccomp::Bundled;
use crate::sys::{self, process, userns};

/// What to run, and how.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The process as JSON; the container's own if absent, with what follows changed.
    pub process: Option<String>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Further variables, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// User and group, by numbers.
    pub user: Option<(u32, Option<u32>)>,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Further capabilities.
    pub caps: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// Without new privileges.
    pub no_new_privs: bool,
    /// Label of AppArmor.
    pub apparmor: Option<String>,
    /// Label of SELinux.
    pub process_label: Option<String>,
    /// Who gets the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// What the number of the process is written to.
    pub pid_file: Option<PathBuf>,
    /// Descriptors from 3 on that it inherits.
    pub preserve_fds: u32,
    /// Also in a container that is paused, where it waits with the others.
    pub ignore_paused: bool,
    /// A control group below the container's.
    pub cgroup: Option<String>,
}

/// A process that runs in a container.
#[derive(Debug)]
pub struct Executed {
    /// As the host numbers it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, if nobody else got it.
    pub master: Option<OwnedFd>,
    /// What was not done, and why.
    pub warnings: Vec<String>,
    /// The processors that it began on, as a mask in hexadecimal digits; those of the command if absent.
    pub affinity: Option<String>,
}

impl Oci {
    /// Runs a further process in a container.
    ///
    /// # Errors
    /// When the container doesn't run, or the process can't be run.
    pub fn exec(&self, id: &str, wanted: &Exec) -> Result<Executed, Error> {
        let container = Container::load(&self.root, id)?;
        let status = container.status();
        match status {
            Status::Running | Status::Created => {}
            Status::Paused if wanted.ignore_paused => {}
            _ => return Err(Error::State { what: "run a process in", id: id.to_owned(), status }),
        }
        let mut process = understood(&container, wanted)?;
        process.personality.clone_from(&container.config.linux.personality);
        let warnings = check::process(&process)?;
        let filter = container.config.linux.seccomp.as_ref().map(Bundled::compile).transpose();
        let filter = filter.map_err(|e| Error::Config(format!("linux.seccomp: {e}")))?;
        let group = match &wanted.cgroup {
            Some(inner) => container.group()?.below(inner)?,
            None => container.group()?,
        };
        let pidfd = container.process().ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let guest = userns::of_process(container.record.pid).doing(|| "look at the user namespace".to_owned())?;
        let (ours, theirs) = Port::pair().doing(|| "make a socket".to_owned())?;
        process::set_dumpable(false).doing(|| "hide the own memory".to_owned())?;
        let joined = Joined {
            process,
            group: &group,
            container: pidfd,
            pid: container.record.pid,
            guest: guest.is_some(),
            filter,
            port: theirs,
            preserved: wanted.preserve_fds,
        };
        let listener = joined.filter.as_ref().and_then(|filter| filter.listener_path.clone());
        let metadata = joined.filter.as_ref().map(|filter| filter.listener_metadata.clone()).unwrap_or_default();
        let oom = joined.process.oom_score_adj;
        let affinity = joined.process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.initial.clone());
        let affinity = affinity.map(|list| sys::schedule::mask(&list)).transpose();
        let affinity = affinity.doing(|| "read execCPUAffinity.initial".to_owned())?;
        spawn(joined)?;
        let (mut pid, mut master) = (0, None);
        while let Some((word, fd)) = ours.await_word::<Word>().doing(|| "listen to the process".to_owned())? {
            match (word, fd) {
                (Word::Failed(error), _) => return Err(error.into()),
                (Word::Cloned(number), _) => {
                    pid = number;
                    if let Some(adjustment) = oom {
                        fs_err::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string())
                            .doing(|| format!("set oomScoreAdj to {adjustment}"))?;
                    }
                    ours.tell(&pid, None).doing(|| "talk to the process".to_owned())?;
                }
                (Word::Terminal, fd) => master = fd,
                (Word::Listener, Some(fd)) => {
                    if let Some(socket) = &listener {
                        send::listener(socket, fd.as_fd(), pid, &metadata, &container.state(status))?;
                    }
                }
                _ => {}
            }
        }
        let pidfd = process::pidfd_open(pid).doing(|| "open the process".to_owned())?;
        if let (Some(socket), Some(fd)) = (&wanted.console_socket, &master) {
            send::terminal(socket, fd.as_fd())?;
            master = None;
        }
        if let Some(file) = &wanted.pid_file {
            sys::file::write_atomic(file, pid.to_string().as_bytes(), false)?;
        }
        Ok(Executed { pid, pidfd, master, warnings, affinity })
    }
}

/// The process asked for: as written, or the container's own with changes.
fn understood(container: &Container, wanted: &Exec) -> Result<Process, Error> {
    if let Some(text) = &wanted.process {
        return parse(text).map_err(|e| Error::Config(format!("process: {e}")));
    }
    let mut process = container.config.process.clone().unwrap_or_default();
    process.args.clone_from(&wanted.args);
    for entry in &wanted.env {
        let name = |entry: &str| entry.split('=').next().map(str::to_owned);
        process.env.retain(|other| name(other) != name(entry));
        process.env.push(entry.clone());
    }
    process.terminal = wanted.tty;
    process.no_new_privileges |= wanted.no_new_privs;
    if let Some(cwd) = &wanted.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = wanted.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.extend(&wanted.groups);
    if !wanted.caps.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        let all = [&mut sets.bounding, &mut sets.effective, &mut sets.permitted, &mut sets.inheritable];
        for set in all {
            set.extend(wanted.caps.iter().cloned());
        }
    }
    process.apparmor_profile = wanted.apparmor.clone().or(process.apparmor_profile);
    process.selinux_label = wanted.process_label.clone().or(process.selinux_label);
    Ok(process)
}

/// An exec with everything that the clone needs already open.
struct Joined<'a> {
    process: Process,
    group: &'a Group,
    container: OwnedFd,
    pid: i32,
    /// The container is in a user namespace of its own.
    guest: bool,
    filter: Option<Bundled>,
    port: Port,
    preserved: u32,
}

/// Clones the process that joins the container and clones the process wanted.
fn spawn(joined: Joined<'_>) -> Result<(), Error> {
    let unified = joined.group.unified_of(joined.pid).doing(|| "open the control group".to_owned())?;
    let before = process::clone(0, unified.as_ref().map(OwnedFd::as_fd), || {
        let port = joined.port.try_clone();
        let cloned = join(&joined).and_then(|()| {
            process::clone(libc::CLONE_PARENT, None, move || run(joined))
                .map_err(|e| LaunchError::new("clone the process", e))
        });
        let word = match cloned {
            Ok(cloned) => Word::Cloned(cloned.pid),
            Err(error) => Word::Failed(error),
        };
        i32::from(port.and_then(|port| port.tell(&word, None)).is_err())
    });
    let before = before.doing(|| "clone".to_owned())?;
    process::wait_for(before.pidfd.as_fd());
    Ok(())
}

fn join(joined: &Joined<'_>) -> Result<(), LaunchError> {
    let affinity = joined.process.exec_cpu_affinity.as_ref();
    if let Some(processors) = affinity.and_then(|affinity| affinity.initial.as_deref()) {
        sys::schedule::set_affinity(processors).step(|| "set execCPUAffinity.initial")?;
    }
    joined.group.join()?;
    if let Some(processors) = affinity.and_then(|affinity| affinity.last.as_deref()) {
        sys::schedule::set_affinity(processors).step(|| "set execCPUAffinity.final")?;
    }
    let guest = if joined.guest { libc::CLONE_NEWUSER } else { 0 };
    let others = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP
        | super::linux::Kind::Time.flag();
    sys::process::enter(joined.container.as_fd(), guest | others).step(|| "enter the container")
}

/// Runs in the clone; returns its exit code if it doesn't become the program.
fn run(joined: Joined<'_>) -> i32 {
    let error = match become_process(&joined) {
        Ok(program) => program.exec(),
        Err(error) => error,
    };
    let code = error.code;
    let _ = joined.port.tell(&Word::Failed(error), None);
    std::mem::forget(joined);
    code
}

fn become_process(joined: &Joined<'_>) -> Result<crate::runtime::child::process::Program, LaunchError> {
    let process = &joined.process;
    inside::forget_signals();
    joined.port.await_word::<i32>().step(|| "wait for the runtime")?;
    if joined.guest {
        userns::become_root().step(|| "become the container's root")?;
    }
    rustix::process::setsid().step(|| "start a session")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).step(|| "open the root")?;
    if process.terminal {
        let devpts = console::devpts(root.as_fd())?;
        let peer = console::open(devpts.as_fd(), process.console_size, process.user.uid, |master| {
            joined.port.tell(&Word::Terminal, Some(master))
        })?;
        console::connect(&peer)?;
    }
    let program = inside::program(process)?;
    inside::change_folder(root.as_fd(), process)?;
    match process::new_keyring() {
        Err(e) if e.raw_os_error() != Some(libc::ENOSYS) => return Err(LaunchError::new("join a new keyring", e)),
        _ => {}
    }
    process::close_on_exec_from(3 + joined.preserved).step(|| "close descriptors")?;
    identity::take_on(process, joined.filter.as_ref(), |listener| {
        let step = || "hand over the listener of the system call filter";
        joined.port.tell(&Word::Listener, Some(listener.as_fd())).step(step)
    })?;
    Ok(program)
}
