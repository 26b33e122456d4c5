//! Volumes: a folder with a description beside its data.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::control::Failure;
use super::paths::Paths;
use super::state::{self, VERSION, read_json};
use crate::planner;
use crate::spec;
use crate::spec::model::{MountKind, Project, Service, VolumeMount};
use crate::sys::file::write_atomic;
use crate::sys::mount;

/// A volume's description, `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Version of this file.
    pub version: u32,
    /// Real name.
    pub name: String,
    /// Project that made it; empty if none did.
    pub project: String,
    /// Key in the project's file; empty for an anonymous volume.
    pub key: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`type`, `o`, `device`).
    pub driver_opts: BTreeMap<String, String>,
    /// Hash of its definition.
    pub hash: String,
    /// Time of creation.
    pub created: Timestamp,
    /// Container that an anonymous volume was made for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub made_for: String,
    /// While its container is gone and the one in its place isn't there yet: that place, and where to mount it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heir: Option<(String, String)>,
    /// What an anonymous volume was filled with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
}

/// What an anonymous volume was filled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Id of the image.
    pub image: String,
    /// The latest change of anything in it by then.
    pub changed: Timestamp,
}

/// The description of a project's volume.
pub fn described(project: &Project, key: &str, wanted: &spec::model::Volume) -> Volume {
    let mut labels = wanted.labels.clone();
    labels.insert("com.docker.compose.project".to_owned(), project.name.clone());
    labels.insert("com.docker.compose.volume".to_owned(), key.to_owned());
    labels.insert("com.docker.compose.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Volume {
        version: VERSION,
        name: planner::volume_name(project, key),
        project: project.name.clone(),
        key: key.to_owned(),
        labels,
        driver_opts: wanted.driver_opts.clone(),
        hash: planner::volume_hash(wanted),
        created: Timestamp::now(),
        made_for: String::new(),
        heir: None,
        seed: None,
    }
}

/// The description of a volume that belongs to no project.
pub fn unowned(name: &str) -> Volume {
    Volume {
        version: VERSION,
        name: name.to_owned(),
        project: String::new(),
        key: String::new(),
        labels: BTreeMap::new(),
        driver_opts: BTreeMap::new(),
        hash: planner::volume_hash(&spec::model::Volume::default()),
        created: Timestamp::now(),
        made_for: String::new(),
        heir: None,
        seed: None,
    }
}

/// Refuses a bind mount whose source is missing and shall not be made.
pub(crate) fn check_sources(name: &str, service: &Service) -> Result<(), Failure> {
    let must_exist = |mount: &VolumeMount| {
        mount.kind == MountKind::Bind && mount.bind.as_ref().is_some_and(|bind| bind.create_host_path == Some(false))
    };
    for (index, mount) in service.volumes.iter().enumerate().filter(|(_, mount)| must_exist(mount)) {
        let source = mount.source.as_deref().unwrap_or_default();
        if !Path::new(source).exists() {
            let message = format!("service {name}: the host path {source} to mount at {} does not exist", mount.target);
            return Err(Failure::new(message)
                .hint("make it, or leave out `create_host_path: false` to have it made as an empty folder")
                .about(name, &["volumes", &index.to_string(), "source"]));
        }
    }
    Ok(())
}

/// Makes a volume unless it is there.
pub fn ensure(paths: &Paths, volume: &Volume) -> io::Result<()> {
    let folder = paths.volume(&volume.name);
    if folder.is_dir() {
        fs::create_dir_all(folder.join("_data"))?;
        return if folder.join("meta.json").exists() { Ok(()) } else { write(paths, volume) };
    }
    // It appears whole or not at all.
    let part = paths.volumes().join(part_name(&volume.project, &volume.name));
    fs::create_dir_all(part.join("_data"))?;
    write_atomic(&part.join("meta.json"), &serde_json::to_vec(volume)?, true)?;
    fs::rename(part, folder)
}

/// The folder of a project's volume that isn't whole yet.
fn part_name(project: &str, name: &str) -> String {
    format!(".{project}.{name}")
}

/// Removes the volumes of a project that a crash kept from becoming whole.
pub(crate) fn sweep(paths: &Paths, project: &str) -> io::Result<()> {
    for entry in entries(paths)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&part_name(project, "")) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn entries(paths: &Paths) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let found = match fs::read_dir(paths.volumes()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    Ok(found.into_iter().flatten())
}

/// Writes a volume's description.
pub(crate) fn write(paths: &Paths, volume: &Volume) -> io::Result<()> {
    let text = serde_json::to_vec(&Volume { version: VERSION, ..volume.clone() })?;
    write_atomic(&paths.volume(&volume.name).join("meta.json"), &text, true)
}

/// A volume by name.
pub fn find(paths: &Paths, name: &str) -> io::Result<Option<Volume>> {
    read_json(&paths.volume(name).join("meta.json"))
}

/// All volumes, by name.
pub fn list(paths: &Paths) -> io::Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for entry in entries(paths)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with('.') {
            volumes.extend(find(paths, &name.to_string_lossy())?);
        }
    }
    volumes.sort_by(|a: &Volume, b| a.name.cmp(&b.name));
    Ok(volumes)
}

/// Anonymous volumes that no container has, nor will have in the place of another. Nobody may be making containers meanwhile.
pub fn orphans(paths: &Paths) -> io::Result<Vec<Volume>> {
    let records = state::all_records(paths)?;
    let mounted =
        |volume: &Volume| records.iter().flat_map(|record| &record.mounts).any(|mount| mount.source == volume.name);
    let mut volumes = list(paths)?;
    volumes.retain(|volume| {
        let anonymous = volume.key.is_empty() && !volume.project.is_empty() && volume.heir.is_none();
        anonymous && !mounted(volume)
    });
    Ok(volumes)
}

/// Removes a volume and its data.
pub fn remove(paths: &Paths, name: &str) -> io::Result<()> {
    match fs::remove_dir_all(paths.volume(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether a volume still has its folder, if its data lies in one of its own.
pub(crate) fn is_whole(paths: &Paths, volume: &Volume) -> bool {
    volume.driver_opts.contains_key("device") || data(paths, volume).is_dir()
}

/// Where a volume's data lies: its own folder, or with `o: bind` where its `device` says.
pub fn data(paths: &Paths, volume: &Volume) -> PathBuf {
    match volume.driver_opts.get("device") {
        Some(device) if is_bind(volume) => device.into(),
        _ => paths.volume(&volume.name).join("_data"),
    }
}

fn is_bind(volume: &Volume) -> bool {
    let options = volume.driver_opts.get("o").map_or("", String::as_str);
    options.split(',').any(|option| matches!(option, "bind" | "rbind"))
}

/// The file system that the driver options ask for, as a detached mount; none for a volume that is a folder.
pub fn mount(volume: &Volume) -> io::Result<Option<OwnedFd>> {
    let Some(kind) = volume.driver_opts.get("type").filter(|kind| *kind != "none" && !is_bind(volume)) else {
        return Ok(None);
    };
    let options = volume.driver_opts.get("o").map_or("", String::as_str);
    let mut parsed: Vec<(&str, Option<&str>)> = options
        .split(',')
        .filter(|option| !matches!(*option, "" | "rw" | "defaults"))
        .map(|option| option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value))))
        .collect();
    parsed.extend(volume.driver_opts.get("device").map(|device| ("source", Some(device.as_str()))));
    mount::new(kind, &parsed, 0).map(Some)
}

/// Whether the data folder has no entry yet, so that an image's content may be copied into it.
pub fn is_empty(folder: &std::path::Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}
