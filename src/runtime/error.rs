//! Errors of the runtime.

use std::io;

use serde::{Deserialize, Serialize};

/// A container or exec that didn't come to life.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct LaunchError {
    /// The step that failed, e.g. `mount /data` or `exec`.
    pub step: String,
    /// The whole message: what failed, on what, why.
    pub message: String,
    /// The kernel's error number; 0 if none.
    pub errno: i32,
    /// Exit code by Docker's convention: 127 not found, 126 can't be executed, 125 everything else.
    pub code: i32,
}

impl LaunchError {
    /// A failure of `step` with the kernel's reason.
    pub fn new(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let (step, error) = (step.into(), error.into());
        let message = format!("{step}: {error}");
        Self { step, message, errno: error.raw_os_error().unwrap_or(0), code: 125 }
    }

    /// A failure of `step` that isn't the kernel's word.
    pub fn refused(step: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        let step = step.into();
        let message = format!("{step}: {reason}");
        Self { step, message, errno: 0, code: 125 }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with_code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }
}

/// What can go wrong between a supervisor and its containers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container or exec failed to start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// No such container.
    #[error("the shim knows no container `{0}`")]
    Unknown(String),
    /// The container is in the wrong state for that.
    #[error("container `{id}` is {state}")]
    State {
        /// The container.
        id: String,
        /// What it is, e.g. `not running`.
        state: String,
    },
    /// An unknown capability.
    #[error("`{0}` is not a Linux capability; see capabilities(7) for the names")]
    Capability(String),
    /// The shim couldn't be started.
    #[error("can't start the shim in {path}: {source}")]
    Spawn {
        /// The run directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The connection to the shim broke.
    #[error("lost the connection to the shim: {0}")]
    Connection(#[source] io::Error),
    /// The shim couldn't do it.
    #[error("{0}")]
    Shim(String),
}
