//! Containers of bundles, by the command line of the runtime-spec: what containerd, podman and conformance suites drive.
//!
//! There is neither shim nor supervisor: `create` clones the container's process, which waits until `start` writes to a
//! pipe in the container's folder, and then becomes its program. All that outlives a command stands in that folder.
//!
//! * `config`, `linux` and `resources` are `config.json`, parsed; `check` judges it, `options` reads mount options.
//! * `state` is a container's folder and what it is doing; `hook` runs programs at moments of its life.
//! * `create` is the outer side of making one: `trees` takes mounts of the host, `namespaces` says what to enter, `group`
//!   and `limits` are its control groups, `send` hands descriptors to others.
//! * `inside` is the inner side: `mounts`, `devices`, `guard`, `console` and `identity` are its steps.
//! * `start`, `end`, `exec`, `update` and `list` are what else can be done with one; `features` says what there is.

mod check;
mod config;
mod console;
mod create;
mod devices;
mod end;
mod error;
mod exec;
mod features;
mod group;
mod guard;
mod hook;
mod identity;
mod inside;
mod limits;
mod linux;
mod list;
mod mounts;
mod namespaces;
mod options;
mod resources;
mod send;
mod start;
mod state;
mod trees;
mod update;

use std::path::PathBuf;

pub use create::{Create, Created};
pub use error::Error;
pub use exec::{Exec, Executed};
pub use features::features;
pub use state::{State, Status};

/// Containers below a folder. The process must have one thread only.
#[derive(Debug, Clone)]
pub struct Oci {
    root: PathBuf,
}

impl Oci {
    /// Those below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }
}
