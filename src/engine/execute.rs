//! Carries out a plan: every step as soon as what it waits for is done, independent steps at the same time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::control::{self, Failure};
use super::history::Entry;
use super::intent::Desired;
use super::record::Identity;
use super::state::{self, Health, Status};
use super::supervisor::Supervisor;
use crate::planner::{self, Action, Anonymous, Goal, Plan, Reference, Schedule, Step, StepId};
use crate::sys::fault;
use crate::sys::process::signal_number;

/// How long a service without a health check must have run to count as ready.
const SETTLING: Duration = Duration::from_millis(300);

/// Another command took over.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl Supervisor {
    /// Carries out a plan. After a failure what depends on it is left out, the rest goes on, and all failures are
    /// reported; planning again is the repair.
    pub(crate) async fn execute(
        self: &Rc<Self>,
        verb: &str,
        plan: &Plan,
        desired: &Arc<Desired>,
    ) -> Result<(), Failure> {
        if !plan.is_empty() {
            self.history.begin(&self.project, verb, desired.asked, plan);
        }
        let _returning = self.expect(plan);
        let mut interrupt = self.turn.interruptions();
        let mut schedule = Schedule::new(plan);
        let mut running: JoinSet<(StepId, Result<(), Failure>)> = JoinSet::new();
        let mut waits: BTreeMap<StepId, AbortHandle> = BTreeMap::new();
        let mut stops: BTreeSet<StepId> = BTreeSet::new();
        let mut steps: HashMap<Id, StepId> = HashMap::new();
        let mut failures = Vec::new();
        let mut interrupted = false;
        loop {
            for id in schedule.take_ready() {
                self.history.add(&Entry::Start { time: Timestamp::now(), step: id.index() });
                let (this, desired, step) = (self.clone(), desired.clone(), plan.step(id).clone());
                let is_wait = matches!(step.action, Action::WaitFor { .. });
                if matches!(step.action, Action::StopContainer { .. }) {
                    stops.insert(id);
                }
                let handle = running.spawn_local(async move { (id, this.take_step(&desired, step).await) });
                steps.insert(handle.id(), id);
                if is_wait {
                    waits.insert(id, handle);
                }
            }
            if interrupted && steps.values().all(|id| stops.contains(id)) {
                // A grace period need not be over: whoever interrupted stops the same containers, perhaps sooner.
                running.detach_all();
                break;
            }
            tokio::select! {
                done = running.join_next_with_id() => match done {
                    None => break,
                    Some(Ok((task, (id, result)))) => {
                        steps.remove(&task);
                        let error = result.as_ref().err().map(|failure| failure.message.clone());
                        self.history.add(&Entry::Finish { time: Timestamp::now(), step: id.index(), error });
                        match result {
                            Ok(()) => schedule.finish(id),
                            Err(failure) => {
                                schedule.fail(id);
                                failures.push(failure);
                            }
                        }
                    }
                    // A wait that was broken off.
                    Some(Err(error)) if error.is_cancelled() => drop(steps.remove(&error.id())),
                    Some(Err(error)) => {
                        if let Some(id) = steps.remove(&error.id()) {
                            schedule.fail(id);
                        }
                        failures.push(Failure::new(format!("a step of the supervisor failed: {error}")));
                    }
                },
                _ = interrupt.changed(), if !interrupted => {
                    interrupted = true;
                    schedule.cancel();
                    waits.values().for_each(AbortHandle::abort);
                }
            }
        }
        if !plan.is_empty() {
            self.history.add(&Entry::End { time: Timestamp::now(), interrupted });
        }
        if interrupted {
            return Err(Interrupted.into());
        }
        merge(failures)
    }

    /// Takes a step, between two fault points.
    async fn take_step(self: &Rc<Self>, desired: &Arc<Desired>, step: Step) -> Result<(), Failure> {
        let text = planner::line(&self.project, &step).text;
        let pass =
            |when: &str| fault::point(|| format!("{when} {text}")).map_err(|e| Failure::new(format!("{text}: {e}")));
        pass("before")?;
        Box::pin(self.act(desired, step)).await?;
        pass("after")
    }

    async fn act(self: &Rc<Self>, desired: &Arc<Desired>, step: Step) -> Result<(), Failure> {
        match step.action {
            Action::CreateNetwork { key, .. } | Action::RepairNetwork { key, .. } => {
                let wanted = desired.project.networks.get(&key).cloned();
                let mut wanted = wanted.ok_or_else(|| Failure::new(format!("network {key} is not in the file")))?;
                wanted.name = planner::network_name(&desired.project, &key);
                self.create_network(key, wanted).await
            }
            Action::RemoveNetwork { name } => self.remove_network(name).await,
            Action::CreateVolume { key, .. } => self.create_volume(desired, &key),
            Action::RemoveVolume { name } => self.remove_volume(name).await,
            Action::CreateContainer { service, number, name, replaces } => {
                let action = |new, old| if replaces.is_some() { old } else { new };
                let (begin, end) = (
                    action(control::Action::Creating, control::Action::Recreate),
                    action(control::Action::Created, control::Action::Recreated),
                );
                self.report(control::Kind::Container, &name, "", &service, begin);
                let model = desired.project.services.get(&service).cloned().unwrap_or_default();
                let identity = Identity {
                    id: String::new(),
                    name: name.clone(),
                    service: service.clone(),
                    number,
                    oneoff: false,
                    prepares: None,
                    discoverable: true,
                };
                let id = self.create_container(desired, identity, &model, replaces).await?;
                self.report(control::Kind::Container, &name, &id, &service, end);
                Ok(())
            }
            Action::Prepare { container, step } => {
                Box::pin(self.prepare(desired, &self.id_of(&container)?, step)).await
            }
            Action::StartContainer { container } => {
                let id = self.id_of(&container)?;
                self.change(&id, |state| {
                    state.stopped_by_user = false;
                    state.restarts = 0;
                    state.backoff = 0;
                })?;
                self.start_container(&id).await?;
                let record = self.container(&id)?.record;
                self.run_hooks(&record, &record.config.post_start).await
            }
            Action::StopContainer { container, timeout } => {
                self.stop_container(&self.id_of(&container)?, timeout).await
            }
            Action::RemoveContainer { container, anonymous } => {
                let id = self.id_of(&container)?;
                if let (Anonymous::Bequeath, Ok(container)) = (anonymous, self.container(&id)) {
                    self.bequeath(&container.record)?;
                }
                self.remove_container(&id, anonymous == Anonymous::Remove).await
            }
            Action::KillContainer { container, signal } => {
                let number = signal_number(&signal)
                    .ok_or_else(|| Failure::new(format!("unknown signal {signal:?}; see `kill -l` for the names")))?;
                self.kill_container(&self.id_of(&container)?, number).await
            }
            Action::PauseContainer { container } => self.freeze(&container, true).await,
            Action::UnpauseContainer { container } => self.freeze(&container, false).await,
            Action::WaitFor { containers, goal, required, .. } => {
                for container in containers {
                    let id = self.id_of(&container)?;
                    match self.wait_goal(&id, goal).await {
                        Err(failure) if required => return Err(failure),
                        Err(failure) => {
                            let message = format!("optional dependency {}: {}", container.service, failure.message);
                            let warning = control::Action::Warning { message };
                            self.report(control::Kind::Container, &container.name, &id, &container.service, warning);
                        }
                        Ok(()) => {}
                    }
                }
                Ok(())
            }
            Action::RemoveImage { image, .. } => {
                let collector = self.store.collector(|| state::images_in_use(&self.paths));
                let removed = collector.and_then(|collector| collector.remove(&image, false));
                removed.map(drop).map_err(|e| Failure::new(e.to_string()))
            }
        }
    }

    /// The id of a container that a plan names; one that the plan itself makes is found by its name.
    fn id_of(&self, reference: &Reference) -> Result<String, Failure> {
        if let Some(id) = &reference.id {
            return Ok(id.clone());
        }
        let containers = self.containers();
        let found = containers.into_iter().find(|container| container.record.name == reference.name);
        found
            .map(|container| container.record.id.clone())
            .ok_or_else(|| Failure::new(format!("no container {}", reference.name)))
    }

    async fn freeze(self: &Rc<Self>, container: &Reference, frozen: bool) -> Result<(), Failure> {
        let id = self.id_of(container)?;
        let shim = self.shim()?;
        shim.freeze(&id, frozen).await.map_err(|e| Failure::new(format!("container {}: {e}", container.name)))?;
        self.change(&id, |state| state.status = if frozen { Status::Paused } else { Status::Running })?;
        let action = if frozen { control::Action::Paused } else { control::Action::Unpaused };
        self.tell(&self.container(&id)?, action);
        Ok(())
    }

    /// Waits until a container has reached a goal, or can't any more.
    pub(crate) async fn wait_goal(self: &Rc<Self>, id: &str, goal: Goal) -> Result<(), Failure> {
        let container = self.container(id)?;
        let name = container.record.name.clone();
        if goal != Goal::Ready || container.state.health == Health::Starting {
            self.tell(&container, control::Action::Waiting);
        }
        let has_check = container.record.healthcheck.is_some();
        let reached = |this: &Self| {
            let Some(state) = this.look(id, |container| container.state.clone()) else {
                return Some(Err(Failure::new(format!("container {name} was removed"))));
            };
            let failed =
                |why: String| Some(Err(Failure::new(format!("dependency failed to start: container {name} {why}"))));
            match (goal, state.status) {
                (_, Status::Dead) => failed("is dead".to_owned()),
                (Goal::Completed | Goal::Ready, Status::Exited) if state.exit_code == 0 => {
                    Some(Ok(control::Action::Completed))
                }
                (Goal::Completed, Status::Exited) => {
                    let service = &container.record.service;
                    Some(Err(Failure::new(format!(
                        "service {service:?} didn't complete successfully: exit {}",
                        state.exit_code
                    ))))
                }
                (_, Status::Exited) => failed(format!("exited ({})", state.exit_code)),
                (Goal::Healthy | Goal::Ready, Status::Running) => match state.health {
                    Health::Healthy => Some(Ok(control::Action::Healthy)),
                    Health::Unhealthy => failed("is unhealthy".to_owned()),
                    Health::None if !has_check && goal == Goal::Ready => {
                        match (state.listened, state.listens.is_empty()) {
                            (_, false) => Some(Ok(control::Action::Running)),
                            (false, true) => Some(Ok(control::Action::Started)),
                            (true, true) => None,
                        }
                    }
                    Health::None if !has_check => failed("has no healthcheck configured".to_owned()),
                    Health::None | Health::Starting => None,
                },
                _ => None,
            }
        };
        let mut action = self.wait_for(reached).await?;
        if goal == Goal::Ready && action == control::Action::Started {
            // Nothing tells that a service without a health check is ready; one that ends at once is not.
            let ended = self.wait_for(|this| reached(this).filter(|r| *r != Ok(control::Action::Started)));
            if let Ok(ended) = tokio::time::timeout(SETTLING, ended).await {
                action = ended?;
            }
        }
        if goal == Goal::Completed {
            self.tell(&container, action);
        }
        Ok(())
    }
}

/// All failures as one; the first decides the exit code and the hint.
fn merge(failures: Vec<Failure>) -> Result<(), Failure> {
    let messages: Vec<String> = failures.iter().map(|failure| failure.message.clone()).collect();
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Failure { message: messages.join("\n"), ..first }),
    }
}
