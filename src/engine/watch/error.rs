//! What can keep dev mode from working.

use std::io;
use std::path::PathBuf;

/// A reason that names the path or service, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gives no more watches.
    #[error("the limit of watched folders is used up, at {at} (fs.inotify.max_user_watches is {limit})")]
    Watches {
        /// The folder that could not be watched.
        at: PathBuf,
        /// The limit as it is.
        limit: String,
    },
    /// The kernel gives no more inotify instances.
    #[error("the limit of programs that watch files is used up (fs.inotify.max_user_instances is {0})")]
    Instances(String),
    /// A folder cannot be watched.
    #[error("cannot watch {path}: {source}")]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A rule is not as it must be.
    #[error("service `{service}`: develop.watch[{index}]: {message}")]
    Rule {
        /// The service.
        service: String,
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        message: String,
    },
    /// A `.dockerignore` that cannot be read.
    #[error("service `{service}`: {message}")]
    Ignore {
        /// The service.
        service: String,
        /// What is wrong.
        message: String,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Watches { .. } => Some(
                "raise it with `sysctl fs.inotify.max_user_watches=524288`, or leave folders out with `ignore` or a \
                 `.dockerignore`: ignored ones need no watch",
            ),
            Self::Instances(_) => Some("raise it with `sysctl fs.inotify.max_user_instances=512`"),
            _ => None,
        }
    }
}
