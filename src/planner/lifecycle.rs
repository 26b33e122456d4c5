//! The verbs that touch existing containers only: stop, start, restart, kill, rm, pause, unpause.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Anonymous, Cause, Goal, Reference};
use super::builder::{Builder, join, reference};
use super::graph;
use super::observed::{ContainerView, Health, Observed, State};
use super::options::{PlanOptions, Verb};
use super::plan::{Plan, Problem, StepId};
use crate::spec::model::{Condition, Project};

pub(super) fn plan(project: &Project, observed: &Observed, options: &PlanOptions) -> Plan {
    let mut builder = Builder::new(project, observed, options);
    for name in options.services.iter().filter(|name| !project.services.contains_key(*name)) {
        builder.plan.problems.push(Problem::UnknownService { service: name.clone() });
    }
    match &options.verb {
        Verb::Up(_) | Verb::Down(_) => {}
        Verb::Stop => {
            for container in targets(&builder, &options.services) {
                builder.stop(container, &Cause::Requested);
            }
        }
        Verb::Start => start(&mut builder),
        Verb::Restart { no_deps } => restart(&mut builder, *no_deps),
        Verb::Kill { signal } => kill(&mut builder, signal),
        Verb::Remove { stop, volumes, containers } => {
            let named = observed.containers.values().filter(|container| containers.contains(&container.id));
            let all: Vec<&ContainerView> =
                if containers.is_empty() { targets(&builder, &options.services) } else { named.collect() };
            for container in all {
                if *stop || !container.state.is_active() {
                    let fate = if *volumes { Anonymous::Remove } else { Anonymous::Leave };
                    builder.remove(container, fate, &Cause::Requested);
                }
            }
        }
        Verb::Pause => {
            for container in targets(&builder, &options.services) {
                if container.state == State::Running {
                    builder.step(Action::PauseContainer { container: reference(container) }, Cause::Requested);
                }
            }
        }
        Verb::Unpause => {
            for container in targets(&builder, &options.services) {
                if container.state == State::Paused {
                    builder.step(Action::UnpauseContainer { container: reference(container) }, Cause::Requested);
                }
            }
        }
    }
    builder.order_stops();
    builder.plan
}

/// The containers of the services asked for (all, if none is named), one-off ones left out.
fn targets<'a>(builder: &Builder<'a>, services: &BTreeSet<String>) -> Vec<&'a ContainerView> {
    let project = builder.project;
    let all = builder.observed.containers.values().filter(|container| !container.oneoff);
    all.filter(|container| {
        if services.is_empty() {
            project.services.contains_key(&container.service)
        } else {
            services.contains(&container.service)
        }
    })
    .collect()
}

/// Starts what exists and what it depends on, in order.
fn start(builder: &mut Builder<'_>) {
    let project = builder.project;
    let named = &builder.options.services;
    let wanted = if named.is_empty() {
        project.services.keys().cloned().collect()
    } else {
        graph::with_dependencies(project, named.clone())
    };
    let containers = targets(builder, &wanted);
    for name in named.iter().filter(|name| project.services.contains_key(*name)) {
        if !containers.iter().any(|container| container.service == **name) {
            builder.plan.problems.push(Problem::NothingToStart { service: name.clone() });
        }
    }
    let mut by_service: BTreeMap<&str, Vec<&ContainerView>> = BTreeMap::new();
    for container in containers {
        by_service.entry(&container.service).or_default().push(container);
        let cause = Cause::NotRunning { state: container.state };
        match container.state {
            State::Created | State::Exited { .. } => {
                builder.start(reference(container), cause);
            }
            State::Paused => {
                let thaw = builder.step(Action::UnpauseContainer { container: reference(container) }, cause);
                builder.of(&container.service).starts.push(thaw);
            }
            State::Running | State::Restarting | State::Dead => {}
        }
    }
    for (name, containers) in &mut by_service {
        containers.sort_by_key(|container| container.number);
        let containers: Vec<Reference> = containers.iter().map(|container| reference(container)).collect();
        builder.prepare(name, &containers);
    }
    order_starts(builder, &wanted, &by_service);
}

/// Orders starts after what the services depend on, waiting where a condition asks for it.
fn order_starts(
    builder: &mut Builder<'_>,
    wanted: &BTreeSet<String>,
    containers: &BTreeMap<&str, Vec<&ContainerView>>,
) {
    let project = builder.project;
    let mut waits: BTreeMap<(String, Goal, bool), StepId> = BTreeMap::new();
    for name in wanted {
        let Some(service) = project.services.get(name) else { continue };
        let starts = builder.starts(name).to_vec();
        if starts.is_empty() {
            continue;
        }
        for (dependency, how) in graph::dependencies(service) {
            let before = builder.starts(&dependency).to_vec();
            let goal = match how.condition {
                Condition::ServiceStarted => {
                    join(&mut builder.plan, &before, &starts);
                    continue;
                }
                Condition::ServiceHealthy => Goal::Healthy,
                Condition::ServiceCompletedSuccessfully => Goal::Completed,
            };
            let present = containers.get(dependency.as_str()).map_or(&[][..], Vec::as_slice);
            if present.is_empty() || (before.is_empty() && present.iter().all(|found| reached(found, goal))) {
                continue;
            }
            let key = (dependency.clone(), goal, how.required);
            let wait = *waits.entry(key).or_insert_with(|| {
                let containers: Vec<Reference> = present.iter().map(|found| reference(found)).collect();
                let action = Action::WaitFor { service: dependency, containers, goal, required: how.required };
                let wait = builder.step(action, Cause::Needed);
                join(&mut builder.plan, &before, &[wait]);
                wait
            });
            join(&mut builder.plan, &[wait], &starts);
        }
    }
}

fn reached(container: &ContainerView, goal: Goal) -> bool {
    match goal {
        Goal::Healthy => container.health == Some(Health::Healthy) && container.state == State::Running,
        Goal::Completed => container.state == State::Exited { code: 0 },
        Goal::Ready => false,
    }
}

/// Stops and starts, together with the dependents that asked to be restarted too.
fn restart(builder: &mut Builder<'_>, no_deps: bool) {
    let project = builder.project;
    let named = &builder.options.services;
    let asked: Vec<&String> = if named.is_empty() { project.services.keys().collect() } else { named.iter().collect() };
    let mut affected: BTreeMap<String, Cause> =
        asked.into_iter().map(|name| (name.clone(), Cause::Requested)).collect();
    let follows: BTreeMap<&String, Vec<String>> = project
        .services
        .iter()
        .map(|(name, service)| {
            let dependencies = graph::dependencies(service).into_iter().filter(|(_, how)| how.restart);
            (name, dependencies.map(|(dependency, _)| dependency).collect())
        })
        .collect();
    let mut grown = !no_deps;
    while grown {
        let more: Vec<(String, Cause)> = follows
            .iter()
            .filter(|(name, _)| !affected.contains_key(**name))
            .filter_map(|(name, dependencies)| {
                let service = dependencies.iter().find(|dependency| affected.contains_key(*dependency))?.clone();
                Some(((*name).clone(), Cause::Dependency { service }))
            })
            .collect();
        grown = !more.is_empty();
        affected.extend(more);
    }
    for (name, cause) in &affected {
        for container in targets(builder, &BTreeSet::from([name.clone()])) {
            // A dependent that doesn't run has nothing to be restarted.
            if *cause != Cause::Requested && !container.state.is_active() {
                continue;
            }
            let stop = builder.stop(container, cause);
            let start = builder.start(reference(container), cause.clone());
            if let Some(stop) = stop {
                builder.plan.order(stop, start);
            }
        }
    }
    for (name, dependencies) in follows {
        for dependency in dependencies {
            let (before, after) = (builder.starts(&dependency).to_vec(), builder.starts(name).to_vec());
            join(&mut builder.plan, &before, &after);
        }
    }
}

fn kill(builder: &mut Builder<'_>, signal: &str) {
    let victims = targets(builder, &builder.options.services);
    for container in victims.into_iter().filter(|container| container.state.is_active()) {
        let action = Action::KillContainer { container: reference(container), signal: signal.to_owned() };
        builder.step(action, Cause::Requested);
    }
}
