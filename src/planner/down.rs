//! `down`: removes containers, then networks, on request volumes and images.

use super::action::{Action, Cause};
use super::builder::Builder;
use super::fates::mounts;
use super::image_name;
use super::observed::{ContainerView, Observed};
use super::options::{Down, Images, PlanOptions};
use super::plan::{Plan, Problem, Warning};
use crate::spec::model::Project;

pub(super) fn plan(project: &Project, observed: &Observed, options: &PlanOptions, asked: &Down) -> Plan {
    let mut builder = Builder::new(project, observed, options);
    let all = options.services.is_empty();
    for name in options.services.iter().filter(|name| !project.services.contains_key(*name)) {
        builder.plan.problems.push(Problem::UnknownService { service: name.clone() });
    }
    let goes = |container: &ContainerView| {
        let service = &container.service;
        let orphan =
            container.oneoff || !(project.services.contains_key(service) || options.disabled.contains(service));
        if orphan {
            return asked.remove_orphans && (all || options.services.contains(service));
        }
        project.services.contains_key(service) && (all || options.services.contains(service))
    };
    let (going, staying): (Vec<&ContainerView>, Vec<&ContainerView>) =
        observed.containers.values().partition(|container| goes(container));
    for container in going {
        let known = project.services.contains_key(&container.service) && !container.oneoff;
        let cause = if known { Cause::Requested } else { Cause::Orphan };
        // Nothing could mount an anonymous volume again once its container is gone.
        builder.remove(container, super::Anonymous::Remove, &cause);
    }
    builder.order_stops();
    if all {
        orphans(&mut builder, &staying);
        networks(&mut builder, &staying);
        if asked.volumes {
            volumes(&mut builder, &staying);
        }
    }
    if let Some(which) = asked.images {
        images(&mut builder, which);
    }
    builder.plan
}

fn orphans(builder: &mut Builder<'_>, staying: &[&ContainerView]) {
    let orphan = |container: &&&ContainerView| {
        !container.oneoff
            && !builder.project.services.contains_key(&container.service)
            && !builder.options.disabled.contains(&container.service)
    };
    let mut names: Vec<String> = staying.iter().filter(orphan).map(|container| container.name.clone()).collect();
    names.sort_unstable();
    if !names.is_empty() {
        builder.plan.warnings.push(Warning::Orphans { containers: names });
    }
}

/// Removes every network that the project made and nobody uses any more.
fn networks(builder: &mut Builder<'_>, staying: &[&ContainerView]) {
    for (name, network) in &builder.observed.networks {
        if network.owner.as_ref() != Some(&builder.project.name) {
            continue;
        }
        let attached = staying.iter().filter(|container| container.networks.contains_key(name));
        let mut users: Vec<String> = attached.map(|container| container.name.clone()).collect();
        users.extend(network.users.iter().cloned());
        if !users.is_empty() {
            users.sort_unstable();
            builder.plan.warnings.push(Warning::NetworkInUse { name: name.clone(), containers: users });
            continue;
        }
        let removal = builder.step(Action::RemoveNetwork { name: name.clone() }, Cause::Requested);
        for container in builder.observed.containers.values().filter(|found| found.networks.contains_key(name)) {
            if let Some(before) = builder.removal(&container.id) {
                builder.plan.order(before, removal);
            }
        }
    }
}

/// Removes every volume that the project made and nobody uses any more. Anonymous ones go with their containers.
fn volumes(builder: &mut Builder<'_>, staying: &[&ContainerView]) {
    for (name, volume) in &builder.observed.volumes {
        let used = staying.iter().any(|container| mounts(container, name));
        if volume.owner.as_ref() != Some(&builder.project.name) || used {
            continue;
        }
        let removal = builder.destructive(Action::RemoveVolume { name: name.clone() }, Cause::Requested);
        for container in builder.observed.containers.values().filter(|found| mounts(found, name)) {
            if let Some(before) = builder.removal(&container.id) {
                builder.plan.order(before, removal);
            }
        }
    }
}

fn images(builder: &mut Builder<'_>, which: Images) {
    let all = builder.options.services.is_empty();
    for (name, service) in &builder.project.services {
        let asked = all || builder.options.services.contains(name);
        if !asked || (which == Images::Local && service.image.is_some()) {
            continue;
        }
        let image = image_name(builder.project, name, service);
        let action = Action::RemoveImage { service: name.clone(), image };
        let removal = builder.step(action, Cause::Requested);
        let removes = builder.of(name).removes.clone();
        for before in removes {
            builder.plan.order(before, removal);
        }
    }
}
