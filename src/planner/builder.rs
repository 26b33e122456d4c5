//! Collects the steps about containers, by service, and the orders that hold for every verb.

use std::collections::BTreeMap;

use super::action::{Action, Anonymous, Cause, Reference, Replaced, Step};
use super::observed::{ContainerView, Observed};
use super::options::PlanOptions;
use super::plan::{Plan, StepId};
use super::{container_name, graph};
use crate::spec::model::{Project, Service};

/// The steps about one service's containers.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) stops: Vec<StepId>,
    pub(super) removes: Vec<StepId>,
    pub(super) creates: Vec<StepId>,
    pub(super) starts: Vec<StepId>,
}

/// A plan in the making.
pub(super) struct Builder<'a> {
    pub(super) project: &'a Project,
    pub(super) observed: &'a Observed,
    pub(super) options: &'a PlanOptions,
    pub(super) plan: Plan,
    services: BTreeMap<String, Steps>,
    removes_by_id: BTreeMap<String, StepId>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(project: &'a Project, observed: &'a Observed, options: &'a PlanOptions) -> Self {
        Self {
            project,
            observed,
            options,
            plan: Plan::default(),
            services: BTreeMap::new(),
            removes_by_id: BTreeMap::new(),
        }
    }

    pub(super) fn step(&mut self, action: Action, cause: Cause) -> StepId {
        self.plan.add(Step { action, cause, destructive: false })
    }

    pub(super) fn destructive(&mut self, action: Action, cause: Cause) -> StepId {
        self.plan.add(Step { action, cause, destructive: true })
    }

    /// The steps about a service so far.
    pub(super) fn of(&mut self, service: &str) -> &mut Steps {
        if !self.services.contains_key(service) {
            self.services.insert(service.to_owned(), Steps::default());
        }
        self.services.entry(service.to_owned()).or_default()
    }

    /// Ids of the steps that start containers of a service.
    pub(super) fn starts(&self, service: &str) -> &[StepId] {
        self.services.get(service).map_or(&[], |steps| &steps.starts)
    }

    /// Ids of the steps that make containers of a service.
    pub(super) fn creates(&self, service: &str) -> &[StepId] {
        self.services.get(service).map_or(&[], |steps| &steps.creates)
    }

    /// The step that removes a container.
    pub(super) fn removal(&self, id: &str) -> Option<StepId> {
        self.removes_by_id.get(id).copied()
    }

    /// Adds the stop of a container that runs.
    pub(super) fn stop(&mut self, container: &ContainerView, cause: &Cause) -> Option<StepId> {
        if !container.state.is_active() {
            return None;
        }
        let action = Action::StopContainer { container: reference(container), timeout: self.options.timeout };
        let id = self.step(action, cause.clone());
        self.of(&container.service).stops.push(id);
        Some(id)
    }

    /// Adds the removal of a container, stopping it first where it runs.
    pub(super) fn remove(&mut self, container: &ContainerView, anonymous: Anonymous, cause: &Cause) -> StepId {
        let stop = self.stop(container, cause);
        let action = Action::RemoveContainer { container: reference(container), anonymous };
        let id = self.step(action, cause.clone());
        self.of(&container.service).removes.push(id);
        self.removes_by_id.insert(container.id.clone(), id);
        if let Some(stop) = stop {
            self.plan.order(stop, id);
        }
        id
    }

    /// Adds the making of a container.
    pub(super) fn create(&mut self, name: &str, number: u32, replaces: Option<Replaced>, cause: &Cause) -> StepId {
        let container = self.planned(name, number).name;
        let action = Action::CreateContainer { service: name.to_owned(), number, name: container, replaces };
        let id = self.step(action, cause.clone());
        self.of(name).creates.push(id);
        id
    }

    /// Adds the start of a container.
    pub(super) fn start(&mut self, container: Reference, cause: Cause) -> StepId {
        let service = container.service.clone();
        let id = self.step(Action::StartContainer { container }, cause);
        self.of(&service).starts.push(id);
        id
    }

    /// A container of a service that this plan makes.
    pub(super) fn planned(&self, name: &str, number: u32) -> Reference {
        let fallback = Service::default();
        let service = self.project.services.get(name).unwrap_or(&fallback);
        Reference { name: container_name(self.project, name, service, number), service: name.to_owned(), id: None }
    }

    /// Services that a service depends on, from the file or else from what its containers were made of.
    fn dependencies_of(&self, name: &str) -> Vec<String> {
        if let Some(service) = self.project.services.get(name) {
            return graph::dependencies(service).into_keys().collect();
        }
        let mut made_from = self.observed.containers.values().filter(|container| container.service == name);
        let spec = made_from.find_map(|container| container.spec.as_ref());
        spec.map(|service| graph::dependencies(service).into_keys().collect()).unwrap_or_default()
    }

    /// Lets every service stop before what it depends on.
    pub(super) fn order_stops(&mut self) {
        let stopping: Vec<String> =
            self.services.iter().filter(|(_, steps)| !steps.stops.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in &stopping {
            for dependency in self.dependencies_of(name) {
                let (Some(first), Some(then)) = (self.services.get(name), self.services.get(&dependency)) else {
                    continue;
                };
                join(&mut self.plan, &first.stops, &then.stops);
            }
        }
    }
}

/// Orders all of `first` before all of `then`.
pub(super) fn join(plan: &mut Plan, first: &[StepId], then: &[StepId]) {
    for &before in first {
        for &after in then {
            plan.order(before, after);
        }
    }
}

/// A container that exists.
pub(super) fn reference(container: &ContainerView) -> Reference {
    Reference { name: container.name.clone(), service: container.service.clone(), id: Some(container.id.clone()) }
}
