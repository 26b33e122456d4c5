//! New limits for containers that exist. They hold until the container is made anew.

use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::control::{Action, Failure};
use super::limits;
use super::state::{self, Container, Record, Status};
use super::supervisor::{Supervisor, blocking};
use crate::spec::model::Service;
use crate::spec::units::ByteSize;

/// What to change; absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors.
    pub cpus: Option<f64>,
    /// Microseconds of processor time per period; -1 is unlimited.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds per period for real-time processes.
    pub cpu_rt_runtime: Option<i64>,
    /// Microseconds.
    pub cpu_rt_period: Option<i64>,
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// Processors to run on.
    pub cpuset: Option<String>,
    /// Bytes.
    pub memory: Option<ByteSize>,
    /// Bytes kept when memory is short.
    pub memory_reservation: Option<ByteSize>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: Option<ByteSize>,
    /// Processes and threads; -1 is unlimited.
    pub pids: Option<i64>,
    /// Relative weight of block input and output.
    pub blkio_weight: Option<u16>,
    /// Restart policy.
    pub restart: Option<String>,
}

impl Limits {
    fn apply(&self, service: &mut Service) {
        fn set<T: Clone>(slot: &mut Option<T>, value: Option<&T>) {
            if let Some(value) = value {
                *slot = Some(value.clone());
            }
        }
        // `cpus` is a quota by another name: the one given last holds.
        if self.cpu_quota.is_some() {
            service.cpus = None;
            if let Some(limits) = service
                .deploy
                .as_mut()
                .and_then(|deploy| deploy.resources.as_mut())
                .and_then(|resources| resources.limits.as_mut())
            {
                limits.cpus = None;
            }
        }
        set(&mut service.cpus, self.cpus.as_ref());
        set(&mut service.cpu_quota, self.cpu_quota.as_ref());
        set(&mut service.cpu_period, self.cpu_period.as_ref());
        set(&mut service.cpu_rt_runtime, self.cpu_rt_runtime.as_ref());
        set(&mut service.cpu_rt_period, self.cpu_rt_period.as_ref());
        set(&mut service.cpu_shares, self.cpu_shares.as_ref());
        set(&mut service.cpuset, self.cpuset.as_ref());
        set(&mut service.mem_limit, self.memory.as_ref());
        set(&mut service.mem_reservation, self.memory_reservation.as_ref());
        set(&mut service.memswap_limit, self.memory_swap.as_ref());
        set(&mut service.pids_limit, self.pids.as_ref());
        set(&mut service.restart, self.restart.as_ref());
        if let Some(weight) = self.blkio_weight {
            let config = service.blkio_config.get_or_insert_with(|| serde_json::json!({}));
            config["weight"] = weight.into();
        }
    }
}

impl Supervisor {
    /// Changes the limits of services' containers, at once where they run.
    pub(crate) async fn update(self: &Rc<Self>, services: &[String], change: &Limits) -> Result<(), Failure> {
        let _turn = self.turn.take().await;
        let named = |container: &Container| !container.record.oneoff && services.contains(&container.record.service);
        let mut failed = None;
        for container in self.containers().into_iter().filter(named) {
            failed = self.update_one(&container, change).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn update_one(self: &Rc<Self>, container: &Container, change: &Limits) -> Result<(), Failure> {
        let lock = self.container_lock(&container.record.id);
        let _held = lock.lock().await;
        let container = self.container(&container.record.id)?;
        let name = container.record.name.clone();
        let at = |failure: Failure| Failure { message: format!("container {name}: {}", failure.message), ..failure };
        let mut record = Record::clone(&container.record);
        change.apply(&mut record.config);
        let service = record.config.clone();
        let resources = blocking(move || limits::resources(&service)).await?.map_err(at)?;
        if matches!(container.state.status, Status::Running | Status::Paused) {
            let updated = self.shim()?.update(&record.id, &resources).await;
            for message in updated.map_err(|e| at(Failure::new(e.to_string())))? {
                self.tell(&container, Action::Warning { message });
            }
        }
        let (paths, written) = (self.paths.clone(), record.clone());
        blocking(move || state::write_record(&paths, &written)).await?.map_err(|e| at(Failure::new(e.to_string())))?;
        // The state may have changed meanwhile; what is written here is the record alone.
        if let Ok(present) = self.container(&record.id) {
            self.insert(Container { record: Arc::new(record), ..present });
        }
        Ok(())
    }
}
