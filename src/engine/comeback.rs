//! Containers that are stopped to be started again: what outlives a process stays, its network above all, and the shim
//! keeps its sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;

use super::control::Action as Told;
use super::readiness;
use super::restart::Policy;
use super::state::{Container, Record, Status};
use super::supervisor::Supervisor;
use super::watch::is_auto;
use crate::planner::{Action, Plan, Reference};
use crate::spec::model::Service;

/// Whether the shim keeps the sockets that a service's containers listen on.
pub(crate) fn keeps(service: &Service) -> bool {
    service.develop.is_some()
        || is_auto(service)
        || readiness::of(service).is_some()
        || !service.ports.is_empty()
        || Policy::of(service) != Policy::No
}

/// Whether something tells when a container is ready.
pub(crate) fn tells_ready(record: &Record) -> bool {
    record.healthcheck.is_some() || readiness::of(&record.config).is_some()
}

/// The containers that a plan stops and starts again on networks that it leaves alone.
fn returning(plan: &Plan) -> BTreeSet<String> {
    let ids = |pick: fn(&Action) -> Option<&Reference>| -> BTreeSet<String> {
        plan.steps().iter().filter_map(|(_, step)| pick(&step.action)?.id.clone()).collect()
    };
    let networks = plan.steps().iter().any(|(_, step)| {
        matches!(
            step.action,
            Action::CreateNetwork { .. } | Action::RepairNetwork { .. } | Action::RemoveNetwork { .. }
        )
    });
    if networks {
        return BTreeSet::new();
    }
    let stopped = ids(|action| match action {
        Action::StopContainer { container, .. } => Some(container),
        _ => None,
    });
    let started = ids(|action| match action {
        Action::StartContainer { container } => Some(container),
        _ => None,
    });
    stopped.intersection(&started).cloned().collect()
}

/// Containers that a plan brings back.
#[derive(Debug)]
pub(crate) struct Returning {
    supervisor: Rc<Supervisor>,
    containers: BTreeSet<String>,
}

impl Drop for Returning {
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.containers) {
            self.supervisor.returning.borrow_mut().remove(&id);
            let supervisor = self.supervisor.clone();
            tokio::task::spawn_local(async move { supervisor.give_up_on(&id).await });
        }
    }
}

impl Supervisor {
    /// Notes which containers a plan brings back, until what is returned is dropped.
    pub(crate) fn expect(self: &Rc<Self>, plan: &Plan) -> Returning {
        let containers = returning(plan);
        self.returning.borrow_mut().extend(containers.iter().cloned());
        Returning { supervisor: self.clone(), containers }
    }

    /// Whether a container that ends is started again by the plan that is carried out.
    pub(crate) fn returns(&self, id: &str) -> bool {
        self.returning.borrow().contains(id)
    }

    /// A container that was stopped and has not come back is gone like others.
    async fn give_up_on(self: &Rc<Self>, id: &str) {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let Ok(container) = self.container(id) else { return };
        if container.state.status == Status::Restarting && container.state.stopped_by_user && !self.returns(id) {
            let _ = self.change(id, |state| state.status = Status::Exited);
            self.release(&container).await;
        }
    }

    /// A container serves an address from now on.
    pub(crate) fn on_listens(self: &Rc<Self>, id: &str, address: SocketAddr) {
        let _ = self.change(id, |state| {
            if !state.listens.contains(&address) {
                state.listens.push(address);
            }
        });
        let Ok(container) = self.container(id) else { return };
        self.remember_kept(&container.record);
        if let Some(message) = unreachable(&container, address) {
            self.tell(&container, Told::Warning { message });
        }
    }

    /// Copies what the shim needs to keep a container's sockets, for the shim after it.
    pub(crate) fn remember_kept(self: &Rc<Self>, record: &Record) {
        if !keeps(&record.config) {
            return;
        }
        let (this, id) = (self.clone(), record.id.clone());
        tokio::task::spawn_local(async move {
            let Some(shim) = this.present_shim() else { return };
            let kept = shim.kept(&id).await.unwrap_or_default();
            // What has ended meanwhile holds nothing that another shim could go on with.
            let runs = this.look(&id, |container| container.state.status == Status::Running) == Some(true);
            if runs && !kept.is_empty() {
                this.keepers.borrow_mut().insert(id, kept);
            }
        });
    }

    /// Gives a new shim what it needs to keep sockets.
    pub(crate) async fn keep_on(&self) {
        let Some(shim) = self.present_shim() else { return };
        let keepers = std::mem::take(&mut *self.keepers.borrow_mut());
        for (id, kept) in keepers {
            if shim.keep_on(&id, &kept).await.is_ok() {
                self.keepers.borrow_mut().insert(id, kept);
            }
        }
    }

    /// Lets connections to a container's kept sockets be refused.
    pub(crate) async fn refuse(&self, container: &Container) {
        self.keepers.borrow_mut().remove(&container.record.id);
        if keeps(&container.record.config)
            && let Some(shim) = self.present_shim()
        {
            let _ = shim.let_go(&container.record.id).await;
        }
    }
}

/// What is wrong with serving a published port on the container's loopback only.
fn unreachable(container: &Container, address: SocketAddr) -> Option<String> {
    let record = &container.record;
    let port = record.config.ports.iter().find(|port| {
        port.target == address.port() && port.protocol.as_deref().is_none_or(|protocol| protocol == "tcp")
    })?;
    let elsewhere = |other: &SocketAddr| other.port() == address.port() && !other.ip().is_loopback();
    if !address.ip().is_loopback() || record.endpoints.is_empty() || container.state.listens.iter().any(elsewhere) {
        return None;
    }
    let held = container.state.ports.iter().find(|held| held.target == port.target);
    let published = held.map_or_else(|| port.target.to_string(), |held| held.host_port.to_string());
    let everywhere = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    Some(format!(
        "{} listens on {address} only; the published port {published} can't reach it; bind {everywhere}",
        record.service
    ))
}
