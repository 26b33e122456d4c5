//! Which services are switched on.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Diagnostic, Kind};
use super::model::{Project, Service};
use super::words;

/// Takes the services out whose profiles are not active. A service named by an argument activates its profiles.
pub(crate) fn disable(
    project: &mut Project,
    profiles: &[String],
    named: &[String],
) -> Result<BTreeMap<String, Service>, Box<Diagnostic>> {
    // As in docker compose, the empty profile is always on.
    let mut active: BTreeSet<&str> = profiles.iter().map(String::as_str).chain([""]).collect();
    for name in named {
        let service = project.services.get(name).ok_or_else(|| Box::new(unknown(project.services.keys(), name)))?;
        active.extend(service.profiles.iter().map(String::as_str));
    }
    let on = |service: &Service| {
        service.profiles.is_empty()
            || active.contains("*")
            || service.profiles.iter().any(|profile| active.contains(profile.as_str()))
    };
    let off: Vec<String> =
        project.services.iter().filter(|(_, service)| !on(service)).map(|(name, _)| name.clone()).collect();
    Ok(off.into_iter().filter_map(|name| project.services.remove_entry(&name)).collect())
}

/// The complaint about a service that is none of those.
pub(crate) fn unknown<'n>(services: impl Iterator<Item = &'n String>, name: &str) -> Diagnostic {
    let names: Vec<&str> = services.map(String::as_str).collect();
    let hint = words::suggest(name, names.iter().copied())
        .unwrap_or_else(|| format!("services: {}", names[..names.len().min(20)].join(", ")));
    Diagnostic::error(Kind::Reference, format!("no such service: {name}")).hint(hint)
}
