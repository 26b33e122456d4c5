//! The graph of services: who must be there before whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::model::{Condition, Dependency, Project, Service};

/// Dependencies of a service: those written down and those that follow from links, shared namespaces and shared
/// volumes.
pub(super) fn dependencies(service: &Service) -> BTreeMap<String, Dependency> {
    let mut all = service.depends_on.clone();
    let mut implied = |name: &str, restart: bool| {
        let implied = Dependency { condition: Condition::ServiceStarted, restart, required: true };
        all.entry(name.to_owned()).or_insert(implied);
    };
    for (name, restart) in shared(service) {
        implied(name, restart);
    }
    for link in &service.links {
        implied(link.split(':').next().unwrap_or_default(), true);
    }
    all
}

/// Services whose container must exist before one of this service can be made, and whether a restart of theirs
/// restarts this one.
pub(super) fn shared(service: &Service) -> BTreeMap<&str, bool> {
    let modes = [&service.network_mode, &service.pid, &service.ipc, &service.uts, &service.cgroup];
    let namespaces =
        modes.into_iter().filter_map(|mode| mode.as_deref()?.strip_prefix("service:")).map(|name| (name, true));
    let volumes = service.volumes_from.iter().filter_map(|from| {
        let name = from.split(':').next().unwrap_or_default();
        (name != "container").then_some((name, false))
    });
    volumes.chain(namespaces).collect()
}

/// Adds all that `services` depend on, directly or not, as far as the project has it.
pub(super) fn with_dependencies(project: &Project, services: BTreeSet<String>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut stack: Vec<String> = services.into_iter().collect();
    while let Some(name) = stack.pop() {
        let Some(service) = project.services.get(&name) else { continue };
        if all.insert(name) {
            stack.extend(dependencies(service).into_keys());
        }
    }
    all
}

/// Services in an order in which each comes after all it depends on, or else the services that no order fits.
pub(super) fn order(dependencies: &BTreeMap<String, BTreeMap<String, Dependency>>) -> Result<Vec<&str>, Vec<String>> {
    let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, wanted) in dependencies {
        let known: Vec<&str> =
            wanted.keys().filter(|key| dependencies.contains_key(*key)).map(String::as_str).collect();
        missing.insert(name, known.len());
        for dependency in known {
            dependents.entry(dependency).or_default().push(name);
        }
    }
    let mut ready: Vec<&str> = missing.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).rev().collect();
    let mut sorted = Vec::with_capacity(missing.len());
    while let Some(name) = ready.pop() {
        sorted.push(name);
        missing.remove(name);
        for dependent in dependents.get(name).into_iter().flatten() {
            if let Some(count) = missing.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(dependent);
                }
            }
        }
    }
    if missing.is_empty() { Ok(sorted) } else { Err(missing.into_keys().map(str::to_owned).collect()) }
}
