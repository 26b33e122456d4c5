//! Generated projects and states for the property tests.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::spec::hash::config_hash;
use crate::spec::model::{
    Condition, Dependency, FileMount, Healthcheck, MountKind, Network, Port, Project, Service, StartHook, Volume,
    VolumeMount,
};

pub(super) const PROJECT: &str = "p";
const NETWORKS: usize = 3;
const VOLUMES: usize = 2;

/// Name of the service of an index; those beyond the project's services are orphans.
pub(super) fn service_name(index: usize) -> String {
    format!("s{index}")
}

/// The dice that a service is made from.
#[derive(Debug, Clone)]
struct Dice {
    dependencies: Vec<(usize, u8, bool, bool)>,
    share: Option<(usize, u8)>,
    networks: u8,
    volumes: u8,
    scale: u8,
    fixed_name: bool,
    checked: bool,
    secret: bool,
    port: u8,
    prepared: u8,
}

fn dice() -> impl Strategy<Value = Dice> {
    let dependencies = vec((0usize..8, 0u8..3, any::<bool>(), any::<bool>()), 0..3);
    let share = prop_oneof![3 => Just(None), 1 => (0usize..8, 0u8..3).prop_map(Some)];
    let rest = (0u8..8, 0u8..4, 0u8..4, any::<bool>(), any::<bool>(), any::<bool>(), 0u8..4, 0u8..5);
    (dependencies, share, rest).prop_map(|(dependencies, share, rest)| {
        let (networks, volumes, scale, fixed_name, checked, secret, port, prepared) = rest;
        Dice { dependencies, share, networks, volumes, scale, fixed_name, checked, secret, port, prepared }
    })
}

/// A valid project of up to six services.
pub(super) fn project() -> impl Strategy<Value = Project> {
    (vec(dice(), 1..6), any::<bool>()).prop_map(|(dice, internal)| {
        let mut project = Project { name: PROJECT.into(), ..Project::default() };
        for index in 0..NETWORKS {
            let network = Network { internal, external: index == 2, ..Network::default() };
            project.networks.insert(format!("n{index}"), network);
        }
        for index in 0..VOLUMES {
            project.volumes.insert(format!("v{index}"), Volume { external: index == 1, ..Volume::default() });
        }
        for (index, dice) in dice.iter().enumerate() {
            project.services.insert(service_name(index), service(index, dice));
        }
        project
    })
}

/// Services refer only to those of a lower index, so there is no cycle.
fn service(index: usize, dice: &Dice) -> Service {
    let mut service = Service { image: Some("image".into()), ..Service::default() };
    for (dependency, condition, restart, required) in dice.dependencies.iter().filter(|_| index > 0) {
        let condition = match condition {
            0 => Condition::ServiceStarted,
            1 => Condition::ServiceHealthy,
            _ => Condition::ServiceCompletedSuccessfully,
        };
        let dependency = service_name(dependency % index);
        service.depends_on.insert(dependency, Dependency { condition, restart: *restart, required: *required });
    }
    let share = dice.share.filter(|_| index > 0).map(|(other, kind)| (service_name(other % index), kind));
    match &share {
        Some((other, 0)) => service.network_mode = Some(format!("service:{other}")),
        Some((other, 1)) => service.pid = Some(format!("service:{other}")),
        Some((other, _)) => service.volumes_from = vec![format!("{other}:ro")],
        None => {}
    }
    if service.network_mode.is_none() {
        let keys = (0..NETWORKS).filter(|bit| dice.networks & (1 << bit) != 0);
        service.networks = keys.map(|bit| (format!("n{bit}"), None)).collect();
    }
    for bit in (0..VOLUMES).filter(|bit| dice.volumes & (1 << bit) != 0) {
        let (source, target) = (Some(format!("v{bit}")), format!("/v{bit}"));
        service.volumes.push(VolumeMount { kind: MountKind::Volume, source, target, ..VolumeMount::default() });
    }
    if dice.fixed_name {
        service.container_name = Some(format!("fixed-{index}"));
    }
    service.scale = Some(if dice.fixed_name { i64::from(dice.scale.min(1)) } else { i64::from(dice.scale) });
    service.healthcheck = dice.checked.then(Healthcheck::default);
    if dice.secret {
        service.secrets.push(FileMount { source: "token".into(), ..FileMount::default() });
    }
    // None, one of a kind, or both kinds.
    let kinds = [&[][..], &[], &[false], &[true], &[false, true]][usize::from(dice.prepared)];
    service.pre_start = kinds.iter().map(|&per_replica| StartHook { per_replica, ..StartHook::default() }).collect();
    if dice.port > 1 {
        let published = Some(format!("80{}", dice.port));
        service.ports.push(Port { target: 80, published, ..Port::default() });
    }
    service
}

/// The dice that an observed container is made from.
#[derive(Debug, Clone)]
struct Found {
    service: usize,
    number: u32,
    state: u8,
    health: u8,
    config: u8,
    networks: u8,
    flags: u8,
}

fn found() -> impl Strategy<Value = Found> {
    (0usize..8, 1u32..4, 0u8..8, 0u8..4, 0u8..4, any::<u8>(), any::<u8>()).prop_map(
        |(service, number, state, health, config, networks, flags)| Found {
            service,
            number,
            state,
            health,
            config,
            networks,
            flags,
        },
    )
}

/// Any state at all: containers of every kind, stale and foreign networks and volumes.
pub(super) fn observed(project: Project) -> impl Strategy<Value = (Project, Observed)> {
    (vec(found(), 0..8), vec(0u8..6, NETWORKS), vec(0u8..4, VOLUMES), 0u8..16).prop_map(
        move |(found, networks, volumes, more)| {
            let mut observed = Observed::default();
            for (index, kind) in networks.iter().enumerate() {
                let name = format!("{PROJECT}_n{index}");
                let definition = &project.networks[&format!("n{index}")];
                if *kind == 0 && !definition.external {
                    continue;
                }
                let hash = if *kind == 1 { "old".into() } else { network_hash(definition) };
                let owner = (!definition.external && *kind != 2).then(|| PROJECT.to_owned());
                let users: BTreeSet<String> = (more & 1 == 1).then(|| "stranger".to_owned()).into_iter().collect();
                let view = NetworkView {
                    id: format!("net{index}"),
                    hash,
                    owner,
                    present: *kind != 3,
                    users,
                    ..NetworkView::default()
                };
                observed.networks.insert(name, view);
            }
            for (index, kind) in volumes.iter().enumerate() {
                let definition = &project.volumes[&format!("v{index}")];
                if *kind == 0 && !definition.external {
                    continue;
                }
                let hash = if *kind == 1 { "old".into() } else { volume_hash(definition) };
                let owner = (!definition.external && *kind != 2).then(|| PROJECT.to_owned());
                observed
                    .volumes
                    .insert(format!("{PROJECT}_v{index}"), VolumeView { hash, owner, ..VolumeView::default() });
            }
            observed.images = project.services.keys().map(|name| (name.clone(), Some("new".to_owned()))).collect();
            observed.files = BTreeMap::from([("secret:token".to_owned(), "digest".to_owned())]);
            for (index, found) in found.iter().enumerate() {
                let view = container(&project, &observed, index, found);
                observed.containers.insert(view.id.clone(), view);
            }
            (project.clone(), observed)
        },
    )
}

fn container(project: &Project, observed: &Observed, index: usize, found: &Found) -> ContainerView {
    let service_name = service_name(found.service);
    let flag = |bit: u8| found.flags & (1 << bit) != 0;
    let service = project.services.get(&service_name).cloned().unwrap_or_default();
    let oneoff = flag(0) && flag(1);
    let name =
        if oneoff { format!("run-{index}") } else { container_name(project, &service_name, &service, found.number) };
    let mut made_from = service.clone();
    if found.config == 1 {
        made_from.environment.insert("V".into(), Some("old".into()));
    }
    let networks = observed.networks.iter().enumerate().filter_map(|(bit, (name, network))| {
        match (found.networks >> (2 * bit)) & 3 {
            0 => None,
            1 => Some((name.clone(), "stale".to_owned())),
            _ => Some((name.clone(), network.id.clone())),
        }
    });
    let mount = |name: String, anonymous| MountedVolume { name, anonymous };
    let mut volumes: BTreeMap<String, MountedVolume> = BTreeMap::new();
    if flag(2) {
        volumes = (0..VOLUMES).map(|bit| (format!("/v{bit}"), mount(format!("{PROJECT}_v{bit}"), false))).collect();
    }
    if flag(3) {
        volumes.insert("/anonymous".into(), mount(format!("anonymous{index}"), true));
    }
    ContainerView {
        id: format!("c{index}"),
        name,
        service: service_name,
        number: found.number,
        oneoff,
        config_hash: if found.config == 2 { "other".into() } else { config_hash(&made_from) },
        spec: (found.config != 3).then_some(made_from),
        unconfined: flag(1) && flag(5),
        image: if flag(4) && flag(5) { "old".into() } else { "new".into() },
        state: match found.state {
            0 => State::Created,
            1 => State::Paused,
            2 => State::Restarting,
            3 => State::Exited { code: 0 },
            4 => State::Exited { code: 1 },
            5 => State::Dead,
            _ => State::Running,
        },
        prepared: (0..usize::from(found.health)).collect(),
        health: match found.health {
            0 => None,
            1 => Some(Health::Starting),
            2 => Some(Health::Healthy),
            _ => Some(Health::Unhealthy),
        },
        networks: networks.collect(),
        volumes,
        shares: if flag(6) { BTreeMap::from([("s0".to_owned(), "c0".to_owned())]) } else { BTreeMap::new() },
        files: BTreeMap::from([("secret:token".to_owned(), if flag(7) { "digest" } else { "old" }.to_owned())]),
    }
}

/// Options of `up` of every kind.
pub(super) fn up_options() -> impl Strategy<Value = PlanOptions> {
    (any::<u8>(), vec(0usize..6, 0..3), 0u8..4, 0u8..4).prop_map(|(bits, named, recreate, dependencies)| {
        let flag = |bit: u8| bits & (1 << bit) != 0;
        let policy = |dice| match dice {
            0 => Recreate::Never,
            _ => Recreate::Diverged,
        };
        let up = Up {
            recreate: policy(recreate),
            recreate_dependencies: policy(dependencies),
            no_deps: flag(0) && flag(1),
            renew_anonymous_volumes: flag(2),
            no_start: flag(3) && flag(4),
            remove_orphans: flag(5),
            keep_volumes: flag(6),
            ..Up::default()
        };
        let services = if flag(7) { named.into_iter().map(service_name).collect() } else { BTreeSet::new() };
        PlanOptions { verb: Verb::Up(up), services, ..PlanOptions::default() }
    })
}
