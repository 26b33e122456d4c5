//! Judges networks and volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{network_keys, volume_mounts};
use super::observed::{ContainerView, Observed};
use super::options::{PlanOptions, Recreate, Up};
use super::plan::{Problem, Warning};
use super::{network_hash, network_name, volume_hash, volume_name};
use crate::spec::model::Project;

/// What becomes of a network or volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is as it should be, or isn't ours to change.
    Keep,
    /// It doesn't exist.
    Create,
    /// Its kernel objects are gone.
    Repair,
    /// Its definition changed.
    Replace,
}

/// The fates of the networks and volumes that services use, by key.
#[derive(Debug, Default)]
pub(super) struct Fates {
    pub(super) networks: BTreeMap<String, Fate>,
    pub(super) volumes: BTreeMap<String, Fate>,
    pub(super) problems: BTreeSet<Problem>,
    pub(super) warnings: BTreeSet<Warning>,
}

impl Fates {
    /// Judges what the services of `scope` use.
    pub(super) fn judge<'a>(
        project: &Project,
        observed: &Observed,
        options: &PlanOptions,
        asked: &Up,
        scope: impl Iterator<Item = &'a String>,
    ) -> Self {
        let mut fates = Self::default();
        for name in scope {
            let Some(service) = project.services.get(name) else { continue };
            for key in network_keys(project, service) {
                if !fates.networks.contains_key(key) {
                    let fate = fates.network(project, observed, asked, key);
                    fates.networks.insert(key.to_owned(), fate);
                }
            }
            for (_, key) in volume_mounts(project, service) {
                if !fates.volumes.contains_key(key) {
                    let fate = fates.volume(project, observed, options, asked, key);
                    fates.volumes.insert(key.to_owned(), fate);
                }
            }
        }
        fates
    }

    fn network(&mut self, project: &Project, observed: &Observed, asked: &Up, key: &str) -> Fate {
        let network = &project.networks[key];
        let name = network_name(project, key);
        let Some(found) = observed.networks.get(&name) else {
            if !network.external {
                return Fate::Create;
            }
            self.problems.insert(Problem::MissingNetwork { name });
            return Fate::Keep;
        };
        if network.external {
            return if found.present { Fate::Keep } else { Fate::Repair };
        }
        if found.owner.as_ref() != Some(&project.name) {
            self.warnings.insert(Warning::ForeignNetwork { name });
            return Fate::Keep;
        }
        if found.hash != network_hash(network) {
            if found.users.is_empty() && asked.recreate != Recreate::Never {
                return Fate::Replace;
            }
            self.warnings.insert(if found.users.is_empty() {
                Warning::KeptAsIs { name }
            } else {
                Warning::NetworkInUse { name, containers: found.users.iter().cloned().collect() }
            });
        }
        if found.present { Fate::Keep } else { Fate::Repair }
    }

    fn volume(&mut self, project: &Project, observed: &Observed, options: &PlanOptions, asked: &Up, key: &str) -> Fate {
        let volume = &project.volumes[key];
        let name = volume_name(project, key);
        let Some(found) = observed.volumes.get(&name) else {
            if !volume.external {
                return Fate::Create;
            }
            self.problems.insert(Problem::MissingVolume { name });
            return Fate::Keep;
        };
        if volume.external || found.hash == volume_hash(volume) {
            return Fate::Keep;
        }
        if found.owner.as_ref() != Some(&project.name) {
            self.warnings.insert(Warning::ForeignVolume { name });
            return Fate::Keep;
        }
        let goes = |container: &ContainerView| {
            let orphan = is_orphan(project, options, container);
            if orphan {
                asked.remove_orphans
            } else {
                project.services.contains_key(&container.service) && !container.oneoff
            }
        };
        let held = observed.containers.values().any(|container| mounts(container, &name) && !goes(container));
        if held || asked.keep_volumes || asked.recreate == Recreate::Never {
            self.warnings.insert(Warning::KeptAsIs { name });
            return Fate::Keep;
        }
        Fate::Replace
    }

    /// Real names of the networks that are made anew.
    pub(super) fn replaced_networks(&self, project: &Project) -> BTreeSet<String> {
        replaced(&self.networks).map(|key| network_name(project, key)).collect()
    }

    /// Real names of the volumes that are made anew.
    pub(super) fn replaced_volumes(&self, project: &Project) -> BTreeSet<String> {
        replaced(&self.volumes).map(|key| volume_name(project, key)).collect()
    }
}

fn replaced(fates: &BTreeMap<String, Fate>) -> impl Iterator<Item = &String> {
    fates.iter().filter(|(_, fate)| **fate == Fate::Replace).map(|(key, _)| key)
}

/// Whether a container mounts a volume.
pub(super) fn mounts(container: &ContainerView, volume: &str) -> bool {
    container.volumes.values().any(|mounted| mounted.name == volume)
}

/// Whether a container belongs to no service of the file; of one-off containers, only those that have ended.
pub(super) fn is_orphan(project: &Project, options: &PlanOptions, container: &ContainerView) -> bool {
    if container.oneoff {
        return !container.state.is_active();
    }
    !project.services.contains_key(&container.service) && !options.disabled.contains(&container.service)
}
