//! What clones report, and how containers and execs end.

use std::os::fd::AsFd;

use jiff::Timestamp;

use super::container::{Container, Watched};
use super::drain::Drain;
use super::log::Stream;
use super::server::{Shim, Source};
use super::{Event, State};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::ExitStatus;
use crate::runtime::wire::{Reply, Report, exit_status};
use crate::sys::process::{self, Ended};

impl Shim {
    /// Takes what a container's clone reports.
    pub(super) fn hear_container(&mut self, id: &str) {
        loop {
            let Some(container) = self.containers.get_mut(id) else { return };
            let Some(port) = &container.port else { return };
            match port.it.hear() {
                Ok(Some((Report::Terminal, Some(master)))) => self.take_terminal(id, master),
                Ok(Some((Report::Listener, Some(listener)))) => self.listen_for_calls(listener, Some(id.to_owned())),
                Ok(Some((Report::Terminal | Report::Listener, None))) => {}
                Ok(Some((Report::Failed(error), _))) => {
                    let _ = port.it.release();
                    container.failure = Some(error);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => break,
            }
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(port) = container.port.take() else { return };
        if container.failure.is_none() {
            match container.starter.take() {
                Some(asker) => {
                    container.state = State::Running;
                    self.reply(asker, Reply::Done, &[]);
                }
                None => container.failure = Some(LaunchError::refused("set up the container", "it was killed")),
            }
        }
        self.unwatch(port.token, port.it.as_fd());
    }

    /// The master is for writing by whoever attaches, and drained if there is a log.
    fn take_terminal(&mut self, id: &str, master: std::os::fd::OwnedFd) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let logged = container.log.is_some();
        let drained = master.try_clone();
        container.input = Some(master);
        if let (true, Ok(drained)) = (logged, drained) {
            self.drain_terminal(id, drained);
        }
    }

    /// Drains a terminal's master into the log.
    pub(super) fn drain_terminal(&mut self, id: &str, master: std::os::fd::OwnedFd) {
        // Whoever attaches shares this flag, as it belongs to the open terminal.
        let _ = rustix::io::ioctl_fionbio(&master, true);
        let drain = Drain::new(master, Stream::Output, true);
        if let Ok(token) = self.watch(drain.as_fd(), Source::Output(id.to_owned()))
            && let Some(container) = self.containers.get_mut(id)
        {
            container.drains.push(Watched { token, it: drain });
        }
    }

    /// Moves output of a container into its log.
    pub(super) fn drain(&mut self, id: &str, token: u64) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(index) = container.drains.iter().position(|drain| drain.token == token) else { return };
        let Some(log) = container.log.as_mut() else { return };
        if !container.drains[index].it.run(log, &mut self.buffer, false) {
            let Watched { token, it } = container.drains.swap_remove(index);
            it.finish(log, &mut self.buffer);
            self.sources_gone(token);
        }
    }

    /// A child ended: a container, an exec, a supervisor, or an orphan of a container in the host's pid namespace.
    pub(super) fn ended(&mut self, ended: Ended) {
        if self.execs.contains_key(&ended.pid) {
            return self.exec_ended(ended);
        }
        let found = self
            .containers
            .iter()
            .find(|(_, container)| container.pid == ended.pid && container.is_alive() && container.adopted.is_none());
        if let Some(id) = found.map(|(id, _)| id.clone()) {
            self.hear_container(&id);
            self.container_ended(&id, exit_status(ended.code, ended.signal));
        }
    }

    fn exec_ended(&mut self, ended: Ended) {
        self.hear_exec(ended.pid);
        let Some(record) = self.execs.remove(&ended.pid) else { return };
        if let Some(port) = &record.port {
            self.unwatch(port.token, port.it.as_fd());
        }
        if let Some(error) = record.failure {
            self.reply(record.asker, Reply::Launch(error), &[]);
        } else {
            let status = exit_status(ended.code, ended.signal);
            self.announce(Event::ExecExited { exec_id: record.exec_id, status });
        }
    }

    /// Closes a container's books: output, pipes, control group; then says so.
    pub(super) fn container_ended(&mut self, id: &str, mut status: ExitStatus) {
        let at = Timestamp::now();
        let Some(container) = self.containers.get_mut(id) else { return };
        let drains = std::mem::take(&mut container.drains);
        if let Some(mut log) = container.log.take() {
            let tokens: Vec<u64> = drains.iter().map(|drain| drain.token).collect();
            for drain in drains {
                drain.it.finish(&mut log, &mut self.buffer);
            }
            for token in tokens {
                self.sources_gone(token);
            }
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        container.keeper.hold();
        container.input = None;
        status.oom = container.group.oom_killed();
        // Whatever shared the host's pid namespace ends with process 1.
        container.group.kill();
        let group = container.group.clone();
        container.state = State::Exited { status, at };
        if let Some(port) = container.port.take() {
            self.unwatch(port.token, port.it.as_fd());
        }
        if !group.remove() {
            self.leftovers.push(group);
        }
        self.pipes.remove(id);
        let failed = self.containers.get(id).is_some_and(|container| container.failure.is_some());
        if failed {
            self.finish_failure(id);
        } else {
            self.announce(Event::Exited { id: id.to_owned(), status, at });
        }
        self.finish_forgetting(id);
    }

    /// Answers a start that failed, once its clone is reaped, and drops what is left.
    pub(super) fn finish_failure(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.is_alive() {
            return;
        }
        let Some(asker) = container.starter.take() else { return };
        let Some(container) = self.containers.remove(id) else { return };
        self.drop_parents();
        if let Some(error) = container.failure {
            self.reply(asker, Reply::Launch(error), &[]);
        }
    }

    /// Drops a container that was to be forgotten once it has ended.
    pub(super) fn finish_forgetting(&mut self, id: &str) {
        let Some(asker) = self.containers.get_mut(id).and_then(|container| container.forgetter.take()) else { return };
        if let Some(container) = self.containers.remove(id) {
            container.group.remove_patiently();
            self.drop_parents();
        }
        self.reply(asker, Reply::Done, &[]);
    }

    /// Removes the folders above the control groups with the last one.
    pub(super) fn drop_parents(&mut self) {
        self.leftovers.retain(|group| !group.remove());
        if self.containers.is_empty() {
            self.remove_parents();
        }
    }

    /// An adopted container's process ended: whoever its parent is now has its status, and the kernel tells it.
    pub(super) fn adopted_ended(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(token) = container.adopted.take() else { return };
        let status = status_of_stranger(container);
        let Ok(pidfd) = container.pidfd.try_clone() else { return };
        self.unwatch(token, pidfd.as_fd());
        self.container_ended(id, status);
    }
}

fn status_of_stranger(container: &Container) -> ExitStatus {
    let unknown = ExitStatus { code: -1, signal: None, oom: false };
    let same = process::start_time(container.pid).is_ok_and(|time| time == container.start_time);
    let unreaped = if same { process::zombie_status(container.pid).ok().flatten() } else { None };
    match unreaped.or_else(|| process::reaped_status(container.pidfd.as_fd())) {
        Some(status) => {
            let (code, signal) = process::decode(status);
            exit_status(code, signal)
        }
        None => unknown,
    }
}
