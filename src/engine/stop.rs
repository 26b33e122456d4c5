//! Stopping and removing containers, and what happens when one ends by itself.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use fs_err as fs;
use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

use super::control::{Action, Failure, Kind};
use super::deaf::{self, Hearing};
use super::departures::Departure;
use super::endpoints::host_ifnames;
use super::names::dns_key;
use super::ports::{mappings, ports_key, targets};
use super::restart::{self, Pace, Policy};
use super::start::volume_key;
use super::state::{Container, Health, Record, Status};
use super::supervisor::{Supervisor, blocking, tracing_line};
use super::volumes;
use crate::runtime::shim;
use crate::spec::units::Span;
use crate::sys::process;

/// Time between the stop signal and SIGKILL where the file does not say.
const GRACE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Stops a container: its stop signal, and after `timeout` (or the service's own) SIGKILL to all its processes. One
    /// that is to return keeps what outlives a process.
    pub(crate) async fn stop_container(self: &Rc<Self>, id: &str, timeout: Option<Duration>) -> Result<(), Failure> {
        let lock = self.container_lock(id);
        let _held = self.lock_to_stop(id, &lock, timeout).await;
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.change(id, |state| state.stopped_by_user = true)?;
        match container.state.status {
            Status::Running | Status::Paused => {}
            Status::Restarting if self.returns(id) => return Ok(()),
            Status::Restarting => {
                self.change(id, |state| state.status = Status::Exited)?;
                self.release(&container).await;
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.tell(&container, Action::Stopping);
        let shim = self.shim()?;
        let failed = |e: crate::runtime::Error| {
            Failure::new(format!("container {} could not be stopped: {e}", container.record.name))
        };
        // A hook that fails is reported, but keeps no container from stopping.
        let hooks = if container.state.status == Status::Paused {
            shim.freeze(id, false).await.map_err(failed)?;
            Ok(())
        } else {
            self.run_hooks(&container.record, &container.record.config.pre_stop).await
        };
        if !self.returns(id) {
            self.refuse(&container).await;
        }
        let given = timeout.or(container.record.config.stop_grace_period.map(Span::duration));
        let mut grace = given.unwrap_or(GRACE);
        if !grace.is_zero() {
            // Judged before the signal: a process that follows it at once looks deaf while it ends.
            let deaf = given.is_none() && self.is_deaf(&container);
            let _ = shim.signal(id, container.record.stop_signal).await;
            if deaf {
                grace = Duration::ZERO;
            }
        }
        let ended = self.wait_for(|this| this.has_ended(id));
        if grace.is_zero() || tokio::time::timeout(grace, ended).await.is_err() {
            shim.kill_all(id).await.map_err(failed)?;
            self.wait_for(|this| this.has_ended(id)).await;
        }
        if !self.returns(id) {
            if self.look(id, |container| container.state.status == Status::Restarting) == Some(true) {
                self.change(id, |state| state.status = Status::Exited)?;
            }
            self.release(&container).await;
        }
        self.tell(&container, Action::Stopped);
        hooks
    }

    /// Waits for whoever works on a container; one that stops it at leisure is cut short after `timeout`.
    async fn lock_to_stop<'l>(&self, id: &str, lock: &'l Mutex<()>, timeout: Option<Duration>) -> MutexGuard<'l, ()> {
        let Some(timeout) = timeout else { return lock.lock().await };
        if let Ok(held) = tokio::time::timeout(timeout, lock.lock()).await {
            return held;
        }
        if let Some(shim) = self.present_shim() {
            let _ = shim.kill_all(id).await;
        }
        lock.lock().await
    }

    /// Whether the kernel drops a container's stop signal and nobody in it hears another. Children of a deaf process 1,
    /// such as what a shell runs, are sent the signal.
    fn is_deaf(&self, container: &Container) -> bool {
        let (record, pid) = (&container.record, container.state.pid);
        if record.joins.pid.is_some() {
            return false;
        }
        match deaf::hearing(pid, record.stop_signal) {
            Hearing::Heard => false,
            Hearing::Children(children) => {
                for child in children {
                    let _ = process::kill(child, record.stop_signal);
                }
                false
            }
            Hearing::Nobody => {
                let message = "its process has no handler for the stop signal: killed at once".to_owned();
                self.tell(container, Action::Warning { message });
                true
            }
        }
    }

    fn has_ended(&self, id: &str) -> Option<()> {
        let runs = self.look(id, |container| matches!(container.state.status, Status::Running | Status::Paused));
        (runs != Some(true)).then_some(())
    }

    /// Sends a signal to a running container.
    pub(crate) async fn kill_container(self: &Rc<Self>, id: &str, signal: i32) -> Result<(), Failure> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Ok(());
        }
        self.tell(&container, Action::Killing);
        let shim = self.shim()?;
        let failed = |e: crate::runtime::Error| Failure::new(format!("container {}: {e}", container.record.name));
        if signal == libc::SIGKILL {
            self.change(id, |state| state.stopped_by_user = true)?;
            shim.kill_all(id).await.map_err(failed)?;
            self.wait_for(|this| this.has_ended(id)).await;
            let lock = self.container_lock(id);
            let _held = lock.lock().await;
            self.release(&container).await;
        } else {
            shim.signal(id, signal).await.map_err(failed)?;
        }
        self.tell(&container, Action::Killed);
        Ok(())
    }

    /// Removes a container that does not run, with its anonymous volumes if `with_volumes`.
    pub(crate) async fn remove_container(self: &Rc<Self>, id: &str, with_volumes: bool) -> Result<(), Failure> {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let Ok(container) = self.container(id) else { return Ok(()) };
        if matches!(container.state.status, Status::Running | Status::Paused) {
            return Err(Failure::new(format!("container {} runs; stop it first", container.record.name)));
        }
        Box::pin(self.clear_preparations(id)).await?;
        self.tell(&container, Action::Removing);
        // One whose removal is cut off can only be removed: parts of it are gone.
        self.change(id, |state| state.status = Status::Dead)?;
        self.release(&container).await;
        let record = &container.record;
        for endpoint in &record.endpoints {
            let _ = self.ipam.release(&endpoint.network, &record.id);
        }
        let (paths, removed) = (self.paths.clone(), record.clone());
        let result = blocking(move || remove_files(&paths, &removed, with_volumes)).await?;
        result.map_err(|e| Failure::new(format!("container {} could not be removed: {e}", record.name)))?;
        self.spent.borrow_mut().extend(self.roots.borrow_mut().remove(id));
        self.drop_container(id);
        self.tell(&container, Action::Removed);
        Ok(())
    }

    /// Removes a volume and its data.
    pub(crate) async fn remove_volume(&self, name: String) -> Result<(), Failure> {
        self.report(Kind::Volume, &name, "", "", Action::Removing);
        let (paths, removed) = (self.paths.clone(), name.clone());
        let result = blocking(move || volumes::remove(&paths, &removed)).await?;
        result.map_err(|e| Failure::new(format!("volume {name} could not be removed: {e}")))?;
        let key = volume_key(&name);
        if self.keepsakes.borrow_mut().remove(&key).is_some()
            && let Some(shim) = self.present_shim()
        {
            let _ = shim.discard(&key).await;
        }
        self.report(Kind::Volume, &name, "", "", Action::Removed);
        Ok(())
    }

    /// Lets go of what outlives a container's process: published ports, resolver, network namespace. Idempotent.
    pub(crate) async fn release(self: &Rc<Self>, container: &Container) {
        let record = &container.record;
        self.keepers.borrow_mut().remove(&record.id);
        self.reserved.borrow_mut().remove(&record.name);
        let ports = self.look(&record.id, |container| container.state.ports.clone()).unwrap_or_default();
        let departure = self.let_network_go(&record.id).then(|| {
            self.dns.remove(&record.id);
            self.publish_names();
            self.proxies.borrow_mut().remove(&record.id);
            let addresses = super::hosts::addresses(record);
            let mappings = mappings(&ports, &targets(record));
            let host_users = if super::hosts::reaches_host(record) { addresses } else { Vec::new() };
            Departure { ifnames: host_ifnames(record), mappings, host_users }
        });
        let leaving = async {
            if let Some(departure) = departure {
                self.depart(departure).await;
            }
        };
        let published = !ports.is_empty();
        // Copies are let go of even where no shim keeps the originals: they hold ports.
        let (dns, ports) = (dns_key(&record.id), ports_key(&record.id));
        let below = format!("{ports}/");
        let mut let_go = BTreeSet::new();
        self.keepsakes.borrow_mut().retain(|key, _| {
            let gone = if *key == dns { Some(&dns) } else { key.starts_with(&below).then_some(&ports) };
            let_go.extend(gone);
            gone.is_none()
        });
        // The firewall forgets it while its namespace goes.
        let forgetting = async {
            if let Some(shim) = self.present_shim() {
                let _ = shim.forget(&record.id).await;
                for key in let_go {
                    let _ = shim.discard(key).await;
                }
            }
        };
        tokio::join!(leaving, forgetting);
        if published {
            let _ = self.change(&record.id, |state| state.ports.clear());
        }
    }

    /// What the shim reports.
    pub(crate) fn on_shim_event(self: Rc<Self>, event: shim::Event) {
        match event {
            shim::Event::Exited { id, status, at } => self.on_exit(&id, status.code, status.oom, at),
            shim::Event::Listens { id, address } => self.on_listens(&id, address),
            shim::Event::ExecExited { exec_id, status } => self.on_exec_exit(exec_id, status.code),
        }
    }

    /// A container ended: by its policy it is started again, else its network is let go.
    pub(crate) fn on_exit(self: Rc<Self>, id: &str, code: i32, oom: bool, at: Timestamp) {
        let Ok(container) = self.container(id) else { return };
        let state = &container.state;
        if !matches!(state.status, Status::Running | Status::Paused) {
            return;
        }
        let code = if code < 0 { unknown_code(&container) } else { code };
        let ran = state.started.map_or(Duration::ZERO, |started| at.duration_since(started).unsigned_abs());
        let pace = Pace::of(&container.record.config);
        let backoff = if ran >= restart::STABLE { 0 } else { state.backoff };
        let restarts = if pace.window.is_some_and(|window| ran >= window) { 0 } else { state.restarts };
        let policy = Policy::of(&container.record.config);
        let returns = self.returns(id);
        let again = !returns && !state.stopped_by_user && !container.record.oneoff && policy.wants(code, restarts);
        let changed = self.change(id, |state| {
            state.status = if again || returns { Status::Restarting } else { Status::Exited };
            state.pid = 0;
            state.exit_code = code;
            state.oom_killed = oom;
            state.finished = Some(at);
            state.health = Health::None;
            state.listened |= !state.listens.is_empty();
            state.listens.clear();
            state.restarts = if again { restarts + 1 } else { restarts };
            state.backoff = backoff + 1;
        });
        if let Err(e) = changed {
            tracing_line(&e.message);
        }
        self.keepers.borrow_mut().remove(id);
        self.publish_names();
        self.tell(&container, Action::Died { code, restarting: again || returns });
        let id = id.to_owned();
        tokio::task::spawn_local(async move {
            if returns {
                // Who carries out the plan starts it.
            } else if again {
                if backoff > 0 {
                    self.refuse(&container).await;
                }
                tokio::time::sleep(pace.pause(backoff)).await;
                let still = self.look(&id, |container| container.state.status == Status::Restarting);
                if still == Some(true) {
                    self.start_again(&id).await;
                }
            } else {
                let lock = self.container_lock(&id);
                let _held = lock.lock().await;
                let ended = self.look(&id, |container| container.state.status == Status::Exited);
                if ended == Some(true) {
                    self.release(&container).await;
                }
            }
        });
    }

    /// Starts a container by its policy. A start that fails counts as one more failed run.
    pub(crate) async fn start_again(self: &Rc<Self>, id: &str) {
        let Err(e) = self.start_container(id).await else { return };
        tracing_line(&e.message);
        let Ok(container) = self.container(id) else { return };
        let again = Policy::of(&container.record.config).wants(container.state.exit_code, container.state.restarts);
        if again && !container.state.stopped_by_user {
            let _ = self.change(id, |state| state.status = Status::Running);
            self.clone().on_exit(id, container.state.exit_code, false, Timestamp::now());
        }
    }
}

/// The code of a container whose end nobody saw: it counts as a failure.
fn unknown_code(container: &Container) -> i32 {
    tracing_line(&format!("the exit code of {} is unknown", container.record.name));
    255
}

fn remove_files(paths: &super::paths::Paths, record: &Record, with_volumes: bool) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if with_volumes {
        for mount in record.mounts.iter().filter(|mount| mount.anonymous) {
            volumes::remove(paths, &mount.source)?;
        }
    }
    gone(fs::remove_dir_all(paths.file_objects(&record.project, &record.id)))?;
    // The record goes last but one: a removal that was cut off is seen, and done again.
    let home = paths.container(&record.id);
    for folder in ["upper", "work", "log"] {
        gone(fs::remove_dir_all(home.join(folder)))?;
    }
    gone(fs::remove_dir_all(home))?;
    gone(fs::remove_file(paths.run_state(&record.project, &record.id)))
}
