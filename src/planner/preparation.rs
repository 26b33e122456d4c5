//! What runs to its end before a service's containers start: the steps of `pre_start`.

use super::action::{Action, Cause, Reference};
use super::builder::Builder;
use super::observed::State;
use super::plan::StepId;

impl Builder<'_> {
    /// Adds the steps of `pre_start` that have not succeeded yet for those containers of a service that this plan
    /// starts. `containers` are all that it has in the end, the lowest number first: a step that runs once for the
    /// service runs for that one, unless it was started before.
    pub(super) fn prepare(&mut self, name: &str, containers: &[Reference]) {
        let Some(service) = self.project.services.get(name).filter(|service| !service.pre_start.is_empty()) else {
            return;
        };
        // Of each start, the step that has to be finished before.
        let mut latest: Vec<(StepId, Reference, Option<StepId>)> = self.starting(name);
        for (index, hook) in service.pre_start.iter().enumerate() {
            let wanted: Vec<Reference> = latest
                .iter()
                .map(|(_, container, _)| container)
                .filter(|container| hook.per_replica || Some(*container) == containers.first())
                .filter(|container| !self.is_prepared(container, index))
                .cloned()
                .collect();
            for container in wanted {
                let step = self.preparation(name, &container, index);
                for (_, _, before) in latest.iter_mut().filter(|(_, other, _)| !hook.per_replica || *other == container)
                {
                    if let Some(before) = before.replace(step) {
                        self.plan.order(before, step);
                    }
                }
            }
        }
        for (start, _, before) in latest {
            if let Some(before) = before {
                self.plan.order(before, start);
            }
        }
    }

    /// The starts of a service's containers.
    fn starting(&self, name: &str) -> Vec<(StepId, Reference, Option<StepId>)> {
        let started = |id: &StepId| match &self.plan.step(*id).action {
            Action::StartContainer { container } => Some((*id, container.clone(), None)),
            _ => None,
        };
        self.starts(name).iter().filter_map(started).collect()
    }

    /// Whether a step has succeeded for a container. What was started once was prepared for it.
    fn is_prepared(&self, container: &Reference, step: usize) -> bool {
        let found = container.id.as_ref().and_then(|id| self.observed.containers.get(id));
        found.is_some_and(|found| found.state != State::Created || found.prepared.contains(&step))
    }

    /// Adds a step; whatever the service's starts wait for, it waits for, too.
    fn preparation(&mut self, name: &str, container: &Reference, step: usize) -> StepId {
        let id = self.step(Action::Prepare { container: container.clone(), step }, Cause::Needed);
        let creates = |found: &StepId| matches!(&self.plan.step(*found).action, Action::CreateContainer { name, .. } if *name == container.name);
        if let Some(creation) = self.creates(name).iter().copied().find(creates) {
            self.plan.order(creation, id);
        }
        self.of(name).starts.push(id);
        id
    }
}
