//! What is there: the planner's view of containers, networks, volumes and images.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::model::Service;

/// Everything the planner needs to know about the present state of one project.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Containers of this project by id, one-off containers included.
    pub containers: BTreeMap<String, ContainerView>,
    /// Networks by real name: those of this project and those that the project's file names.
    pub networks: BTreeMap<String, NetworkView>,
    /// Volumes by real name: those of this project and those that the project's file names.
    pub volumes: BTreeMap<String, VolumeView>,
    /// Id of the image that each service would run now; `None` = not in the store. A service that isn't listed is
    /// not compared.
    pub images: BTreeMap<String, Option<String>>,
    /// Digests of the contents of configs and secrets, by `config:<key>` and `secret:<key>`.
    pub files: BTreeMap<String, String>,
    /// Container names that other projects hold, with the project.
    pub foreign_names: BTreeMap<String, String>,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerView {
    /// Id.
    pub id: String,
    /// Name, unique on the machine.
    pub name: String,
    /// Service it belongs to.
    pub service: String,
    /// Number among the service's containers, from 1.
    pub number: u32,
    /// Made by `run`: not counted as a replica.
    pub oneoff: bool,
    /// [`config_hash`](crate::spec::hash::config_hash) of the service it was made from.
    pub config_hash: String,
    /// The resolved service it was made from: the ground for naming what changed.
    pub spec: Option<Service>,
    /// Id of its image.
    pub image: String,
    /// State of its main process.
    pub state: State,
    /// Its main process is not in its control group any more, or there is no such group.
    pub unconfined: bool,
    /// Steps of `pre_start` that have succeeded for it, by index.
    pub prepared: BTreeSet<usize>,
    /// Result of its health check; `None` = it has none.
    pub health: Option<Health>,
    /// Networks it is attached to: real name → id of the network it was attached to.
    pub networks: BTreeMap<String, String>,
    /// Volumes mounted in it, by target path.
    pub volumes: BTreeMap<String, MountedVolume>,
    /// Services whose namespaces or volumes it shares → id of the container it shares them with. What isn't listed is
    /// not compared.
    pub shares: BTreeMap<String, String>,
    /// Digests of its configs and secrets when it was made, keyed as in [`Observed::files`]. What isn't listed is not
    /// compared.
    pub files: BTreeMap<String, String>,
}

/// A volume as mounted in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountedVolume {
    /// Real name.
    pub name: String,
    /// Made for this container alone.
    pub anonymous: bool,
}

/// State of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Made, never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Between two attempts of its restart policy.
    Restarting,
    /// Ended.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// Broken: it can only be removed.
    Dead,
}

impl State {
    /// Whether a process exists or is about to: something that `stop` has to end.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether it runs or its restart policy will see to that.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }
}

/// Result of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No result yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many checks in a row failed.
    Unhealthy,
}

/// One network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Changes each time the network is made.
    pub id: String,
    /// Key in the file of its project.
    pub key: String,
    /// [`network_hash`](super::network_hash) of the definition it was made from.
    pub hash: String,
    /// [`network_definition`](super::network_definition) of that: the ground for naming what changed. Null = unknown.
    pub definition: Value,
    /// Project that made it; `None` = nobody known.
    pub owner: Option<String>,
    /// Its bridge exists. `false` is drift: the records are there, the kernel's object isn't.
    pub present: bool,
    /// Names of containers of other projects that are attached.
    pub users: BTreeSet<String>,
}

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeView {
    /// [`volume_hash`](super::volume_hash) of the definition it was made from.
    pub hash: String,
    /// [`volume_definition`](super::volume_definition) of that: the ground for naming what changed. Null = unknown.
    pub definition: Value,
    /// Project that made it; `None` = nobody known.
    pub owner: Option<String>,
}
