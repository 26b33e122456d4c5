//! Picking services by name.

use std::collections::BTreeSet;

use super::diagnostic::Diagnostic;
use super::model::Project;
use super::normalize;
use super::profiles;

/// Names of `services` plus, with `dependencies`, everything they depend on. No names mean all services.
pub fn select(project: &Project, services: &[String], dependencies: bool) -> Result<BTreeSet<String>, Diagnostic> {
    if services.is_empty() {
        return Ok(project.services.keys().cloned().collect());
    }
    let mut chosen = BTreeSet::new();
    let mut pending: Vec<&String> = Vec::new();
    for name in services {
        if !project.services.contains_key(name) {
            return Err(profiles::unknown(project.services.keys(), name));
        }
        pending.push(name);
    }
    while let Some(name) = pending.pop() {
        if !chosen.insert(name.clone()) || !dependencies {
            continue;
        }
        let Some(service) = project.services.get(name) else { continue };
        pending.extend(service.depends_on.keys().filter(|key| project.services.contains_key(*key)));
    }
    Ok(chosen)
}

/// Leaves only the chosen services and what they use.
pub fn restrict(project: &mut Project, chosen: &BTreeSet<String>) {
    project.services.retain(|name, _| chosen.contains(name));
    normalize::drop_unused(project);
}
