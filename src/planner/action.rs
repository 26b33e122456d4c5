//! The vocabulary of plans: actions, their causes, and steps.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::diff::Change;
use super::observed::State;

/// A container that a step is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reference {
    /// Name of the container.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its id; `None` = the one that this plan's `CreateContainer` of the same name makes.
    pub id: Option<String>,
}

/// What becomes of the anonymous volumes of a container that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// They go with it.
    Remove,
    /// They stay, and nothing mounts them any more.
    Leave,
    /// The container that takes its place gets them.
    Bequeath,
}

/// The container that a new one takes the place of. It is gone by then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// Its id.
    pub id: String,
    /// Its anonymous volumes by target path, to be mounted in the new one.
    pub volumes: BTreeMap<String, String>,
}

/// One thing to do. Every action is idempotent: done twice it changes nothing more.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Make a network.
    CreateNetwork {
        /// Key in the file.
        key: String,
        /// Real name.
        name: String,
    },
    /// Make a network's kernel objects again and attach what runs on it.
    RepairNetwork {
        /// Key in the file.
        key: String,
        /// Real name.
        name: String,
    },
    /// Remove a network.
    RemoveNetwork {
        /// Real name.
        name: String,
    },
    /// Make a volume.
    CreateVolume {
        /// Key in the file.
        key: String,
        /// Real name.
        name: String,
    },
    /// Remove a volume and its data.
    RemoveVolume {
        /// Real name.
        name: String,
    },
    /// Make a container.
    CreateContainer {
        /// Service.
        service: String,
        /// Number among the service's containers.
        number: u32,
        /// Name.
        name: String,
        /// What it takes the place of.
        replaces: Option<Replaced>,
    },
    /// Run a step of `pre_start` for a container that has not started yet.
    Prepare {
        /// Which.
        container: Reference,
        /// Index of the step.
        step: usize,
    },
    /// Start a container.
    StartContainer {
        /// Which.
        container: Reference,
    },
    /// Stop a container: its stop signal, then SIGKILL.
    StopContainer {
        /// Which.
        container: Reference,
        /// Time between the two; `None` = the container's own.
        timeout: Option<Duration>,
    },
    /// Remove a container that doesn't run.
    RemoveContainer {
        /// Which.
        container: Reference,
        /// What becomes of its anonymous volumes.
        anonymous: Anonymous,
    },
    /// Send a signal to a container.
    KillContainer {
        /// Which.
        container: Reference,
        /// Name or number of the signal.
        signal: String,
    },
    /// Freeze a container.
    PauseContainer {
        /// Which.
        container: Reference,
    },
    /// Thaw a container.
    UnpauseContainer {
        /// Which.
        container: Reference,
    },
    /// Wait until all containers of a service have reached a goal.
    WaitFor {
        /// Service.
        service: String,
        /// Its containers.
        containers: Vec<Reference>,
        /// What to wait for.
        goal: Goal,
        /// `false`: a failure is a warning, and what waits goes on.
        required: bool,
    },
    /// Remove an image.
    RemoveImage {
        /// Service that names it.
        service: String,
        /// Reference.
        image: String,
    },
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The health check passed.
    Healthy,
    /// It ended with exit code 0.
    Completed,
    /// It runs and, where it has a health check, that passed; or it ended with exit code 0 and isn't restarted.
    Ready,
}

/// Why a step is taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// It doesn't exist yet.
    Missing,
    /// The user asked for exactly this.
    Requested,
    /// It should run and doesn't.
    NotRunning {
        /// State it was found in.
        state: State,
    },
    /// The number of containers changed.
    Scale {
        /// Containers there are.
        from: u32,
        /// Containers there should be.
        to: u32,
    },
    /// The definition changed.
    Config {
        /// Attribute by attribute; empty when the old definition isn't known.
        changes: Vec<Change>,
    },
    /// The image changed.
    Image {
        /// Id of the old one.
        from: String,
        /// Id of the new one.
        to: String,
    },
    /// The content of a config or secret changed.
    File {
        /// `config:<key>` or `secret:<key>`.
        name: String,
    },
    /// It isn't attached to a network as it should be.
    Network {
        /// Real name of the network.
        name: String,
        /// The network itself is made anew.
        replaced: bool,
    },
    /// It doesn't have a volume that it should have.
    Volume {
        /// Real name of the volume.
        name: String,
        /// The volume itself is made anew.
        replaced: bool,
    },
    /// A service it depends on is made anew or restarted.
    Dependency {
        /// That service.
        service: String,
    },
    /// `--force-recreate`.
    Forced,
    /// It is broken.
    Dead,
    /// The file doesn't have its service.
    Orphan,
    /// Another container has the same number.
    Duplicate,
    /// Its kernel objects are gone.
    Drift,
    /// Its process is not in its control group, so its limits don't hold.
    Unconfined,
    /// Something else depends on this having happened.
    Needed,
}

/// One node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// Why.
    pub cause: Cause,
    /// Data may be lost that nothing can bring back.
    pub destructive: bool,
}

impl Action {
    /// The service it is about, if it is about one.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::CreateContainer { service, .. }
            | Self::WaitFor { service, .. }
            | Self::RemoveImage { service, .. } => Some(service),
            _ => self.container().map(|container| container.service.as_str()),
        }
    }

    /// The existing or planned container it is about; `None` for `CreateContainer`, which makes one.
    pub fn container(&self) -> Option<&Reference> {
        match self {
            Self::Prepare { container, .. }
            | Self::StartContainer { container }
            | Self::StopContainer { container, .. }
            | Self::RemoveContainer { container, .. }
            | Self::KillContainer { container, .. }
            | Self::PauseContainer { container }
            | Self::UnpauseContainer { container } => Some(container),
            _ => None,
        }
    }
}
