//! What is there, as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::control::Failure;
use super::intent::Desired;
use super::limits;
use super::networks;
use super::state::{self, Container, Health, Status};
use super::supervisor::Supervisor;
use super::volumes;
use crate::planner::{self, ContainerView, MountedVolume, NetworkView, Observed, State, VolumeView, image_name};
use crate::runtime::cgroup::Membership;
use crate::spec::model::Project;

impl Supervisor {
    /// Looks at everything that a plan for `desired` depends on; at images only where the plan may create containers.
    pub(crate) fn observe(&self, desired: &Desired, with_images: bool) -> Result<Observed, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the state of the stack could not be read: {e}"));
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
        // Where nothing is mounted there is nothing to leave.
        let membership = Membership::detect().ok();
        Ok(Observed {
            // What runs a step of `pre_start` comes and goes with the container that it runs for.
            containers: self
                .containers()
                .iter()
                .filter(|c| c.record.prepares.is_none())
                .map(|c| (c.record.id.clone(), self.view(c, membership.as_ref())))
                .collect(),
            networks: self.networks_for(&desired.project, users)?,
            volumes: self.volumes_for(&desired.project)?,
            images: if with_images { self.image_ids(&desired.project)? } else { BTreeMap::new() },
            files: desired.objects.iter().map(|(key, content)| (key.clone(), digest(content))).collect(),
            foreign_names,
        })
    }

    /// The networks of this project and those that the file names.
    fn networks_for(
        &self,
        project: &Project,
        mut users: BTreeMap<String, BTreeSet<String>>,
    ) -> Result<BTreeMap<String, NetworkView>, Failure> {
        let named: BTreeSet<String> = project.networks.keys().map(|key| planner::network_name(project, key)).collect();
        let found = networks::list(&self.paths).map_err(|e| Failure::new(e.to_string()))?;
        let found: Vec<_> =
            found.into_iter().filter(|n| n.project == self.project || named.contains(&n.name)).collect();
        if found.is_empty() {
            return Ok(BTreeMap::new());
        }
        let bridges = self.host.bridges().map_err(|e| Failure::new(e.to_string()))?;
        let present: BTreeSet<String> = bridges.into_iter().map(|(name, _)| name).collect();
        let view = |network: networks::Network| {
            let view = NetworkView {
                present: present.contains(&network.bridge.name),
                id: network.id,
                key: network.key,
                hash: network.hash,
                definition: network.definition,
                owner: Some(network.project).filter(|owner| !owner.is_empty()),
                users: users.remove(&network.name).unwrap_or_default(),
            };
            (network.name, view)
        };
        Ok(found.into_iter().map(view).collect())
    }

    /// The volumes of this project and those that the file names; anonymous ones belong to their containers.
    fn volumes_for(&self, project: &Project) -> Result<BTreeMap<String, VolumeView>, Failure> {
        let named: BTreeSet<String> = project.volumes.keys().map(|key| planner::volume_name(project, key)).collect();
        let found = volumes::list(&self.paths).map_err(|e| Failure::new(e.to_string()))?;
        let ours = |v: &volumes::Volume| named.contains(&v.name) || (v.project == self.project && !v.key.is_empty());
        let view = |v: volumes::Volume| {
            let definition = serde_json::json!({"driver_opts": v.driver_opts});
            (v.name, VolumeView { hash: v.hash, definition, owner: Some(v.project).filter(|o| !o.is_empty()) })
        };
        Ok(found.into_iter().filter(|v| ours(v) && volumes::is_whole(&self.paths, v)).map(view).collect())
    }

    fn image_ids(&self, project: &Project) -> Result<BTreeMap<String, Option<String>>, Failure> {
        let mut ids = BTreeMap::new();
        for (name, service) in &project.services {
            if service.provider.is_some() {
                continue;
            }
            let reference = image_name(project, name, service);
            let image = self.store.find(&reference).map_err(|e| Failure::new(e.to_string()))?;
            ids.insert(name.clone(), image.map(|image| image.id.to_string()));
        }
        Ok(ids)
    }

    fn view(&self, container: &Container, membership: Option<&Membership>) -> ContainerView {
        let (record, state) = (&container.record, &container.state);
        let volume =
            |mount: &state::MountRecord| MountedVolume { name: mount.source.clone(), anonymous: mount.anonymous };
        // One that may leave by itself does so again.
        let may_leave = record.config.cgroup.as_deref() == Some("host");
        let confined = |membership: &Membership| membership.holds(&limits::group(&self.paths, record), state.pid);
        ContainerView {
            unconfined: state.pid > 0 && !may_leave && !membership.is_none_or(confined),
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
            prepared: state.prepared.clone(),
            health: match state.health {
                Health::None => None,
                Health::Starting => Some(planner::Health::Starting),
                Health::Healthy => Some(planner::Health::Healthy),
                Health::Unhealthy => Some(planner::Health::Unhealthy),
            },
            networks: record.endpoints.iter().map(|e| (e.network.clone(), e.network_id.clone())).collect(),
            volumes: record
                .mounts
                .iter()
                .filter(|m| m.kind == "volume")
                .map(|m| (m.target.clone(), volume(m)))
                .collect(),
            shares: record.shares.clone(),
            files: record.files.clone(),
        }
    }
}

/// SHA-256 of a content, in hexadecimal.
pub(crate) fn digest(content: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(content))
}
