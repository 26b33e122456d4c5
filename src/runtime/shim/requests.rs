//! The small requests, and taking over what another shim left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::container::{Asker, Container, Watched};
use super::drain::Drain;
use super::keeper::Keeper;
use super::log::{Log, Stream};
use super::server::{Shim, Source};
use super::{Adopt, Entry, State};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Resources, Stdio};
use crate::runtime::wire::Reply;
use crate::sys::process;

impl Shim {
    pub(super) fn entries(&self) -> Vec<Entry> {
        let entry = |(id, container): (&String, &Container)| Entry {
            id: id.clone(),
            pid: container.pid,
            start_time: container.start_time,
            state: container.state.clone(),
        };
        self.containers.iter().map(entry).collect()
    }

    pub(super) fn signal(&mut self, asker: Asker, id: &str, signal: i32) {
        let reply = self.with_living(id, |container| {
            container.keeper.deepen();
            process::signal(container.pidfd.as_fd(), signal)?;
            if signal == libc::SIGKILL {
                container.group.thaw();
            }
            Ok(())
        });
        self.reply(asker, reply, &[]);
    }

    pub(super) fn kill_all(&mut self, asker: Asker, id: &str) {
        let reply = self.with_living(id, |container| {
            container.keeper.deepen();
            container.group.kill();
            match process::signal(container.pidfd.as_fd(), libc::SIGKILL) {
                // Its end, which one who adopted it hears of a moment later.
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                other => other,
            }
        });
        // Whoever has ended meanwhile is as dead as was asked for.
        let reply = if matches!(reply, Reply::State { .. }) { Reply::Done } else { reply };
        self.reply(asker, reply, &[]);
    }

    pub(super) fn update(&mut self, asker: Asker, id: &str, resources: &Resources) {
        let mut updated = None;
        let reply = self.with_living(id, |container| {
            updated = Some(container.group.update(resources));
            Ok(())
        });
        let reply = match updated {
            Some(Ok(losses)) => Reply::Updated(losses),
            Some(Err(error)) => Reply::Launch(error),
            None => reply,
        };
        self.reply(asker, reply, &[]);
    }

    pub(super) fn freeze(&mut self, asker: Asker, id: &str, frozen: bool) {
        let reply = self.with_living(id, |container| container.group.freeze(frozen));
        self.reply(asker, reply, &[]);
    }

    fn with_living(&mut self, id: &str, act: impl FnOnce(&mut Container) -> io::Result<()>) -> Reply {
        match self.containers.get_mut(id) {
            None => Reply::Unknown(id.to_owned()),
            Some(container) if !container.is_alive() => {
                Reply::State { id: id.to_owned(), state: "not running".to_owned() }
            }
            Some(container) => match act(container) {
                Ok(()) => Reply::Done,
                Err(e) => Reply::Failed(format!("container {id}: {e}")),
            },
        }
    }

    pub(super) fn let_go(&mut self, asker: Asker, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.keeper.let_go();
        }
        self.reply(asker, Reply::Done, &[]);
    }

    pub(super) fn attach(&mut self, asker: Asker, id: &str) {
        match self.containers.get(id).map(|container| container.input.as_ref().map(OwnedFd::try_clone)) {
            None => self.reply(asker, Reply::Unknown(id.to_owned()), &[]),
            Some(Some(Ok(input))) => self.reply(asker, Reply::Done, &[input.as_fd()]),
            Some(Some(Err(e))) => self.reply(asker, Reply::Failed(format!("container {id}: {e}")), &[]),
            Some(None) => self.reply(asker, Reply::Done, &[]),
        }
    }

    pub(super) fn close_input(&mut self, asker: Asker, id: &str) {
        let reply = match self.containers.get_mut(id) {
            Some(container) => {
                // A terminal's master stays: without it the terminal hangs up.
                if !container.tty {
                    container.input = None;
                }
                Reply::Done
            }
            None => Reply::Unknown(id.to_owned()),
        };
        self.reply(asker, reply, &[]);
    }

    /// Drops all that is held of a container, after killing it if it lives.
    pub(super) fn forget(&mut self, asker: Asker, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return self.reply(asker, Reply::Done, &[]);
        };
        container.forgetter = Some(asker);
        if container.is_alive() {
            container.group.kill();
            let _ = process::signal(container.pidfd.as_fd(), libc::SIGKILL);
        } else {
            self.finish_forgetting(id);
        }
    }

    /// Takes over a container whose shim died.
    pub(super) fn adopt(&mut self, asker: Asker, adopt: &Adopt, netns: Option<OwnedFd>, input: Option<OwnedFd>) {
        let reply = match self.try_adopt(adopt, netns, input) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Launch(error),
        };
        self.reply(asker, reply, &[]);
    }

    fn try_adopt(&mut self, adopt: &Adopt, netns: Option<OwnedFd>, input: Option<OwnedFd>) -> Result<(), LaunchError> {
        let step = || format!("adopt container {}", adopt.id);
        let failed = |e: io::Error| LaunchError::new(step(), e);
        if self.containers.get(&adopt.id).is_some_and(Container::is_alive) {
            return Err(LaunchError::refused(step(), "this shim has it already"));
        }
        let pidfd = process::pidfd_open(adopt.pid).map_err(failed)?;
        if process::start_time(adopt.pid).map_err(failed)? != adopt.start_time {
            return Err(LaunchError::refused(step(), "its process is gone"));
        }
        // One with a terminal has no pipes.
        let pipes = match self.pipes.reopen(&adopt.id) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(failed)?),
        };
        let mut container = Container {
            pid: adopt.pid,
            pidfd,
            start_time: adopt.start_time,
            state: State::Running,
            group: self.group(&adopt.cgroup, adopt.borrowed)?,
            netns,
            port: None,
            failure: None,
            starter: None,
            forgetter: None,
            log: None,
            drains: Vec::new(),
            input: None,
            adopted: None,
            tty: pipes.is_none(),
            seccomp: adopt.seccomp.clone(),
            privileged: adopt.privileged,
            keeper: Keeper::default(),
        };
        if let Stdio::Log { path, max_size, max_files, .. } = &adopt.stdio {
            container.log = Some(Log::open(path, *max_size, *max_files).map_err(failed)?);
            for (pipe, stream) in pipes.into_iter().flatten().zip([Stream::Output, Stream::Error]) {
                let token = self.watch(pipe.as_fd(), Source::Output(adopt.id.clone())).map_err(failed)?;
                container.drains.push(Watched { token, it: Drain::new(pipe, stream, false) });
            }
        }
        let logged_terminal = if container.tty && container.log.is_some() { input.as_ref() } else { None };
        let drained = logged_terminal.map(OwnedFd::try_clone).transpose().map_err(failed)?;
        container.input = input;
        container.adopted =
            Some(self.watch(container.pidfd.as_fd(), Source::Adopted(adopt.id.clone())).map_err(failed)?);
        self.containers.insert(adopt.id.clone(), container);
        if let Some(master) = drained {
            self.drain_terminal(&adopt.id, master);
        }
        Ok(())
    }
}
