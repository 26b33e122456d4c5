//! Real names of containers, networks and volumes.

use crate::spec::model::{Network, Project, Service, Volume};

/// Name of a service's container: `container_name`, else `<project>-<service>-<number>`.
pub fn container_name(project: &Project, service_name: &str, service: &Service, number: u32) -> String {
    let usual = || joined(project.separator(), &[&project.name, service_name, &number.to_string()]);
    service.container_name.clone().unwrap_or_else(usual)
}

/// Whether a container has the name that its service gives it, with either separator: asking for the other one is no
/// reason to make it anew.
pub fn is_named(name: &str, project: &Project, service_name: &str, service: &Service, number: u32) -> bool {
    let given = |own: &String| own == name;
    let usual = |separator| joined(separator, &[&project.name, service_name, &number.to_string()]) == name;
    service.container_name.as_ref().map_or_else(|| usual('-') || usual('_'), given)
}

/// Name of a one-off container: `<project>-<service>-run-<suffix>`.
pub fn oneoff_name(project: &Project, service_name: &str, suffix: &str) -> String {
    joined(project.separator(), &[&project.name, service_name, "run", suffix])
}

/// The image that a service runs: its `image`, else the name that its build gives, `<project>-<service>`.
pub fn image_name(project: &Project, service_name: &str, service: &Service) -> String {
    service.image.clone().unwrap_or_else(|| joined(project.separator(), &[&project.name, service_name]))
}

fn joined(separator: char, parts: &[&str]) -> String {
    parts.join(separator.encode_utf8(&mut [0; 4]))
}

/// Real name of a network by its key: its `name`, else `<project>_<key>`.
pub fn network_name(project: &Project, key: &str) -> String {
    let given = project.networks.get(key).map_or("", |Network { name, .. }| name);
    real_name(project, key, given)
}

/// Real name of a volume by its key: its `name`, else `<project>_<key>`.
pub fn volume_name(project: &Project, key: &str) -> String {
    let given = project.volumes.get(key).map_or("", |Volume { name, .. }| name);
    real_name(project, key, given)
}

fn real_name(project: &Project, key: &str, given: &str) -> String {
    if given.is_empty() { format!("{}_{key}", project.name) } else { given.to_owned() }
}
