//! What can go wrong with a container of the command line `oci`.

use std::io;
use std::path::PathBuf;

use super::state::Status;
use crate::runtime::error::LaunchError;

/// Why something asked for was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container.
    #[error("container `{0}` does not exist")]
    Unknown(String),
    /// Its name is taken.
    #[error("container `{0}` exists already; delete it first, or choose another id")]
    Exists(String),
    /// No name for a container.
    #[error("{0:?} is no container id: letters, digits and `_+-.` are, up to 1,024 of them")]
    Id(String),
    /// The container is in the wrong state for that.
    #[error("cannot {what} container `{id}`: it is {}", .status.name())]
    State {
        /// What was asked for.
        what: &'static str,
        /// The container.
        id: String,
        /// What it is doing.
        status: Status,
    },
    /// The configuration can't be obeyed.
    #[error("config.json: {0}")]
    Config(String),
    /// A file is not what it should be.
    #[error("{path}: {1}", path = .0.display())]
    Broken(PathBuf, #[source] serde_json::Error),
    /// A hook failed.
    #[error("{kind} hook {index} ({path}) {reason}")]
    Hook {
        /// Its moment.
        kind: &'static str,
        /// Its place in the list, from 0.
        index: usize,
        /// Its program.
        path: String,
        /// How.
        reason: String,
    },
    /// The container's process could not be made.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A file of the runtime's own.
    #[error(transparent)]
    File(#[from] io::Error),
    /// The machine refused something.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created => "created, but not started",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Says what was being done.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Io(what(), error.into()))
    }
}
