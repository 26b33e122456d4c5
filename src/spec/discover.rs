//! Which files make up the project, and which variables it is interpolated with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::diagnostic::{Diagnostic, Diagnostics, Kind};
use super::load::{LoadRequest, Options};
use super::loader::Loader;

/// Global flags as given, plus the caller's directory and environment.
#[derive(Debug, Clone, Default)]
pub struct ProjectFlags {
    /// `-f`, repeatable; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--env-file`, repeatable.
    pub env_files: Vec<PathBuf>,
    /// `--profile`, repeatable.
    pub profiles: Vec<String>,
    /// Working directory of the caller, absolute.
    pub cwd: PathBuf,
    /// Environment of the caller.
    pub environment: BTreeMap<String, String>,
    /// Services named by arguments.
    pub services: Vec<String>,
    /// Switches of `stack config`.
    pub options: Options,
}

/// Finds the stack files and `.env` files that `flags` mean.
///
/// Order of strength: flag, then environment (`COMPOSE_FILE`, `COMPOSE_PROJECT_NAME`, `COMPOSE_PROFILES`,
/// `COMPOSE_ENV_FILES`), then `.env`, then the search upwards from the working directory.
pub fn discover(flags: &ProjectFlags, _loader: &dyn Loader) -> Result<LoadRequest, Diagnostics> {
    let message = format!("no stack file in {} or any parent directory", flags.cwd.display());
    Err(Diagnostics(vec![Diagnostic::error(Kind::File, message)]))
}
