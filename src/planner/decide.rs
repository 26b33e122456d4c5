//! Judges what is there: which containers of a service stay, which are made anew, which go and which are missing.

use std::collections::BTreeMap;

use super::action::Cause;
use super::diff::{Change, changes};
use super::fates::{Fate, Fates};
use super::observed::{ContainerView, Observed, State};
use super::options::Recreate;
use super::{container_name, graph, is_named, network_name, volume_name};
use crate::spec::hash::config_hash;
use crate::spec::model::{MountKind, Project, Service};

/// What becomes of one service's containers.
#[derive(Debug, Default)]
pub(super) struct Decision<'a> {
    /// As they should be.
    pub(super) keep: Vec<&'a ContainerView>,
    /// To be made anew under the same number.
    pub(super) recreate: Vec<(&'a ContainerView, Cause)>,
    /// To be removed.
    pub(super) surplus: Vec<(&'a ContainerView, Cause)>,
    /// Numbers of containers to be made.
    pub(super) create: Vec<u32>,
    /// Why they are made.
    pub(super) create_cause: Option<Cause>,
}

impl Decision<'_> {
    /// The container that others share namespaces and volumes with.
    pub(super) fn first(&self) -> First<'_> {
        let kept = self.keep.iter().map(|container| (container.number, First::Existing(&container.id)));
        let made = self.recreate.iter().map(|(container, _)| (container.number, First::New));
        let new = self.create.iter().map(|number| (*number, First::New));
        kept.chain(made).chain(new).min_by_key(|(number, _)| *number).map_or(First::None, |(_, first)| first)
    }

    /// Whether containers are made.
    pub(super) fn makes(&self) -> bool {
        !self.create.is_empty() || !self.recreate.is_empty()
    }
}

/// A service's container with the lowest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First<'a> {
    /// It exists and stays; its id.
    Existing(&'a str),
    /// It is yet to be made.
    New,
    /// There is none.
    None,
}

impl<'a> First<'a> {
    /// The one observed now.
    pub(super) fn observed(observed: &'a Observed, service: &str) -> Self {
        let containers = observed.containers.values().filter(|found| found.service == service && !found.oneoff);
        let first = containers.min_by_key(|found| (found.number, &found.id));
        first.map_or(Self::None, |found| Self::Existing(&found.id))
    }
}

/// Why a container that shares namespaces or volumes has to be made anew.
pub(super) fn shared_changed<'a>(
    container: &ContainerView,
    service: &Service,
    first: impl Fn(&str) -> First<'a>,
) -> Option<Cause> {
    graph::shared(service).into_keys().find_map(|name| {
        let same = match first(name) {
            First::Existing(id) => container.shares.get(name).is_none_or(|shared| shared == id),
            First::New => false,
            First::None => true,
        };
        (!same).then(|| Cause::Dependency { service: name.to_owned() })
    })
}

/// What a service's containers should be.
pub(super) struct Desired<'a, 'f> {
    project: &'a Project,
    observed: &'a Observed,
    name: &'a str,
    service: &'a Service,
    hash: String,
    fates: &'f Fates,
}

impl<'a, 'f> Desired<'a, 'f> {
    pub(super) fn new(project: &'a Project, observed: &'a Observed, fates: &'f Fates, name: &'a str) -> Option<Self> {
        let (name, service) = project.services.get_key_value(name)?;
        Some(Self { project, observed, name, service, hash: config_hash(service), fates })
    }

    /// Number of containers that the file asks for.
    pub(super) fn replicas(&self) -> usize {
        let deployed = self.service.deploy.as_ref().and_then(|deploy| deploy.replicas);
        self.service.scale.or(deployed).map_or(1, |number| usize::try_from(number).unwrap_or(0))
    }

    /// Decides about the service's containers. `others` are the decisions about what it depends on.
    pub(super) fn decide(
        &self,
        containers: &[&'a ContainerView],
        expected: usize,
        policy: Recreate,
        others: &BTreeMap<&'a str, Decision<'a>>,
    ) -> Decision<'a> {
        let mut decision = Decision::default();
        let mut judged: Vec<(&ContainerView, Option<Cause>)> =
            containers.iter().map(|container| (*container, self.judge(container, policy, others))).collect();

        // Best first among those of the same number: unchanged, running, then any.
        judged.sort_by_key(|(container, verdict)| (container.number, verdict.is_some(), !container.state.is_active()));
        let mut last = None;
        judged.retain(|(container, _)| {
            let duplicate = last == Some(container.number);
            last = Some(container.number);
            if duplicate {
                decision.surplus.push((container, Cause::Duplicate));
            }
            !duplicate
        });

        if judged.len() > expected {
            let cause = Cause::Scale { from: count(containers.len()), to: count(expected) };
            // Those that would be made anew stay longest in this order, so they go first; then the highest numbers.
            judged.sort_by_key(|(container, verdict)| (verdict.is_some(), container.number));
            let gone = judged.split_off(expected).into_iter().rev();
            decision.surplus.extend(gone.map(|(container, _)| (container, cause.clone())));
            judged.sort_by_key(|(container, _)| container.number);
        }
        let missing = expected - judged.len();
        let highest = containers.iter().map(|container| container.number).max().unwrap_or(0);
        decision.create = (1..=count(missing)).map(|offset| highest + offset).collect();
        decision.create_cause = (missing > 0).then(|| match containers.len() {
            0 => Cause::Missing,
            some => Cause::Scale { from: count(some), to: count(expected) },
        });
        for (container, verdict) in judged {
            match verdict {
                Some(cause) => decision.recreate.push((container, cause)),
                None => decision.keep.push(container),
            }
        }
        decision
    }

    /// Why a container has to be made anew, if it has to.
    fn judge(
        &self,
        container: &ContainerView,
        policy: Recreate,
        others: &BTreeMap<&'a str, Decision<'a>>,
    ) -> Option<Cause> {
        if container.state == State::Dead {
            return Some(Cause::Dead);
        }
        match policy {
            Recreate::Never => return None,
            Recreate::Force => return Some(Cause::Forced),
            Recreate::Diverged => {}
        }
        self.config_changed(container)
            .or_else(|| self.image_changed(container))
            .or_else(|| self.file_changed(container))
            .or_else(|| self.network_changed(container))
            .or_else(|| self.volume_changed(container))
            .or_else(|| self.shared_changed(container, others))
    }

    fn config_changed(&self, container: &ContainerView) -> Option<Cause> {
        if !is_named(&container.name, self.project, self.name, self.service, container.number) {
            let name = container_name(self.project, self.name, self.service, container.number);
            let change = Change { path: "name".into(), from: Some(container.name.clone()), to: Some(name) };
            return Some(Cause::Config { changes: vec![change] });
        }
        if container.config_hash == self.hash {
            return None;
        }
        // Another version of this program may have hashed otherwise: what counts is a difference that can be named.
        let Some(spec) = &container.spec else { return Some(Cause::Config { changes: Vec::new() }) };
        let changes = changes(spec, self.service);
        (!changes.is_empty()).then_some(Cause::Config { changes })
    }

    fn image_changed(&self, container: &ContainerView) -> Option<Cause> {
        let image = self.observed.images.get(self.name)?.as_ref()?;
        (*image != container.image).then(|| Cause::Image { from: container.image.clone(), to: image.clone() })
    }

    fn file_changed(&self, container: &ContainerView) -> Option<Cause> {
        self.files().find_map(|(name, digest)| (container.files.get(&name)? != digest).then_some(Cause::File { name }))
    }

    /// Digests of the configs and secrets that the service mounts.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, &'a String)> {
        let configs = self.service.configs.iter().map(|mount| format!("config:{}", mount.source));
        let secrets = self.service.secrets.iter().map(|mount| format!("secret:{}", mount.source));
        configs.chain(secrets).filter_map(|name| self.observed.files.get(&name).map(|digest| (name, digest)))
    }

    fn network_changed(&self, container: &ContainerView) -> Option<Cause> {
        network_keys(self.project, self.service).find_map(|key| {
            let name = network_name(self.project, key);
            let replaced = matches!(self.fates.networks.get(key), Some(Fate::Create | Fate::Replace));
            let current = self.observed.networks.get(&name).map(|network| &network.id);
            let attached = current.is_some() && container.networks.get(&name) == current;
            (replaced || !attached && current.is_some()).then_some(Cause::Network { name, replaced })
        })
    }

    fn volume_changed(&self, container: &ContainerView) -> Option<Cause> {
        volume_mounts(self.project, self.service).find_map(|(target, key)| {
            let name = volume_name(self.project, key);
            let replaced = matches!(self.fates.volumes.get(key), Some(Fate::Create | Fate::Replace));
            let mounted = container.volumes.get(target).is_some_and(|volume| volume.name == name);
            (replaced || !mounted).then_some(Cause::Volume { name, replaced })
        })
    }

    fn shared_changed(&self, container: &ContainerView, others: &BTreeMap<&str, Decision<'_>>) -> Option<Cause> {
        shared_changed(container, self.service, |name| match others.get(name) {
            Some(decision) => decision.first(),
            None => First::observed(self.observed, name),
        })
    }
}

/// Keys of the networks that a service is attached to.
pub(super) fn network_keys<'a>(project: &'a Project, service: &'a Service) -> impl Iterator<Item = &'a str> {
    let default = service.networks.is_empty() && service.network_mode.is_none();
    let implied = default.then(|| project.networks.get_key_value("default")).flatten();
    let named = service.networks.keys().filter(|key| project.networks.contains_key(*key));
    named.map(String::as_str).chain(implied.map(|(key, _)| key.as_str()))
}

/// Target paths and keys of the named volumes that a service mounts.
pub(super) fn volume_mounts<'a>(
    project: &'a Project,
    service: &'a Service,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    service.volumes.iter().filter(|mount| mount.kind == MountKind::Volume).filter_map(|mount| {
        let (key, _) = project.volumes.get_key_value(mount.source.as_ref()?)?;
        Some((mount.target.as_str(), key.as_str()))
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
