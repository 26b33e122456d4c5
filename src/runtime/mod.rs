//! The container runtime: from a [`Launch`], in which everything is decided, to a running process.
//!
//! * [`launch`] holds the types that say what to start; only descriptors and numbers are left to do.
//! * [`shim`] is the single-threaded process that is the parent of every container of a stack: it clones them, drains
//!   their output into log files and keeps what must survive its supervisor. [`shim::Client`] talks to it.
//! * `child` runs inside the clone, step by step, until the exec: mounts, devices, masks, user, capabilities, filter.
//! * [`cgroup`] makes, limits, kills and removes control groups (v1, v2, hybrid).
//! * [`oci`] carries out the command line of the runtime-spec: containers of bundles, without shim and supervisor.
//! * [`caps`], [`device`] and [`seccomp`] turn names into what the kernel takes.

pub mod caps;
pub mod cgroup;
mod child;
pub mod device;
pub mod error;
pub mod launch;
pub mod oci;
mod seccomp;
pub mod shim;
mod wire;

pub(crate) use child::user::resolve as resolve_user;
pub use error::{Error, LaunchError};
pub use launch::Launch;
pub use seccomp::check_profile;
