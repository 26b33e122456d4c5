//! Lays what was decided for `up` out in steps and orders.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::action::{Action, Anonymous, Cause, Goal, Reference, Replaced};
use super::builder::{Builder, join, reference};
use super::decide::{network_keys, volume_mounts};
use super::diff::between;
use super::fates::{Fate, mounts};
use super::observed::{ContainerView, Health, State};
use super::plan::{Plan, Problem, StepId};
use super::up::Decided;
use super::{graph, image_name, network_definition, network_name, volume_definition, volume_name};
use crate::spec::model::{Condition, Service};

/// Key of a step that waits: service, goal, required.
type Wait<'a> = (&'a str, Goal, bool);

pub(super) struct Layout<'a, 'd> {
    builder: Builder<'a>,
    decided: &'d Decided<'a>,
    /// Steps after which a network or volume is there, by key.
    networks: BTreeMap<&'d str, StepId>,
    volumes: BTreeMap<&'d str, StepId>,
    /// Containers that services have in the end.
    finally: BTreeMap<&'a str, Vec<Reference>>,
    waits: BTreeMap<Wait<'d>, StepId>,
}

impl<'a, 'd> Layout<'a, 'd> {
    pub(super) fn new(builder: Builder<'a>, decided: &'d Decided<'a>) -> Self {
        Self {
            builder,
            decided,
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            finally: BTreeMap::new(),
            waits: BTreeMap::new(),
        }
    }

    pub(super) fn finish(mut self) -> Plan {
        let done = self.completed();
        for &name in self.decided.decisions.keys() {
            self.containers(name, &done);
        }
        if !self.decided.asked.no_start {
            self.restarts();
            for (name, containers) in &self.finally {
                self.builder.prepare(name, containers);
            }
        }
        self.lay_networks();
        self.lay_volumes();
        self.builder.order_stops();
        for &name in &self.decided.order {
            self.order_resources(name);
            self.order_dependencies(name);
        }
        if self.decided.asked.wait {
            self.wait_until_ready();
        }
        self.order_names();
        self.order_ports();
        self.builder.plan
    }

    /// Services whose containers ended well and need not run again: nothing that waits for their completion starts.
    fn completed(&self) -> BTreeSet<&'a str> {
        let mut waited_for: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, dependencies) in self.decided.dependencies {
            for (dependency, condition) in dependencies {
                if condition.condition == Condition::ServiceCompletedSuccessfully {
                    waited_for.entry(dependency).or_default().push(name);
                }
            }
        }
        let mut done = BTreeSet::new();
        let mut starting = BTreeSet::new();
        for &name in self.decided.order.iter().rev() {
            let Some(decision) = self.decided.decisions.get(name) else { continue };
            let dependents = waited_for.get(name);
            // Named by the user without what waits for it, it runs again.
            let alone = self.builder.options.services.contains(name)
                && !dependents.into_iter().flatten().any(|dependent| self.decided.scope.contains(dependent));
            if !alone && dependents.is_some_and(|all| !all.iter().any(|dependent| starting.contains(dependent))) {
                done.insert(name);
            }
            let starts = |container: &&&ContainerView| match container.state {
                State::Exited { code: 0 } => !done.contains(name),
                State::Created | State::Exited { .. } => true,
                _ => false,
            };
            if decision.makes() || decision.keep.iter().any(|container| starts(&container)) {
                starting.insert(name);
            }
        }
        done
    }

    /// Lays out what becomes of a service's containers.
    fn containers(&mut self, name: &'a str, done: &BTreeSet<&str>) {
        let (decided, no_start) = (self.decided, self.decided.asked.no_start);
        let decision = &decided.decisions[name];
        let renew = decided.asked.renew_anonymous_volumes;
        for (container, cause) in &decision.surplus {
            // Nothing could mount an anonymous volume again once its container is gone.
            self.builder.remove(container, Anonymous::Remove, cause);
        }
        let mut all = Vec::new();
        for container in &decision.keep {
            all.push((container.number, reference(container)));
            let cause = Cause::NotRunning { state: container.state };
            match container.state {
                _ if no_start => {}
                State::Exited { code: 0 } if done.contains(name) => {}
                State::Created | State::Exited { .. } => {
                    self.builder.start(reference(container), cause);
                }
                // One that is restarted anyway needs not go on before.
                State::Paused if container.unconfined => {}
                State::Paused => self.unpause(container, cause),
                State::Running | State::Restarting | State::Dead => {}
            }
        }
        for (container, cause) in &decision.recreate {
            let fate = if renew { Anonymous::Remove } else { Anonymous::Bequeath };
            let removal = self.builder.remove(container, fate, cause);
            let anonymous = container.volumes.iter().filter(|(_, volume)| volume.anonymous && !renew);
            let volumes = anonymous.map(|(target, volume)| (target.clone(), volume.name.clone())).collect();
            let replaced = Replaced { id: container.id.clone(), volumes };
            let creation = self.create(name, container.number, Some(replaced), cause);
            self.builder.plan.order(removal, creation);
            all.push((container.number, self.builder.planned(name, container.number)));
        }
        for &number in &decision.create {
            let cause = decision.create_cause.as_ref().unwrap_or(&Cause::Missing);
            self.create(name, number, None, cause);
            all.push((number, self.builder.planned(name, number)));
        }
        if decision.makes() && self.builder.observed.images.get(name).is_some_and(Option::is_none) {
            let project = self.builder.project;
            let image = image_name(project, name, project.services.get(name).unwrap_or(&Service::default()));
            self.builder.plan.problems.push(Problem::MissingImage { service: name.to_owned(), image });
        }
        all.sort();
        self.finally.insert(name, all.into_iter().map(|(_, container)| container).collect());
    }

    fn create(&mut self, name: &str, number: u32, replaces: Option<Replaced>, cause: &Cause) -> StepId {
        let creation = self.builder.create(name, number, replaces, cause);
        if !self.decided.asked.no_start {
            let container = self.builder.planned(name, number);
            let start = self.builder.start(container, cause.clone());
            self.builder.plan.order(creation, start);
        }
        creation
    }

    fn unpause(&mut self, container: &ContainerView, cause: Cause) {
        let thaw = self.builder.step(Action::UnpauseContainer { container: reference(container) }, cause);
        self.builder.of(&container.service).starts.push(thaw);
    }

    /// Restarts what runs and depends, with `restart: true`, on something that is made anew or restarted, and what
    /// runs outside of its control group.
    fn restarts(&mut self) {
        let decided = self.decided;
        let mut touched: BTreeSet<&str> = BTreeSet::new();
        for &name in &decided.order {
            let decision = decided.decisions.get(name);
            if decision.is_some_and(|decision| !decision.recreate.is_empty()) {
                touched.insert(name);
            }
            let dependencies = decided.dependencies.get(name).into_iter().flatten();
            let mut causes =
                dependencies.filter(|(dependency, how)| how.restart && touched.contains(dependency.as_str()));
            let follows = causes.next().map(|(dependency, _)| Cause::Dependency { service: dependency.clone() });
            let kept: &[&ContainerView] = match decision {
                Some(decision) => &decision.keep,
                None if decided.asked.no_deps || follows.is_none() => &[],
                None => decided.containers.get(name).map_or(&[], Vec::as_slice),
            };
            if !kept.is_empty() {
                self.finally.entry(name).or_insert_with(|| kept.iter().map(|container| reference(container)).collect());
            }
            for container in kept {
                let unconfined =
                    Some(Cause::Unconfined).filter(|_| container.unconfined && container.state.is_active());
                let Some(cause) = follows.clone().filter(|_| container.state.is_up()).or(unconfined) else { continue };
                touched.insert(name);
                let Some(stop) = self.builder.stop(container, &cause) else { continue };
                let start = self.builder.start(reference(container), cause.clone());
                self.builder.plan.order(stop, start);
            }
        }
    }

    fn lay_networks(&mut self) {
        for (key, fate) in &self.decided.fates.networks {
            let name = network_name(self.builder.project, key);
            let id = match fate {
                Fate::Keep => continue,
                Fate::Create => self.builder.step(Action::CreateNetwork { key: key.clone(), name }, Cause::Missing),
                Fate::Repair => self.builder.step(Action::RepairNetwork { key: key.clone(), name }, Cause::Drift),
                Fate::Replace => {
                    let cause = self.network_change(key, &name);
                    let removal = self.builder.step(Action::RemoveNetwork { name: name.clone() }, cause.clone());
                    self.after_removals(removal, |container| container.networks.contains_key(&name));
                    let creation =
                        self.builder.step(Action::CreateNetwork { key: key.clone(), name: name.clone() }, cause);
                    self.builder.plan.order(removal, creation);
                    creation
                }
            };
            self.networks.insert(key, id);
        }
    }

    fn lay_volumes(&mut self) {
        for (key, fate) in &self.decided.fates.volumes {
            let name = volume_name(self.builder.project, key);
            let id = match fate {
                Fate::Keep | Fate::Repair => continue,
                Fate::Create => self.builder.step(Action::CreateVolume { key: key.clone(), name }, Cause::Missing),
                Fate::Replace => {
                    let cause = self.volume_change(key, &name);
                    let removal = self.builder.destructive(Action::RemoveVolume { name: name.clone() }, cause.clone());
                    self.after_removals(removal, |container| mounts(container, &name));
                    let creation =
                        self.builder.step(Action::CreateVolume { key: key.clone(), name: name.clone() }, cause);
                    self.builder.plan.order(removal, creation);
                    creation
                }
            };
            self.volumes.insert(key, id);
        }
    }

    fn network_change(&self, key: &str, name: &str) -> Cause {
        let old = self.builder.observed.networks.get(name).map_or(&Value::Null, |network| &network.definition);
        let changes = between(old, &network_definition(&self.builder.project.networks[key]));
        Cause::Config { changes }
    }

    fn volume_change(&self, key: &str, name: &str) -> Cause {
        let old = self.builder.observed.volumes.get(name).map_or(&Value::Null, |volume| &volume.definition);
        let changes = between(old, &volume_definition(&self.builder.project.volumes[key]));
        Cause::Config { changes }
    }

    /// Orders a step after the removal of those observed containers that `uses` picks.
    fn after_removals(&mut self, step: StepId, uses: impl Fn(&ContainerView) -> bool) {
        for container in self.builder.observed.containers.values().filter(|container| uses(container)) {
            if let Some(removal) = self.builder.removal(&container.id) {
                self.builder.plan.order(removal, step);
            }
        }
    }

    /// Networks and volumes are there before the containers that use them.
    fn order_resources(&mut self, name: &str) {
        let Some(service) = self.builder.project.services.get(name) else { return };
        let project = self.builder.project;
        let networks = network_keys(project, service).filter_map(|key| self.networks.get(key).copied());
        let volumes = volume_mounts(project, service).filter_map(|(_, key)| self.volumes.get(key).copied());
        let resources: Vec<StepId> = networks.chain(volumes).collect();
        let creates = self.builder.creates(name).to_vec();
        let starts = self.builder.starts(name).to_vec();
        join(&mut self.builder.plan, &resources, &creates);
        join(&mut self.builder.plan, &resources, &starts);
    }

    /// A service starts when what it depends on fulfils the condition; it is made when what it shares is.
    fn order_dependencies(&mut self, name: &str) {
        let decided = self.decided;
        let Some(service) = self.builder.project.services.get(name) else { return };
        for shared in graph::shared(service).into_keys() {
            let shared = self.builder.of(shared);
            let before: Vec<StepId> = shared.removes.iter().chain(&shared.creates).copied().collect();
            let after = self.builder.creates(name).to_vec();
            join(&mut self.builder.plan, &before, &after);
        }
        let starts = self.builder.starts(name).to_vec();
        if starts.is_empty() {
            return;
        }
        for (dependency, how) in decided.dependencies.get(name).into_iter().flatten() {
            let goal = match how.condition {
                Condition::ServiceStarted => None,
                Condition::ServiceHealthy => Some(Goal::Healthy),
                Condition::ServiceCompletedSuccessfully => Some(Goal::Completed),
            };
            let before = match goal {
                Some(goal) => self.wait(dependency, goal, how.required).into_iter().collect(),
                None => self.builder.starts(dependency).to_vec(),
            };
            join(&mut self.builder.plan, &before, &starts);
        }
    }

    /// The step that waits for a goal, unless that is reached already.
    fn wait(&mut self, service: &'d str, goal: Goal, required: bool) -> Option<StepId> {
        if let Some(&wait) = self.waits.get(&(service, goal, required)) {
            return Some(wait);
        }
        let containers = self.finally.get(service)?.clone();
        let starts = self.builder.starts(service).to_vec();
        let observed = self.builder.observed;
        let reached = starts.is_empty()
            && containers.iter().all(|container| {
                let found = container.id.as_ref().and_then(|id| observed.containers.get(id));
                found.is_some_and(|found| match goal {
                    Goal::Healthy => found.health == Some(Health::Healthy) && found.state == State::Running,
                    Goal::Completed => found.state == State::Exited { code: 0 },
                    Goal::Ready => false,
                })
            });
        if reached || containers.is_empty() {
            return None;
        }
        let action = Action::WaitFor { service: service.to_owned(), containers, goal, required };
        let wait = self.builder.step(action, Cause::Needed);
        join(&mut self.builder.plan, &starts, &[wait]);
        self.waits.insert((service, goal, required), wait);
        Some(wait)
    }

    fn wait_until_ready(&mut self) {
        for name in &self.decided.scope.wanted {
            self.wait(name, Goal::Ready, true);
        }
    }

    /// A name is free before it is given again.
    fn order_names(&mut self) {
        let observed = self.builder.observed;
        let mut holders: BTreeMap<&str, Vec<&ContainerView>> = BTreeMap::new();
        for container in observed.containers.values() {
            holders.entry(&container.name).or_default().push(container);
        }
        let steps: Vec<(StepId, String, String)> = self
            .builder
            .plan
            .ids()
            .filter_map(|id| match &self.builder.plan.step(id).action {
                Action::CreateContainer { service, name, .. } => Some((id, service.clone(), name.clone())),
                _ => None,
            })
            .collect();
        let mut given = BTreeSet::new();
        for (id, service, name) in steps {
            let mut owner = observed.foreign_names.get(&name).cloned();
            for container in holders.get(name.as_str()).into_iter().flatten() {
                match self.builder.removal(&container.id) {
                    Some(removal) => self.builder.plan.order(removal, id),
                    None => owner = Some(self.builder.project.name.clone()),
                }
            }
            if !given.insert(name.clone()) {
                owner = Some(self.builder.project.name.clone());
            }
            if let Some(owner) = owner {
                self.builder.plan.problems.push(Problem::NameTaken { service, name, owner });
            }
        }
    }

    /// A published port is free before another container takes it.
    fn order_ports(&mut self) {
        let mut stops: BTreeMap<String, Vec<StepId>> = BTreeMap::new();
        let observed = self.builder.observed;
        for id in self.builder.plan.ids() {
            let Action::StopContainer { container, .. } = &self.builder.plan.step(id).action else { continue };
            let found = container.id.as_ref().and_then(|id| observed.containers.get(id));
            let ports = found.and_then(|found| found.spec.as_ref()).map(|service| &service.ports);
            for published in ports.into_iter().flatten().filter_map(|port| port.published.clone()) {
                stops.entry(published).or_default().push(id);
            }
        }
        if stops.is_empty() {
            return;
        }
        for (name, service) in &self.builder.project.services {
            let published = service.ports.iter().filter_map(|port| stops.get(port.published.as_ref()?));
            let before: Vec<StepId> = published.flatten().copied().collect();
            let starts = self.builder.starts(name).to_vec();
            join(&mut self.builder.plan, &before, &starts);
        }
    }
}
