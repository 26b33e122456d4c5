//! Real names of containers, networks and volumes.

use crate::spec::model::{Network, Project, Service, Volume};

/// Name of a service's container: `container_name`, else `<project>-<service>-<number>`.
pub fn container_name(project: &str, service_name: &str, service: &Service, number: u32) -> String {
    service.container_name.clone().unwrap_or_else(|| format!("{project}-{service_name}-{number}"))
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
