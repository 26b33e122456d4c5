//! Starting containers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use jiff::Timestamp;

use super::bundle::{self, Bundle};
use super::comeback;
use super::control::{Action, Failure};
use super::readiness;
use super::state::{Container, Health, Record, RunState, Status, VERSION};
use super::supervisor::{Supervisor, blocking};
use super::volumes;
use crate::runtime;
use crate::runtime::launch::{Slot, Stdio};
use crate::sys::mntns::Original;

impl Supervisor {
    /// Starts a container that does not run. A running one is left as it is.
    pub(crate) async fn start_container(self: &Rc<Self>, id: &str) -> Result<(), Failure> {
        self.start_with(id, None).await
    }

    /// Starts a container, its standard input, output and error going to `fds` instead of its log.
    pub(crate) async fn start_with(self: &Rc<Self>, id: &str, fds: Option<Vec<OwnedFd>>) -> Result<(), Failure> {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let container = self.container(id)?;
        if matches!(container.state.status, Status::Running | Status::Paused) {
            return Ok(());
        }
        self.tell(&container, Action::Starting);
        let launched = {
            let _permit = self.launches.acquire().await;
            self.launch(&container, fds).await
        };
        match launched {
            Ok(()) => {
                self.watch_health(&container.record);
                self.watch_readiness(&container.record);
                self.remember_kept(&container.record);
                self.publish_names();
                if let Ok(container) = self.container(id) {
                    self.tell(&container, Action::Started);
                }
                Ok(())
            }
            Err(failure) => {
                self.change(id, |state| {
                    state.status = if state.started.is_some() { Status::Exited } else { Status::Created };
                    state.exit_code = failure.code;
                    state.error = Some(failure.message.clone());
                })?;
                self.release(&container).await;
                self.tell(&container, Action::Error { message: failure.message.clone() });
                Err(failure)
            }
        }
    }

    /// The volumes of a container that are file systems of their own, mounted once for all containers of the stack.
    pub(crate) async fn mounted_volumes(
        self: &Rc<Self>,
        record: &Record,
    ) -> Result<BTreeMap<String, Original>, Failure> {
        let mut mounted = BTreeMap::new();
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            let failed = |e: &dyn std::fmt::Display| Failure::new(format!("volume {}: {e}", mount.source));
            let volume = volumes::find(&self.paths, &mount.source).map_err(|e| failed(&e))?;
            let Some(volume) = volume.filter(|volume| volume.driver_opts.contains_key("type")) else { continue };
            let key = volume_key(&volume.name);
            let kept = self.shim()?.take(&key).await.map_err(|e| failed(&e))?;
            if let Some(original) = Original::from_descriptors(kept) {
                mounted.insert(volume.name, original);
            } else if let Some(tree) = volumes::mount(&volume).map_err(|e| failed(&e))? {
                let original = Original::new(tree).map_err(|e| failed(&e))?;
                self.keep(&key, original.descriptors().map_err(|e| failed(&e))?).await?;
                mounted.insert(volume.name, original);
            }
        }
        Ok(mounted)
    }

    async fn launch(self: &Rc<Self>, container: &Container, fds: Option<Vec<OwnedFd>>) -> Result<(), Failure> {
        let record = &container.record;
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
        if self.holds_network(&record.id) && !self.keeps_network(&record.id) {
            self.release(container).await;
        }
        let kept = self.keeps_network(&record.id);
        // Where there is none yet, it comes up while the files are made ready.
        self.shim()?;
        let mounted = self.mounted_volumes(record).await?;
        let (paths, store, owned) = (self.paths.clone(), self.store.clone(), record.clone());
        let root = self.roots.borrow_mut().remove(&record.id);
        let guests = self.guests.clone();
        let Bundle { mut launch, fds: mut slots, root } =
            blocking(move || bundle::prepare(&paths, &store, &guests, &owned, &mounted, root, kept)).await??;
        self.roots.borrow_mut().extend(root.map(|root| (record.id.clone(), root)));
        if fds.is_some() && record.process.tty {
            // Whoever asked reads the terminal: a log would take what was written from under its eyes.
            launch.stdio = Stdio::Null;
        } else if let Some(given) = fds {
            let first = slots.len();
            let slot = |offset: usize| Slot(first + offset);
            launch.stdio = Stdio::Fds { stdin: Some(slot(0)), stdout: slot(1), stderr: slot(2) };
            slots.extend(given);
        }
        self.mark_writes(container, &launch.mounts, &slots);
        let shim = self.shim()?;
        let created = shim.create(&launch, slots).await.map_err(|e| failed(&e))?;
        let namespace = &record.user_namespace;
        if let Some(reason) = namespace.reason.as_ref().filter(|_| namespace.fallback) {
            let message = format!("it runs in this machine's user namespace: {reason}");
            self.tell(container, Action::Warning { message });
        }
        for message in &created.losses {
            self.tell(container, Action::Warning { message: message.clone() });
        }
        let mut ports = container.state.ports.clone();
        if !kept && record.joins.net.is_none() {
            let netns = created.netns.ok_or_else(|| failed(&"the runtime gave no network namespace"))?;
            let attached = self.attach_network(record, netns).await;
            // From here on there is something to take apart.
            self.hold_network(&record.id);
            attached?;
            ports = self.publish_ports(record).await?;
        }
        self.change(&record.id, |state| {
            *state = RunState {
                version: VERSION,
                boot_id: self.boot_id.clone(),
                status: Status::Running,
                pid: created.pid,
                start_time: created.start_time,
                started: Some(Timestamp::now()),
                finished: state.finished,
                health: if comeback::tells_ready(record) { Health::Starting } else { Health::None },
                waits_for: readiness::waits_for(record),
                restarts: state.restarts,
                backoff: state.backoff,
                ports,
                listened: kept && state.listened,
                prepared: std::mem::take(&mut state.prepared),
                ..RunState::default()
            };
        })?;
        shim.start(&record.id).await.map_err(|e| match e {
            runtime::Error::Launch(error) => explained(&error, record, failed(&error).code(error.code)),
            other => failed(&other),
        })
    }
}

/// Says of a launch that failed which attribute asked for it, and what to do.
fn explained(error: &runtime::LaunchError, record: &Record, failure: Failure) -> Failure {
    let service = record.service.as_str();
    if error.step.starts_with("user ") {
        failure.about(service, &["user"]).hint("name a user or group that the image has, or give a number")
    } else if error.code == 127 {
        let attribute = if record.config.command.is_some() { "command" } else { "entrypoint" };
        failure.about(service, &[attribute]).hint("name a program that the image has, or put it into the image")
    } else {
        failure.about(service, &[])
    }
}

/// Where the shim keeps a mounted volume.
pub(crate) fn volume_key(name: &str) -> String {
    format!("volume/{name}")
}
