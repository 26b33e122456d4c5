//! Making a container, from outside: everything but its program.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

use super::config::Config;
use super::error::{Doing as _, Error};
use super::inside::{self, Plan, Word};
use super::linux::Kind;
use super::namespaces::{Namespaces, maps};
use super::state::{Container, Record, Status};
use super::{Oci, check, devices, group, hook, send, trees};
use crate::runtime::cgroup::Group;
use crate::runtime::child::Port;
use crate::runtime::error::LaunchError;
use crate::runtime::seccomp::Bundled;
use crate::sys::{process, userns};

/// How to make a container.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// Its name.
    pub id: String,
    /// Folder with `config.json`.
    pub bundle: PathBuf,
    /// Who gets the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// What the number of its process is written to.
    pub pid_file: Option<PathBuf>,
    /// Change the root without leaving the old one.
    pub no_pivot: bool,
    /// Descriptors from 3 on that it inherits.
    pub preserve_fds: u32,
    /// The path of the control groups is one of systemd's.
    pub systemd_cgroup: bool,
}

/// A container that was made.
#[derive(Debug)]
pub struct Created {
    /// Process 1, as the host numbers it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, if nobody else got it.
    pub master: Option<OwnedFd>,
    /// What was not done, and why.
    pub warnings: Vec<String>,
}

impl Oci {
    /// Makes a container; it waits for its start.
    ///
    /// # Errors
    /// When its configuration can't be obeyed. Then nothing is left of it.
    pub fn create(&self, wanted: &Create) -> Result<Created, Error> {
        let bundle = fs::canonicalize(&wanted.bundle)?;
        let file = bundle.join("config.json");
        let text = fs::read_to_string(&file)?;
        let config = Config::parse(&text).map_err(|e| Error::Broken(file, e))?;
        let warnings = check::check(&config)?;
        let cgroup = group::path(&config, &wanted.id, wanted.systemd_cgroup)?;
        let created = jiff::Timestamp::now().to_string();
        let record = Record { id: wanted.id.clone(), pid: 0, start_time: 0, bundle, created, cgroup };
        let mut container = Container::new(&self.root, record, &text, config)?;
        let made = Making { container: &mut container, wanted, warnings }.make();
        if made.is_err() {
            container.clean();
        }
        made
    }
}

struct Making<'a> {
    container: &'a mut Container,
    wanted: &'a Create,
    warnings: Vec<String>,
}

impl Making<'_> {
    fn make(mut self) -> Result<Created, Error> {
        let config = self.container.config.clone();
        let process = config.process.as_ref();
        let terminal = process.is_some_and(|process| process.terminal);
        if let (Some(socket), false) = (&self.wanted.console_socket, terminal) {
            let message = format!("there is no terminal to send to {}: process.terminal is off", socket.display());
            return Err(Error::Config(message));
        }
        let filter = config.linux.seccomp.as_ref().map(Bundled::compile).transpose();
        let filter = filter.map_err(|e| Error::Config(format!("linux.seccomp: {e}")))?;
        let listener = filter.as_ref().and_then(|f| Some((f.listener_path.clone()?, f.listener_metadata.clone())));
        let state = self.container.state(Status::Creating);
        let group = self.container.group()?;
        let (ours, theirs) = Port::pair().doing(|| "make a socket".to_owned())?;
        let (go, outcome) = self.pipes()?;
        let namespaces = Namespaces::open(&config)?;
        let plan = Plan {
            config: &config,
            process,
            root: trees::root(&config, &state.rootfs)?,
            rootfs: &state.rootfs.clone(),
            mounts: trees::prepare(&config, &self.container.record.bundle)?,
            devices: devices::outside(&config)?,
            state: state.clone(),
            port: theirs,
            views: group.views(),
            filter,
            go,
            outcome,
            no_pivot: self.wanted.no_pivot,
            preserved: self.wanted.preserve_fds,
        };
        let unified = group.make()?;
        process::set_dumpable(false).doing(|| "hide the own memory".to_owned())?;
        spawn(&namespaces, &group, unified, plan)?;
        let mut talk = Talk { port: ours, pid: 0, master: None, listener };
        self.guide(&config, &group, &mut talk)?;
        let pidfd = process::pidfd_open(talk.pid).doing(|| "open the container's process".to_owned())?;
        if let (Some(socket), Some(master)) = (&self.wanted.console_socket, &talk.master) {
            send::terminal(socket, master.as_fd())?;
            talk.master = None;
        }
        if let Some(file) = &self.wanted.pid_file {
            crate::sys::file::write_atomic(file, talk.pid.to_string().as_bytes(), false)?;
        }
        Ok(Created { pid: talk.pid, pidfd, master: talk.master, warnings: self.warnings })
    }

    /// The pipes that its start goes through.
    fn pipes(&self) -> Result<(OwnedFd, OwnedFd), Error> {
        let make = |path: PathBuf| {
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::from(0o600), 0)
                .and_then(|()| rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))
                .doing(|| format!("make {}", path.display()))
        };
        Ok((make(self.container.go())?, make(self.container.outcome())?))
    }

    /// Does what only can be done outside, at the container's pace.
    fn guide(&mut self, config: &Config, group: &Group, talk: &mut Talk) -> Result<(), Error> {
        talk.await_word(&mut |word| matches!(word, Word::Cloned(_)), &self.container.state(Status::Creating))?;
        let pid = talk.pid;
        let record = &mut self.container.record;
        record.pid = pid;
        record.start_time = process::start_time(pid).doing(|| "read the start time".to_owned())?;
        self.container.save()?;
        if config.linux.has_new(Kind::User) {
            let (users, groups) = maps(config);
            userns::write_maps(pid, &users, &groups).doing(|| "write the id maps".to_owned())?;
        }
        self.warnings.extend(group::limit(group, &config.linux.resources)?);
        group::allow_devices(group, &config.linux.resources.devices)?;
        if let Some(adjustment) = config.process.as_ref().and_then(|process| process.oom_score_adj) {
            fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string())
                .doing(|| format!("set oomScoreAdj to {adjustment}"))?;
        }
        talk.port.tell(&pid, None).doing(|| "talk to the container".to_owned())?;
        let state = self.container.state(Status::Creating);
        talk.await_word(&mut |word| matches!(word, Word::Mounted), &state)?;
        hook::run("prestart", &config.hooks.prestart, &state, &[])?;
        hook::run("createRuntime", &config.hooks.create_runtime, &state, &[])?;
        talk.port.tell(&pid, None).doing(|| "talk to the container".to_owned())?;
        talk.await_word(&mut |word| matches!(word, Word::Ready), &state)
    }
}

/// The conversation with the container's process.
struct Talk {
    port: Port,
    pid: i32,
    master: Option<OwnedFd>,
    /// Where a filter's listener goes, and what with it.
    listener: Option<(PathBuf, String)>,
}

impl Talk {
    /// Waits for a word, and does what others ask for meanwhile.
    fn await_word(&mut self, wanted: &mut dyn FnMut(&Word) -> bool, state: &super::State) -> Result<(), Error> {
        loop {
            let heard = self.port.await_word::<Word>().doing(|| "listen to the container".to_owned())?;
            let Some((word, fd)) = heard else {
                return Err(LaunchError::refused("create", "the container's process ended").into());
            };
            let done = wanted(&word);
            match (word, fd) {
                (Word::Failed(error), _) => return Err(error.into()),
                (Word::Cloned(pid), _) => self.pid = pid,
                (Word::Terminal, fd) => self.master = fd,
                (Word::Listener, Some(fd)) => {
                    if let Some((socket, metadata)) = &self.listener {
                        send::listener(socket, fd.as_fd(), self.pid, metadata, state)?;
                    }
                }
                _ => {}
            }
            if done {
                return Ok(());
            }
        }
    }
}

/// Clones the process that enters what is there and clones the container.
fn spawn(namespaces: &Namespaces, group: &Group, unified: Option<OwnedFd>, plan: Plan<'_>) -> Result<(), Error> {
    let before = process::clone(0, unified.as_ref().map(OwnedFd::as_fd), || {
        let prepared = group.join().and_then(|()| namespaces.enter());
        let port = plan.port.try_clone();
        let cloned = prepared.and_then(|()| {
            process::clone(namespaces.flags(), None, move || inside::run(plan))
                .map_err(|e| LaunchError::new("clone the container's process", e))
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
