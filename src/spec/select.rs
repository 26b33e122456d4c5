//! Picking services by name.

use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Kind};
use super::model::Project;

/// Names of `services` plus, with `dependencies`, everything they depend on. No names mean all services.
pub fn select(project: &Project, services: &[String], dependencies: bool) -> Result<BTreeSet<String>, Diagnostic> {
    if services.is_empty() {
        return Ok(project.services.keys().cloned().collect());
    }
    let mut chosen = BTreeSet::new();
    let mut pending: Vec<&String> = Vec::new();
    for name in services {
        if !project.services.contains_key(name) {
            return Err(Diagnostic::error(Kind::Reference, format!("no such service: {name}")));
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
