//! Defaults that the file leaves unsaid: networks, names, implicit dependencies.

use std::collections::BTreeSet;

use super::assemble::Environment;
use super::model::{Dependency, Ipam, MountKind, Project, Resources, Service, VolumeMount};

/// Fills in what is implied.
pub(crate) fn normalize(project: &mut Project, environment: &Environment) {
    let mut default_used = false;
    for service in project.services.values_mut() {
        default_used |= networks(service);
        build(service, environment);
        depend(service);
        policies(service);
        device_requests(service);
        emptied(service);
        for secret in &mut service.secrets {
            secret.target.get_or_insert_with(|| format!("/run/secrets/{}", secret.source));
        }
    }
    if default_used {
        project.networks.entry("default".into()).or_default();
    }
    for network in project.networks.values_mut() {
        network.ipam = network.ipam.take().filter(|ipam| *ipam != Ipam::default());
    }
    name_resources(project);
}

/// Sections that say nothing are none.
fn emptied(service: &mut Service) {
    let Some(deploy) = &mut service.deploy else { return };
    deploy.resources = deploy.resources.take().filter(|resources| *resources != Resources::default());
    deploy.placement =
        deploy.placement.take().filter(|placement| placement.as_object().is_none_or(|map| !map.is_empty()));
}

/// Attaches a service without networks to the default one; whether it uses that.
fn networks(service: &mut Service) -> bool {
    if service.provider.is_some() || service.network_mode.is_some() {
        return false;
    }
    if service.networks.is_empty() {
        service.networks.insert("default".into(), None);
    }
    service.networks.contains_key("default")
}

fn build(service: &mut Service, environment: &Environment) {
    let Some(build) = &mut service.build else { return };
    if build.dockerfile.is_none() && build.dockerfile_inline.is_none() {
        build.dockerfile = Some("Dockerfile".into());
    }
    for (name, value) in &mut build.args {
        if value.is_none() {
            *value = environment.get(name).cloned();
        }
    }
    build.args.retain(|_, value| value.is_some());
}

/// Dependencies that links, shared namespaces and shared volumes imply.
fn depend(service: &mut Service) {
    for link in service.links.clone() {
        let name = link.split(':').next().unwrap_or_default().to_owned();
        service.depends_on.entry(name).or_insert_with(|| Dependency::started(true));
    }
    let namespaces = [&service.network_mode, &service.ipc, &service.pid, &service.uts, &service.cgroup];
    let shared: Vec<String> =
        namespaces.into_iter().flatten().filter_map(|mode| Some(mode.strip_prefix("service:")?.to_owned())).collect();
    for name in shared {
        service.depends_on.entry(name).or_insert_with(|| Dependency::started(true));
    }
    for source in service.volumes_from.clone().iter().filter(|source| !source.starts_with("container:")) {
        let name = source.split(':').next().unwrap_or_default().to_owned();
        service.depends_on.entry(name).or_insert_with(|| Dependency::started(false));
    }
}

/// A request that says neither how many devices nor which means all.
fn device_requests(service: &mut Service) {
    let reservations = service.deploy.as_mut().and_then(|deploy| deploy.resources.as_mut()?.reservations.as_mut());
    let devices = reservations.and_then(|reservations| reservations.devices.as_mut());
    for list in [devices, service.gpus.as_mut()].into_iter().flatten() {
        for request in list.as_array_mut().into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
            if !request.contains_key("device_ids") {
                request.entry("count").or_insert_with(|| (-1).into());
            }
        }
    }
}

fn policies(service: &mut Service) {
    if service.pull_policy.as_deref() == Some("if_not_present") {
        service.pull_policy = Some("missing".into());
    }
    for hook in &mut service.pre_start {
        hook.image = hook.image.take().or_else(|| service.image.clone());
    }
    if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
        deploy.replicas.get_or_insert(scale);
    }
}

/// Gives every resource its real name.
fn name_resources(project: &mut Project) {
    let prefix = project.name.clone();
    let real = |key: &str, external: bool| if external { key.to_owned() } else { format!("{prefix}_{key}") };
    for (key, network) in project.networks.iter_mut().filter(|(_, network)| network.name.is_empty()) {
        network.name = real(key, network.external);
    }
    for (key, volume) in project.volumes.iter_mut().filter(|(_, volume)| volume.name.is_empty()) {
        volume.name = real(key, volume.external);
    }
    for (key, object) in
        project.configs.iter_mut().chain(&mut project.secrets).filter(|(_, object)| object.name.is_empty())
    {
        object.name = real(key, object.external);
    }
}

/// The named volume behind a mount.
pub(crate) fn volume_key(mount: &VolumeMount) -> Option<&str> {
    mount.source.as_deref().filter(|source| mount.kind == MountKind::Volume && !source.is_empty())
}

/// Drops networks, volumes, configs, secrets and models that no service uses.
pub(crate) fn drop_unused(project: &mut Project) {
    let services = &project.services;
    let networks: BTreeSet<&String> = services.values().flat_map(|service| service.networks.keys()).collect();
    let volumes: BTreeSet<&str> =
        services.values().flat_map(|service| service.volumes.iter().filter_map(volume_key)).collect();
    let configs: BTreeSet<&String> =
        services.values().flat_map(|service| service.configs.iter().map(|file| &file.source)).collect();
    let built = services.values().filter_map(|service| service.build.as_ref()).flat_map(|build| &build.secrets);
    let mounted = services.values().flat_map(|service| &service.secrets);
    let secrets: BTreeSet<&String> = built.chain(mounted).map(|file| &file.source).collect();
    let models: BTreeSet<&String> = services
        .values()
        .filter_map(|service| service.models.as_ref()?.as_object())
        .flat_map(|models| models.keys())
        .collect();
    project.networks.retain(|key, _| networks.contains(key));
    project.volumes.retain(|key, _| volumes.contains(key.as_str()));
    project.configs.retain(|key, _| configs.contains(key));
    project.secrets.retain(|key, _| secrets.contains(key));
    project.models.retain(|key, _| models.contains(key));
}
