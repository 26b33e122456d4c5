//! Docker's volumes, read where Docker keeps them; Docker itself is not asked, and need not run.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::paths::Paths;
use super::state::read_json;
use super::volumes::{self, Volume};
use crate::images::{self, Owner, Spot};
use crate::sys::file::write_atomic;

/// Begins the names of volumes that are still being copied; no volume has such a name.
const PART: &str = ".import-";

/// Why a volume can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Docker has no such volume.
    #[error("Docker has no volume {name} below {}", .root.display())]
    Missing {
        /// The volume.
        name: String,
        /// Docker's folder.
        root: PathBuf,
    },
    /// Docker mounts the volume from elsewhere.
    #[error(
        "Docker's volume {0} has driver options: its data lies elsewhere; give the stack file's volume the same options"
    )]
    Elsewhere(String),
    /// A running container writes to the volume.
    #[error("Docker's volume {name} is in use by the running container {}: its data may change while it is copied", .containers.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Names of the containers.
        containers: Vec<String>,
    },
    /// There is a volume of that name.
    #[error("there is a volume {0} already")]
    Exists(String),
    /// A file can't be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The copy failed.
    #[error(transparent)]
    Copy(#[from] images::Error),
}

/// What matters here of a container's `config.v2.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: String,
    state: State,
    #[serde(default)]
    mount_points: std::collections::BTreeMap<String, MountPoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    pid: i32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MountPoint {
    #[serde(default)]
    name: String,
}

/// Copies Docker's volume of this name into `volume`, which must not exist: owners, modes, times, attributes, hard
/// links and holes are kept. With `force` also while a container writes to it.
pub fn import(paths: &Paths, docker: &Path, name: &str, volume: &Volume, force: bool) -> Result<(), Error> {
    let source = docker.join("volumes").join(name);
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    if !plain || !source.join("_data").is_dir() {
        return Err(Error::Missing { name: name.to_owned(), root: docker.to_owned() });
    }
    if source.join("opts.json").exists() {
        return Err(Error::Elsewhere(name.to_owned()));
    }
    let containers = users(docker, name)?;
    if !containers.is_empty() && !force {
        return Err(Error::InUse { name: name.to_owned(), containers });
    }
    let target = paths.volume(&volume.name);
    if volumes::find(paths, &volume.name)?.is_some() {
        return Err(Error::Exists(volume.name.clone()));
    }
    let part = paths.volumes().join(format!("{PART}{}", volume.name));
    match fs::remove_dir_all(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => fs::create_dir_all(&part)?,
    }
    let copied = copy(&source, &part).and_then(|()| {
        write_atomic(&part.join("meta.json"), &serde_json::to_vec(volume).map_err(io::Error::from)?, true)?;
        Ok(fs::rename(&part, target)?)
    });
    if copied.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    copied
}

fn copy(source: &Path, part: &Path) -> Result<(), Error> {
    let (from, to) = (open(source)?, open(part)?);
    let spot = |folder| Spot { folder, name: b"_data" };
    images::copy(spot(from.as_fd()), spot(to.as_fd()), Owner::Same)?;
    let data = fs::File::open(part.join("_data"))?;
    Ok(rustix::fs::syncfs(data.file()).map_err(io::Error::from)?)
}

fn open(folder: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Names of the running containers that mount a volume. After a crash of Docker one may be listed that is gone.
fn users(docker: &Path, name: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(docker.join("containers")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut users = Vec::new();
    for entry in entries {
        let Some(container) = read_json::<Container>(&entry?.path().join("config.v2.json"))? else { continue };
        let State { running, pid } = container.state;
        let alive = running && Path::new("/proc").join(pid.to_string()).exists();
        if alive && container.mount_points.values().any(|mount| mount.name == name) {
            users.push(container.name.trim_start_matches('/').to_owned());
        }
    }
    users.sort();
    Ok(users)
}
