//! What the user asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A verb, the services it is about and what holds for all verbs.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// What to do.
    pub verb: Verb,
    /// Services named by the user; empty = all.
    pub services: BTreeSet<String>,
    /// Services of the file that no active profile switches on: their containers are no orphans.
    pub disabled: BTreeSet<String>,
    /// Time between the stop signal and SIGKILL, instead of each service's own.
    pub timeout: Option<Duration>,
}

/// A command that changes a stack.
#[derive(Debug, Clone)]
pub enum Verb {
    /// `up`, `create`, `scale`: make what runs equal what the file says.
    Up(Up),
    /// `down`: remove containers and networks, on request more.
    Down(Down),
    /// `stop`: end what runs, dependents first.
    Stop,
    /// `start`: start the containers that exist, dependencies first.
    Start,
    /// `restart`: stop and start, with the dependents that asked for it.
    Restart {
        /// Leave dependents alone.
        no_deps: bool,
    },
    /// `kill`: send a signal.
    Kill {
        /// Name or number of the signal.
        signal: String,
    },
    /// `rm`: remove containers that don't run.
    Remove {
        /// Stop those that run first.
        stop: bool,
        /// Remove their anonymous volumes too.
        volumes: bool,
        /// Only these, by id, one-off ones among them; those of the services if empty.
        containers: BTreeSet<String>,
    },
    /// `pause`: freeze what runs.
    Pause,
    /// `unpause`: thaw what is frozen.
    Unpause,
}

impl Default for Verb {
    fn default() -> Self {
        Self::Up(Up::default())
    }
}

/// Options of `up` and its relatives.
#[derive(Debug, Clone, Default)]
pub struct Up {
    /// When to recreate the named services.
    pub recreate: Recreate,
    /// When to recreate the services that come along as dependencies.
    pub recreate_dependencies: Recreate,
    /// Leave dependencies alone.
    pub no_deps: bool,
    /// Start recreated containers with new anonymous volumes.
    pub renew_anonymous_volumes: bool,
    /// Make containers, start none.
    pub no_start: bool,
    /// Remove containers of services that the file doesn't have.
    pub remove_orphans: bool,
    /// Say nothing of such containers.
    pub ignore_orphans: bool,
    /// Number of containers by service, before what the file says.
    pub scale: BTreeMap<String, u32>,
    /// Keep volumes whose definition changed as they are, instead of making them anew without their data.
    pub keep_volumes: bool,
    /// Close with a step per service that waits until it is ready.
    pub wait: bool,
}

/// When a container is made anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recreate {
    /// When it differs from what the file says.
    #[default]
    Diverged,
    /// Always.
    Force,
    /// Never.
    Never,
}

/// Options of `down`.
#[derive(Debug, Clone, Default)]
pub struct Down {
    /// Remove the project's named volumes. Anonymous ones always go with their containers.
    pub volumes: bool,
    /// Remove containers of services that the file doesn't have, and one-off containers.
    pub remove_orphans: bool,
    /// Remove images.
    pub images: Option<Images>,
}

/// Images that `down --rmi` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Those without a name of their own (`image:`).
    Local,
    /// All.
    All,
}
