//! Taking over: from a supervisor that was killed, by the files and the shim; from a shim that was killed, by the
//! files and the processes themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use fs_err as fs;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::bundle::stdio;
use super::control::Failure;
use super::names::dns_key;
use super::paths::Paths;
use super::ports::{ports_key, ports_keys};
use super::restart;
use super::state::{self, Container, RunState, Status, read_json};
use super::supervisor::{Supervisor, blocking, tracing_line};
use super::{filter, limits, networks, volumes};
use crate::net::DnsSockets;
use crate::runtime::shim::{Adopt, Client, Entry, State};
use crate::sys::process;

/// Stands for an exit code that nobody saw.
const UNKNOWN: i32 = -1;

impl Supervisor {
    /// Takes over what an earlier supervisor left.
    pub(crate) async fn recover(self: &Rc<Self>) -> io::Result<()> {
        reap_orphans()?;
        self.sweep()?;
        networks::sweep(&self.paths, &self.host, &self.project).map_err(io::Error::other)?;
        volumes::sweep(&self.paths, &self.project)?;
        self.find_estates()?;
        for container in state::read_containers(&self.paths, &self.project)? {
            self.insert(container);
        }
        let run = self.paths.project_run(&self.project);
        let found = Client::connect(&run).await.map_err(io::Error::other)?;
        let entries = match found {
            Some(client) => {
                let shim = self.adopt_shim(client);
                shim.list().await.map_err(io::Error::other)?
            }
            None if self.alive().is_empty() => return Ok(()),
            None => Vec::new(),
        };
        self.reunite(entries, None).await;
        Ok(())
    }

    /// The shim's connection ended: a new shim takes over what still runs.
    pub(crate) async fn on_shim_lost(self: &Rc<Self>) {
        let lost = self.lose_shim();
        // No shim tells any more how what it had started ends.
        self.exec_ends.borrow_mut().clear();
        // Until a new one knows all containers, no command asks it for one.
        let taking_over = TakingOver::new(self.clone());
        if !lost || self.alive().is_empty() {
            return;
        }
        if !self.paths.project_run(&self.project).is_dir() {
            tracing_line("the run folder is gone, and with it what a supervisor works on");
            return self.give_up();
        }
        let losses = self.shim_losses();
        tracing_line(&format!("the shim is gone; a new one takes over (loss {losses})"));
        if losses > 1 {
            tokio::time::sleep(restart::pause(losses)).await;
        }
        self.reunite(Vec::new(), Some(taking_over)).await;
        self.keep_on().await;
        let kept = std::mem::take(&mut *self.keepsakes.borrow_mut());
        for (key, fds) in kept {
            if let Err(e) = self.keep(&key, fds).await {
                tracing_line(&e.message);
            }
        }
    }

    fn alive(&self) -> Vec<Container> {
        self.containers().into_iter().filter(is_alive).collect()
    }

    /// Brings the containers that should run together with what the shim knows of them, and then goes on with them.
    async fn reunite(self: &Rc<Self>, entries: Vec<Entry>, taking_over: Option<TakingOver>) {
        let mut found = Vec::new();
        let mut entries: BTreeMap<String, Entry> = entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        for id in self.alive().into_iter().map(|container| container.record.id.clone()) {
            let entry = entries.remove(&id);
            // What was reported meanwhile counts more.
            let Some(container) = self.container(&id).ok().filter(is_alive) else { continue };
            if container.state.status == Status::Restarting {
                let (this, id) = (self.clone(), id);
                tokio::task::spawn_local(async move { this.start_again(&id).await });
                continue;
            }
            match entry.map(|entry| entry.state) {
                Some(State::Running) => found.push(container),
                Some(State::Exited { status, at }) => {
                    self.hold_network(&id);
                    self.clone().on_exit(&id, status.code, status.oom, at);
                }
                Some(State::Parked) => {
                    let _ = self.change(&id, |state| state.status = Status::Created);
                    self.let_go(&container).await;
                }
                None => match self.adopt(&container).await {
                    Ok(()) => found.push(container),
                    Err(e) => {
                        tracing_line(&format!("container {}: {}", container.record.name, e.message));
                        if process::start_time(container.state.pid).ok() == Some(container.state.start_time) {
                            found.push(container);
                        } else {
                            self.orphan_network(&id);
                            self.clone().on_exit(&id, UNKNOWN, false, Timestamp::now());
                        }
                    }
                },
            }
        }
        self.drop_kept().await;
        // What the shim has besides was about to start, or had ended, when the last supervisor did.
        for id in entries.into_keys() {
            match (self.container(&id), self.present_shim()) {
                (Ok(container), _) => self.let_go(&container).await,
                (Err(_), Some(shim)) => drop(shim.forget(&id).await),
                (Err(_), None) => {}
            }
        }
        for container in found.iter().filter(|container| !container.record.endpoints.is_empty()) {
            // One that ended meanwhile may have left the new shim nothing to keep.
            let (id, pid) = (&container.record.id, container.state.pid);
            let kept = taking_over.is_none() || Path::new("/proc").join(pid.to_string()).join("ns/net").exists();
            if kept && self.look(id, is_alive) == Some(true) {
                self.hold_network(id);
            }
        }
        drop(taking_over);
        // Side by side: somebody may be working on one of them for long.
        let mut resumes = JoinSet::new();
        for container in found {
            let this = self.clone();
            resumes.spawn_local(async move { this.resume(&container).await });
        }
        while resumes.join_next().await.is_some() {}
        self.publish_names();
    }

    /// Returns when the shim knows every container that runs.
    pub(crate) async fn reunited(&self) {
        self.wait_for(|this| (this.takeovers.get() == 0).then_some(())).await;
    }

    /// Lets go of what the shim keeps for containers that don't run: the last supervisor may have died before it could.
    async fn drop_kept(&self) {
        let Some(shim) = self.present_shim() else { return };
        let alive: BTreeSet<String> = self.alive().iter().map(|container| container.record.id.clone()).collect();
        for container in self.containers() {
            let id = &container.record.id;
            for key in [ports_key(id), dns_key(id)] {
                if !alive.contains(id) {
                    let _ = shim.discard(&key).await;
                }
            }
        }
    }

    /// Takes apart what was made for a run that didn't come, or is over.
    async fn let_go(self: &Rc<Self>, container: &Container) {
        self.hold_network(&container.record.id);
        self.release(container).await;
    }

    /// Goes on with a running container: its names, its ports, its health.
    async fn resume(self: &Rc<Self>, container: &Container) {
        let record = &container.record;
        // Who takes apart what ended meanwhile comes after.
        let lock = self.container_lock(&record.id);
        let _held = lock.lock().await;
        if self.look(&record.id, is_alive) != Some(true) {
            return;
        }
        if let Some(shim) = self.present_shim() {
            let mut sockets = shim.take(&dns_key(&record.id)).await.unwrap_or_default();
            let served = if let (Some(tcp), Some(udp)) = (sockets.pop(), sockets.pop()) {
                self.remember_fds(&dns_key(&record.id), [&udp, &tcp]);
                self.serve_names(record, DnsSockets { udp, tcp })
            } else if record.endpoints.is_empty() || self.keepsakes.borrow().contains_key(&dns_key(&record.id)) {
                Ok(())
            } else {
                self.renew_resolver(container).await
            };
            if let Err(e) = served {
                tracing_line(&e.message);
            }
            let mut guards = Vec::new();
            for key in ports_keys(&record.id, container.state.ports.len()) {
                let part = shim.take(&key).await.unwrap_or_default();
                self.remember_fds(&key, &part);
                guards.extend(part);
            }
            self.carry_ports(record, &container.state.ports, &guards);
        }
        self.remember_kept(record);
        self.watch_health(record);
        self.watch_readiness(record);
    }

    /// Makes the resolver's sockets of a running container anew: both who held them are dead.
    async fn renew_resolver(self: &Rc<Self>, container: &Container) -> Result<(), Failure> {
        let record = &container.record;
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
        let netns = fs::File::open(format!("/proc/{}/ns/net", container.state.pid)).map_err(|e| failed(&e))?;
        let host = self.host.clone();
        let attached = blocking(move || host.attach(netns.as_fd(), &[], true)).await?.map_err(|e| failed(&e))?;
        match attached.dns {
            Some(sockets) => self.keep_resolver(record, sockets).await,
            None => Ok(()),
        }
    }

    /// Hands a container whose shim died to the present one.
    async fn adopt(self: &Rc<Self>, container: &Container) -> Result<(), Failure> {
        let (record, state) = (&container.record, &container.state);
        let netns =
            fs::File::open(format!("/proc/{}/ns/net", state.pid)).ok().map(|file| OwnedFd::from(file.into_file()));
        let privileged = record.config.privileged.unwrap_or(false);
        let adopt = Adopt {
            id: record.id.clone(),
            pid: state.pid,
            start_time: state.start_time,
            cgroup: limits::group(&self.paths, record),
            borrowed: limits::is_borrowed(&record.config),
            stdio: stdio(&self.paths, record),
            seccomp: filter::of(&self.paths, record)?,
            privileged,
        };
        let netns = netns.filter(|_| record.joins.net.is_none());
        let adopted = self.shim()?.adopt(&adopt, netns).await;
        adopted.map_err(|e| Failure::new(e.to_string()))
    }

    /// Removes what is left of containers that were half-made or half-removed: a run state without a record.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.paths.run_states(&self.project))? {
            let path = entry?.path();
            let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if !self.paths.container(id).join("config.json").exists() {
                clear(&self.paths, &self.project, id, &path)?;
            }
        }
        Ok(())
    }
}

/// Removes what there is of a container without a record; its run state, at `path`, goes last.
pub(super) fn clear(paths: &Paths, project: &str, id: &str, path: &Path) -> io::Result<()> {
    // A write that was cut off left something that can't be read: that goes, too.
    let state = read_json::<RunState>(path).ok().flatten();
    let removed = state.is_some_and(|state| state.status == Status::Dead);
    let mut made = volumes::list(paths)?;
    // A removal decided about its volumes first.
    made.retain(|volume| !removed && volume.made_for == id && volume.heir.is_none());
    for volume in made {
        volumes::remove(paths, &volume.name)?;
    }
    for folder in [paths.container(id), paths.file_objects(project, id)] {
        remove_if_there(&folder)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A time in which a new shim doesn't know all containers yet.
struct TakingOver(Rc<Supervisor>);

impl TakingOver {
    fn new(supervisor: Rc<Supervisor>) -> Self {
        supervisor.takeovers.set(supervisor.takeovers.get() + 1);
        Self(supervisor)
    }
}

impl Drop for TakingOver {
    fn drop(&mut self) {
        self.0.takeovers.set(self.0.takeovers.get() - 1);
        self.0.pulse.send_replace(());
    }
}

fn is_alive(container: &Container) -> bool {
    matches!(container.state.status, Status::Running | Status::Paused | Status::Restarting)
}

fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// This process inherits what a killed shim leaves; ended children must be reaped.
fn reap_orphans() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    tokio::task::spawn_local(async move {
        while ended.recv().await.is_some() {
            while process::reap().is_some() {}
        }
    });
    Ok(())
}
