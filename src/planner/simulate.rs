//! A model of what steps do: the pure twin of the engine, for property tests and dry runs.

use super::action::{Action, Goal, Reference};
use super::decide::{First, network_keys, volume_mounts};
use super::fates::Fates;
use super::observed::{ContainerView, Health, MountedVolume, NetworkView, Observed, State, VolumeView};
use super::plan::Plan;
use super::{graph, network_definition, network_hash, network_name, volume_definition, volume_hash, volume_name};
use crate::spec::hash::config_hash;
use crate::spec::model::Project;

/// The state after all steps of a plan.
pub fn simulate(project: &Project, observed: &Observed, plan: &Plan) -> Observed {
    let mut state = observed.clone();
    for (_, step) in plan.steps() {
        apply(project, &mut state, &step.action);
    }
    state
}

/// Changes a state as an action would. Applied twice it changes nothing more.
pub fn apply(project: &Project, state: &mut Observed, action: &Action) {
    match action {
        Action::CreateNetwork { key, name } => create_network(project, state, key, name),
        Action::RepairNetwork { name, .. } => {
            if let Some(network) = state.networks.get_mut(name) {
                network.present = true;
            }
        }
        Action::RemoveNetwork { name } => {
            state.networks.remove(name);
            for container in state.containers.values_mut() {
                container.networks.remove(name);
            }
        }
        Action::CreateVolume { key, name } => {
            let Some(volume) = project.volumes.get(key) else { return };
            let made = VolumeView {
                hash: volume_hash(volume),
                definition: volume_definition(volume),
                owner: Some(project.name.clone()),
            };
            state.volumes.entry(name.clone()).or_insert(made);
        }
        Action::RemoveVolume { name } => {
            state.volumes.remove(name);
        }
        Action::CreateContainer { service, number, name, replaces } => {
            let anonymous = replaces.as_ref().map(|replaced| &replaced.volumes).into_iter().flatten();
            let carried: Vec<(String, String)> =
                anonymous.map(|(target, volume)| (target.clone(), volume.clone())).collect();
            create_container(project, state, service, *number, name, carried);
        }
        Action::RemoveContainer { container, .. } => {
            if let Some(id) = find(state, container) {
                state.containers.remove(&id);
            }
        }
        Action::Prepare { container, step } => change(state, container, |found| {
            found.prepared.insert(*step);
        }),
        Action::StartContainer { container } => {
            let checked = project.services.get(&container.service).is_some_and(|service| service.healthcheck.is_some());
            change(state, container, |found| {
                if !found.state.is_active() {
                    found.unconfined = false;
                    found.state = State::Running;
                    found.health = checked.then_some(Health::Starting);
                }
            });
        }
        Action::StopContainer { container, .. } | Action::KillContainer { container, .. } => {
            change(state, container, |found| {
                if found.state.is_active() {
                    found.state = State::Exited { code: 137 };
                }
            });
        }
        Action::PauseContainer { container } => change(state, container, |found| found.state = State::Paused),
        Action::UnpauseContainer { container } => change(state, container, |found| found.state = State::Running),
        Action::WaitFor { containers, goal, .. } => {
            for container in containers {
                change(state, container, |found| match goal {
                    Goal::Healthy => found.health = Some(Health::Healthy),
                    Goal::Completed => found.state = State::Exited { code: 0 },
                    Goal::Ready => found.health = found.health.map(|_| Health::Healthy),
                });
            }
        }
        Action::RemoveImage { service, .. } => {
            state.images.insert(service.clone(), None);
        }
    }
}

fn create_network(project: &Project, state: &mut Observed, key: &str, name: &str) {
    let Some(network) = project.networks.get(key) else { return };
    let id = fresh(name, |id| state.containers.values().any(|found| found.networks.values().any(|known| known == id)));
    let made = NetworkView {
        id,
        key: key.to_owned(),
        hash: network_hash(network),
        definition: network_definition(network),
        owner: Some(project.name.clone()),
        present: true,
        ..NetworkView::default()
    };
    state.networks.entry(name.to_owned()).or_insert(made);
}

fn create_container(
    project: &Project,
    state: &mut Observed,
    name: &str,
    number: u32,
    container: &str,
    carried: Vec<(String, String)>,
) {
    let exists = |found: &ContainerView| found.name == container && found.service == name && found.number == number;
    let Some((key, service)) = project.services.get_key_value(name) else { return };
    if state.containers.values().any(exists) {
        return;
    }
    let taken = |id: &str| {
        let shared = |found: &ContainerView| found.shares.values().any(|known| known == id);
        state.containers.contains_key(id) || state.containers.values().any(shared)
    };
    let id = fresh(container, taken);
    let networks = network_keys(project, service).filter_map(|key| {
        let (name, network) = state.networks.get_key_value(&network_name(project, key))?;
        Some((name.clone(), network.id.clone()))
    });
    let named = volume_mounts(project, service)
        .map(|(target, key)| (target.to_owned(), MountedVolume { name: volume_name(project, key), anonymous: false }));
    let anonymous = carried.into_iter().map(|(target, name)| (target, MountedVolume { name, anonymous: true }));
    let shares = graph::shared(service).into_keys().filter_map(|shared| match First::observed(state, shared) {
        First::Existing(id) => Some((shared.to_owned(), id.to_owned())),
        First::New | First::None => None,
    });
    let fates = Fates::default();
    let files = super::decide::Desired::new(project, state, &fates, key)
        .map(|desired| desired.files().map(|(file, digest)| (file, digest.clone())).collect());
    let made = ContainerView {
        id: id.clone(),
        name: container.to_owned(),
        service: name.to_owned(),
        number,
        config_hash: config_hash(service),
        spec: Some(service.clone()),
        image: state.images.get(name).cloned().flatten().unwrap_or_default(),
        networks: networks.collect(),
        volumes: anonymous.chain(named).collect(),
        shares: shares.collect(),
        files: files.unwrap_or_default(),
        ..ContainerView::default()
    };
    state.containers.insert(id, made);
}

/// An id that nothing refers to.
fn fresh(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut id = format!("{name}~");
    while taken(&id) {
        id.push('~');
    }
    id
}

fn find(state: &Observed, container: &Reference) -> Option<String> {
    if let Some(id) = &container.id {
        return state.containers.contains_key(id).then(|| id.clone());
    }
    let named = state.containers.values().find(|found| found.name == container.name);
    named.map(|found| found.id.clone())
}

fn change(state: &mut Observed, container: &Reference, with: impl FnOnce(&mut ContainerView)) {
    if let Some(found) = find(state, container).and_then(|id| state.containers.get_mut(&id)) {
        with(found);
    }
}
