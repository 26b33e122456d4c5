//! `up`, `create` and `scale`: what makes the running stack equal to the file.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::Builder;
use super::decide::{Decision, Desired, First, shared_changed};
use super::fates::{Fates, is_orphan, mounts};
use super::graph;
use super::layout::Layout;
use super::observed::{ContainerView, Observed};
use super::options::{PlanOptions, Recreate, Up};
use super::plan::{Plan, Problem, Warning};
use crate::spec::model::{Dependency, Project};

/// Which services a plan is about.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Named by the user, or all.
    named: BTreeSet<String>,
    /// These and what they depend on.
    pub(super) wanted: BTreeSet<String>,
    /// Others whose containers can't stay as they are, because something they use is made anew.
    dragged: BTreeSet<String>,
}

impl Scope {
    pub(super) fn contains(&self, service: &str) -> bool {
        self.wanted.contains(service) || self.dragged.contains(service)
    }
}

/// What was found and decided, before it is laid out in steps.
pub(super) struct Decided<'a> {
    pub(super) asked: &'a Up,
    pub(super) scope: Scope,
    /// All services, each after those it depends on.
    pub(super) order: Vec<&'a str>,
    /// Dependencies of every service of the file.
    pub(super) dependencies: &'a BTreeMap<String, BTreeMap<String, Dependency>>,
    /// Containers by service, one-off ones left out.
    pub(super) containers: BTreeMap<&'a str, Vec<&'a ContainerView>>,
    pub(super) fates: Fates,
    pub(super) decisions: BTreeMap<&'a str, Decision<'a>>,
}

pub(super) fn plan(project: &Project, observed: &Observed, options: &PlanOptions, asked: &Up) -> Plan {
    let mut plan = Plan::default();
    let unknown = options.services.iter().filter(|name| !project.services.contains_key(*name));
    plan.problems.extend(unknown.map(|name| Problem::UnknownService { service: name.clone() }));

    let dependencies = project.services.iter().map(|(name, service)| (name.clone(), graph::dependencies(service)));
    let dependencies: BTreeMap<_, _> = dependencies.collect();
    let order = match graph::order(&dependencies) {
        Ok(order) => order,
        Err(services) => {
            plan.problems.push(Problem::Cycle { services });
            return plan;
        }
    };
    let mut containers: BTreeMap<&str, Vec<&ContainerView>> = BTreeMap::new();
    for container in observed.containers.values().filter(|container| !container.oneoff) {
        containers.entry(&container.service).or_default().push(container);
    }
    let scope = scope(project, options, asked);
    let decided = decide(project, observed, options, asked, scope, order, &dependencies, containers);

    let mut builder = Builder::new(project, observed, options);
    builder.plan = plan;
    builder.plan.problems.extend(decided.fates.problems.iter().cloned());
    builder.plan.warnings.extend(decided.fates.warnings.iter().cloned());
    orphans(&mut builder, asked);
    Layout::new(builder, &decided).finish()
}

fn scope(project: &Project, options: &PlanOptions, asked: &Up) -> Scope {
    let all = options.services.is_empty();
    let known = project.services.keys().filter(|name| all || options.services.contains(*name));
    let named: BTreeSet<String> = known.cloned().collect();
    let wanted = if asked.no_deps { named.clone() } else { graph::with_dependencies(project, named.clone()) };
    Scope { named, wanted, dragged: BTreeSet::new() }
}

/// Decides about all services in scope, drawing in others as long as something they use is made anew.
fn decide<'a>(
    project: &'a Project,
    observed: &'a Observed,
    options: &'a PlanOptions,
    asked: &'a Up,
    mut scope: Scope,
    order: Vec<&'a str>,
    dependencies: &'a BTreeMap<String, BTreeMap<String, Dependency>>,
    containers: BTreeMap<&'a str, Vec<&'a ContainerView>>,
) -> Decided<'a> {
    loop {
        let in_scope = scope.wanted.iter().chain(&scope.dragged);
        let fates = Fates::judge(project, observed, options, asked, in_scope);
        let mut decisions: BTreeMap<&str, Decision<'_>> = BTreeMap::new();
        for &name in order.iter().filter(|name| scope.contains(name)) {
            let Some(desired) = Desired::new(project, observed, &fates, name) else { continue };
            let present = containers.get(name).map_or(&[][..], Vec::as_slice);
            let wanted = scope.wanted.contains(name);
            let asked_for = asked.scale.get(name).map(|number| *number as usize);
            let expected = if wanted { asked_for.unwrap_or_else(|| desired.replicas()) } else { present.len() };
            let policy = match (scope.named.contains(name), wanted) {
                (true, _) => asked.recreate,
                (false, true) => asked.recreate_dependencies,
                (false, false) => Recreate::Diverged,
            };
            let decision = desired.decide(present, expected, policy, &decisions);
            decisions.insert(name, decision);
        }
        let dragged = dragged(project, asked, &scope, &fates, &decisions, &containers);
        if dragged.is_empty() {
            return Decided { asked, scope, order, dependencies, containers, fates, decisions };
        }
        scope.dragged.extend(dragged);
    }
}

/// Services out of scope with containers on a network or volume that is made anew, or that share namespaces or volumes
/// with a container that is.
fn dragged(
    project: &Project,
    asked: &Up,
    scope: &Scope,
    fates: &Fates,
    decisions: &BTreeMap<&str, Decision<'_>>,
    containers: &BTreeMap<&str, Vec<&ContainerView>>,
) -> Vec<String> {
    if scope.wanted.len() == project.services.len() {
        return Vec::new();
    }
    let networks = fates.replaced_networks(project);
    let volumes = fates.replaced_volumes(project);
    let others = project.services.iter().filter(|(name, _)| !scope.contains(name));
    let dragged = others.filter(|(name, service)| {
        containers.get(name.as_str()).into_iter().flatten().any(|container| {
            let first = |name: &str| match decisions.get(name) {
                Some(decision) if decision.makes() => decision.first(),
                _ => First::None,
            };
            networks.iter().any(|network| container.networks.contains_key(network))
                || volumes.iter().any(|volume| mounts(container, volume))
                || (!asked.no_deps && shared_changed(container, service, first).is_some())
        })
    });
    dragged.map(|(name, _)| name.clone()).collect()
}

/// Removes the containers that the file has no service for, or warns of them.
fn orphans(builder: &mut Builder<'_>, asked: &Up) {
    let (project, observed, options) = (builder.project, builder.observed, builder.options);
    let orphans: Vec<&ContainerView> =
        observed.containers.values().filter(|container| is_orphan(project, options, container)).collect();
    if asked.remove_orphans {
        for container in orphans {
            builder.remove(container, super::Anonymous::Remove, &super::Cause::Orphan);
        }
        return;
    }
    let mut names: Vec<String> =
        orphans.iter().filter(|container| !container.oneoff).map(|container| container.name.clone()).collect();
    names.sort_unstable();
    if !names.is_empty() && !asked.ignore_orphans {
        builder.plan.warnings.push(Warning::Orphans { containers: names });
    }
}
