//! What is there, as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::control::Failure;
use super::networks;
use super::reconcile::Desired;
use super::state::{self, Container, Health, Status};
use super::supervisor::Supervisor;
use super::volumes;
use crate::planner::{self, ContainerView, MountedVolume, NetworkView, Observed, State, VolumeView};
use crate::spec::model::{Project, Service};

impl Supervisor {
    /// Looks at everything that a plan for `desired` depends on.
    pub(crate) fn observe(&self, desired: &Desired) -> Result<Observed, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the state of the stack could not be read: {e}"));
        let project = &desired.project;
        let containers = self.containers().into_iter().map(|c| (c.record.id.clone(), view(&c))).collect();
        let named = |names: BTreeSet<String>, owner: &str, name: &str| owner == self.project || names.contains(name);

        let present: BTreeSet<String> = match networks::list(&self.paths).map_err(|e| failed(&e))? {
            found if found.is_empty() => BTreeSet::new(),
            _ => self.host.bridges().map_err(|e| failed(&e))?.into_iter().map(|(name, _)| name).collect(),
        };
        let wanted: BTreeSet<String> = project.networks.keys().map(|key| planner::network_name(project, key)).collect();
        let mut foreign_names = BTreeMap::new();
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for record in state::records(&self.paths, |id| self.look(id, |_| ()).is_some()).map_err(|e| failed(&e))? {
            if record.project != self.project {
                for endpoint in &record.endpoints {
                    users.entry(endpoint.network.clone()).or_default().insert(record.name.clone());
                }
                foreign_names.insert(record.name, record.project);
            }
        }
        let found = networks::list(&self.paths).map_err(|e| failed(&e))?;
        let networks = found.into_iter().filter(|n| named(wanted.clone(), &n.project, &n.name)).map(|network| {
            let view = NetworkView {
                id: network.id.clone(),
                key: network.key.clone(),
                hash: network.hash.clone(),
                owner: Some(network.project.clone()).filter(|owner| !owner.is_empty()),
                present: present.contains(&network.bridge.name),
                users: users.remove(&network.name).unwrap_or_default(),
            };
            (network.name, view)
        });
        let wanted: BTreeSet<String> = project.volumes.keys().map(|key| planner::volume_name(project, key)).collect();
        let found = volumes::list(&self.paths).map_err(|e| failed(&e))?;
        let volumes = found
            .into_iter()
            .filter(|volume| !volume.key.is_empty() || wanted.contains(&volume.name))
            .filter(|volume| named(wanted.clone(), &volume.project, &volume.name))
            .map(|volume| {
                (volume.name, VolumeView { hash: volume.hash, owner: Some(volume.project).filter(|o| !o.is_empty()) })
            })
            .collect();

        Ok(Observed {
            containers,
            networks: networks.collect(),
            volumes,
            images: self.image_ids(project)?,
            files: desired.objects.iter().map(|(key, content)| (key.clone(), digest(content))).collect(),
            foreign_names,
        })
    }

    fn image_ids(&self, project: &Project) -> Result<BTreeMap<String, Option<String>>, Failure> {
        let mut ids = BTreeMap::new();
        for (name, service) in &project.services {
            if service.provider.is_some() {
                continue;
            }
            let reference = image_reference(project, name, service);
            let image = self.store.find(&reference).map_err(|e| Failure::new(e.to_string()))?;
            ids.insert(name.clone(), image.map(|image| image.id.to_string()));
        }
        Ok(ids)
    }
}

/// The image a service runs: what the file names, or the name its build gives.
pub fn image_reference(project: &Project, name: &str, service: &Service) -> String {
    service.image.clone().unwrap_or_else(|| format!("{}-{name}", project.name))
}

/// SHA-256 of a content, in hexadecimal.
pub(crate) fn digest(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn view(container: &Container) -> ContainerView {
    let (record, state) = (&container.record, &container.state);
    let volume = |mount: &state::MountRecord| MountedVolume { name: mount.source.clone(), anonymous: mount.anonymous };
    ContainerView {
        id: record.id.clone(),
        name: record.name.clone(),
        service: record.service.clone(),
        number: record.number,
        oneoff: record.oneoff,
        config_hash: record.config_hash.clone(),
        spec: Some(record.config.clone()),
        image: record.image_id.clone(),
        state: match state.status {
            Status::Created => State::Created,
            Status::Running => State::Running,
            Status::Paused => State::Paused,
            Status::Restarting => State::Restarting,
            Status::Exited => State::Exited { code: state.exit_code },
            Status::Dead => State::Dead,
        },
        health: match state.health {
            Health::None => None,
            Health::Starting => Some(planner::Health::Starting),
            Health::Healthy => Some(planner::Health::Healthy),
            Health::Unhealthy => Some(planner::Health::Unhealthy),
        },
        networks: record.endpoints.iter().map(|e| (e.network.clone(), e.network_id.clone())).collect(),
        volumes: record.mounts.iter().filter(|m| m.kind == "volume").map(|m| (m.target.clone(), volume(m))).collect(),
        shares: record.shares.clone(),
        files: record.files.clone(),
    }
}
