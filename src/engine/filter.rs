//! Which system calls a service's containers may make: `security_opt: [seccomp=…]`.

use std::path::Path;

use fs_err as fs;

use super::control::Failure;
use super::paths::Paths;
use super::state::Record;
use crate::runtime;
use crate::runtime::launch::Seccomp;
use crate::spec::model::Service;

/// Reads the profile that a service names, a path from the project's folder, and checks it; none if it names none.
/// Blocking.
pub(crate) fn read(service: &Service, name: &str, folder: &Path) -> Result<Option<String>, Failure> {
    let Some(file) = file(service) else { return Ok(None) };
    let path = folder.join(file);
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(format!("service {name}: the profile of system calls {}: {e}", path.display()))
            .about(name, &["security_opt"])
            .hint("name a JSON file in Docker's form, `seccomp=unconfined`, or nothing")
    };
    let text = fs::read_to_string(&path).map_err(|e| failed(&e))?;
    runtime::check_profile(&text).map_err(|e| failed(&e))?;
    Ok(Some(text))
}

/// A container's filter; its profile was kept when it was made.
pub(crate) fn of(paths: &Paths, record: &Record) -> Result<Seccomp, Failure> {
    let service = &record.config;
    if service.privileged.unwrap_or(false) || option(service) == Some("unconfined") {
        return Ok(Seccomp::Unconfined);
    }
    if file(service).is_none() {
        return Ok(Seccomp::Default);
    }
    let text = fs::read_to_string(paths.filter(&record.id));
    text.map(Seccomp::Profile).map_err(|e| Failure::new(format!("container {}: {e}", record.name)))
}

fn file(service: &Service) -> Option<&str> {
    option(service).filter(|value| *value != "unconfined")
}

/// The last one given holds.
fn option(service: &Service) -> Option<&str> {
    let values = service.security_opt.iter().filter_map(|option| option.split_once(['=', ':']));
    values.filter(|(name, _)| *name == "seccomp").map(|(_, value)| value).next_back()
}
