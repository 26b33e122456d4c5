//! What is known of a container: a folder below the root folder with the record, the configuration that it was made of
//! and the pipes that its start goes through.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::error::Error;
use crate::runtime::cgroup::{Group, Layout};
use crate::sys::{file, process};

/// The version of the specification that is spoken.
pub(crate) const VERSION: &str = "1.2.1";
const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
/// Written to once, to let the container's process go on to its program. It is there as long as nobody did.
const GO: &str = "go";

/// What is written down of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    /// Process 1 of the container, as the host numbers it; 0 while there is none.
    pub(crate) pid: i32,
    /// Its start in clock ticks since boot.
    pub(crate) start_time: u64,
    pub(crate) bundle: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    /// Path below each hierarchy of control groups.
    pub(crate) cgroup: String,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// About to be there.
    Creating,
    /// There, but for its program.
    Created,
    /// Its program runs.
    Running,
    /// Its program is held.
    Paused,
    /// Its program has ended.
    Stopped,
}

/// The state of a container as the specification writes it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Of the specification.
    pub oci_version: &'static str,
    /// Its name.
    pub id: String,
    /// What it is doing.
    pub status: Status,
    /// Process 1, as the host numbers it; 0 if it has ended.
    pub pid: i32,
    /// Where its configuration came from.
    pub bundle: PathBuf,
    /// Its root.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The user who made it.
    pub owner: String,
    /// What its configuration says beside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A container's folder, with what stands in it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) folder: PathBuf,
    pub(crate) record: Record,
    pub(crate) config: Config,
}

impl Container {
    /// Looks a container up.
    pub(crate) fn load(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let folder = root.join(id);
        let text = match fs::read_to_string(folder.join(RECORD)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Unknown(id.to_owned())),
            other => other?,
        };
        let record = serde_json::from_str(&text).map_err(|e| Error::Broken(folder.join(RECORD), e))?;
        let config = Config::parse(&fs::read_to_string(folder.join(CONFIG))?)
            .map_err(|e| Error::Broken(folder.join(CONFIG), e))?;
        Ok(Self { folder, record, config })
    }

    /// Makes the folder of a new one.
    pub(crate) fn new(root: &Path, record: Record, text: &str, config: Config) -> Result<Self, Error> {
        check_id(&record.id)?;
        fs::create_dir_all(root)?;
        let folder = root.join(&record.id);
        match rustix::fs::mkdir(&folder, rustix::fs::Mode::from(0o711)) {
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists(record.id)),
            other => other.map_err(|e| Error::Io(format!("make {}", folder.display()), e.into()))?,
        }
        let container = Self { folder, record, config };
        fs::write(container.folder.join(CONFIG), text)?;
        container.save()?;
        Ok(container)
    }

    /// Writes the record down.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(&self.record).map_err(|e| Error::Broken(self.folder.join(RECORD), e))?;
        Ok(file::write_atomic(&self.folder.join(RECORD), &text, false)?)
    }

    /// Forgets it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    /// What starts it.
    pub(crate) fn go(&self) -> PathBuf {
        self.folder.join(GO)
    }

    /// What says how its start went.
    pub(crate) fn outcome(&self) -> PathBuf {
        self.folder.join("outcome")
    }

    /// Its control groups.
    pub(crate) fn group(&self) -> Result<Group, Error> {
        let layout = Layout::every().map_err(|e| Error::Io("find the control groups".into(), e))?;
        Ok(Group::new(&layout.into(), &self.record.cgroup)?)
    }

    /// A descriptor of process 1, unless it has ended.
    pub(crate) fn process(&self) -> Option<OwnedFd> {
        let pid = self.record.pid;
        if pid == 0 {
            return None;
        }
        let pidfd = process::pidfd_open(pid).ok()?;
        let same = process::start_time(pid).is_ok_and(|start| start == self.record.start_time);
        (same && matches!(process::zombie_status(pid), Ok(None))).then_some(pidfd)
    }

    /// What it is doing.
    pub(crate) fn status(&self) -> Status {
        match self.process() {
            None if self.record.pid == 0 => Status::Creating,
            None => Status::Stopped,
            Some(_) if self.go().exists() => Status::Created,
            Some(_) if self.group().is_ok_and(|group| group.is_frozen()) => Status::Paused,
            Some(_) => Status::Running,
        }
    }

    /// Its state as the specification writes it.
    pub(crate) fn state(&self, status: Status) -> State {
        let record = &self.record;
        State {
            oci_version: VERSION,
            id: record.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            bundle: record.bundle.clone(),
            rootfs: self.config.root.as_ref().map(|root| record.bundle.join(&root.path)).unwrap_or_default(),
            created: record.created.clone(),
            owner: "root".to_owned(),
            annotations: self.config.annotations.clone(),
        }
    }

    /// Waits until process 1 has ended, that long at most; whether it has.
    pub(crate) fn await_end(&self, patience: std::time::Duration) -> bool {
        let Some(pidfd) = self.process() else { return true };
        let ended = process::await_end(pidfd.as_fd(), patience).unwrap_or(false);
        ended || self.process().is_none()
    }
}

/// Every container below a root folder.
pub(crate) fn all(root: &Path) -> Result<Vec<Container>, Error> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut ids: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    ids.sort_unstable();
    // One that vanishes meanwhile, or was never finished, isn't there.
    Ok(ids.iter().filter_map(|id| Container::load(root, id).ok()).collect())
}

fn check_id(id: &str) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > 1024 || matches!(id, "." | "..") || !id.bytes().all(known) {
        return Err(Error::Id(id.to_owned()));
    }
    Ok(())
}
