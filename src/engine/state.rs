//! What is written down about containers: a record made once, and a run state replaced at every change.
//!
//! Readers take no lock: each file is replaced atomically.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::paths::Paths;
use crate::images::{self, Digest};
use crate::runtime::launch::{Ids, Process};
use crate::spec::model::{Healthcheck, Service};
use crate::sys::file::write_atomic;

/// Version of both kinds of file; a file of a later version is refused.
pub const VERSION: u32 = 1;

/// What was decided when a container was created. Never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Name, unique among all containers of this root.
    pub name: String,
    /// Project.
    pub project: String,
    /// Service.
    pub service: String,
    /// Number within the service, from 1.
    pub number: u32,
    /// Made by `run`.
    pub oneoff: bool,
    /// Id of the container that it runs a step of `pre_start` for.
    #[serde(default)]
    pub prepares: Option<String>,
    /// Image as the file names it.
    pub image: String,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// The process, everything about it decided; what later runs in the container starts from it, too.
    pub process: Process,
    /// Time of creation.
    pub created: Timestamp,
    /// Labels, those of `com.docker.compose.*` included.
    pub labels: BTreeMap<String, String>,
    /// Hash of the resolved service.
    pub config_hash: String,
    /// Digests of the contents of its secrets and configs, by `secret:<key>` and `config:<key>`.
    pub files: BTreeMap<String, String>,
    /// Services whose namespaces or volumes it shares, with the container it shares them with.
    pub shares: BTreeMap<String, String>,
    /// The resolved service.
    pub config: Service,
    /// The effective health check, the image's merged in; none if disabled.
    pub healthcheck: Option<Healthcheck>,
    /// Signal that asks it to end.
    pub stop_signal: i32,
    /// Host name.
    pub hostname: String,
    /// Services or containers whose namespaces it joins.
    pub joins: Joins,
    /// Networks in order of attachment.
    pub endpoints: Vec<Endpoint>,
    /// Mounts of volumes, binds and memory.
    pub mounts: Vec<MountRecord>,
    /// Its user namespace.
    #[serde(default)]
    pub user_namespace: UserNamespace,
}

impl Record {
    /// Id of the container whose log has its output: a step of `pre_start` writes into that of the container it runs for.
    pub fn log_id(&self) -> &str {
        self.prepares.as_deref().unwrap_or(&self.id)
    }
}

/// The user namespace of a container: one with the stack's own ids, or the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserNamespace {
    /// The ids of its own; none is the host's.
    pub ids: Option<Ids>,
    /// Why it is the host's.
    pub reason: Option<String>,
    /// The service asked for one of its own.
    pub fallback: bool,
}

/// An attachment to a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Key in the file.
    pub key: String,
    /// Real name of the network.
    pub network: String,
    /// Id of the network, which tells it from an earlier one of that name.
    pub network_id: String,
    /// Bridge.
    pub bridge: String,
    /// Interface inside.
    pub ifname: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Default routes that go through this network, at most one of each address family.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Further addresses that no name leads to, with prefix length.
    #[serde(default)]
    pub link_local: Vec<String>,
    /// MAC address.
    pub mac: String,
    /// Names on this network.
    pub aliases: Vec<String>,
    /// Whether the network has no way out.
    pub internal: bool,
    /// Whether the network was made by another project, or by hand.
    #[serde(default)]
    pub foreign: bool,
    /// Those of its addresses at which other machines reach it directly, on the ports that it publishes.
    #[serde(default)]
    pub routed: Vec<IpAddr>,
    /// Kernel settings of the interface: names below `net` with `IFNAME` in the place of its own, and their values.
    #[serde(default)]
    pub settings: Vec<(String, String)>,
}

/// A mount, as `ps` and `inspect` show it and as the next container inherits it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountRecord {
    /// bind, volume, tmpfs or image.
    pub kind: String,
    /// Volume name or host path.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// A volume without a name of its own.
    pub anonymous: bool,
    /// Folder inside the volume or image.
    pub subpath: Option<String>,
    /// Leave an empty volume empty.
    pub nocopy: bool,
    /// Make a missing host path.
    pub create_host_path: bool,
    /// Propagation of a bind.
    pub propagation: Option<String>,
    /// What happens to mounts below a bind's source: `disabled` leaves them out, `writable` keeps them from being read-only
    /// with it; anything else takes them along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<String>,
    /// Size of a memory file system in bytes.
    pub size: Option<u64>,
    /// Mode of a memory file system's root.
    pub mode: Option<u32>,
    /// Owner of a memory file system's root.
    pub uid: u32,
    /// Group of a memory file system's root.
    pub gid: u32,
}

/// Namespaces that are not the container's own: `host`, the id of the container it joins, or (networks only) `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Joins {
    /// Network.
    pub net: Option<String>,
    /// Processes.
    pub pid: Option<String>,
    /// System V IPC and `/dev/shm`.
    pub ipc: Option<String>,
    /// Host name.
    pub uts: Option<String>,
    /// Control groups.
    pub cgroup: Option<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended, and will be started again.
    Restarting,
    /// Ended.
    Exited,
    /// Could not be removed whole.
    Dead,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        })
    }
}

/// Outcome of the health checks so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No check.
    #[default]
    None,
    /// Not decided yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many checks failed in a row.
    Unhealthy,
}

/// A published port as it really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Address on the host.
    pub host_ip: String,
    /// Port on the host; 0: the container answers at its own address.
    pub host_port: u16,
    /// Port in the container.
    pub target: u16,
    /// tcp or udp.
    pub protocol: String,
}

/// What a container does now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    /// Version of this file.
    pub version: u32,
    /// The boot in which this was written; of another boot, nothing here runs any more.
    pub boot_id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Process 1 of the container, as the host numbers it.
    pub pid: i32,
    /// Its start time in clock ticks since boot, which tells it from a later process of the same number.
    pub start_time: u64,
    /// Steps of `pre_start` that have succeeded for it, by index.
    pub prepared: BTreeSet<usize>,
    /// Last start.
    pub started: Option<Timestamp>,
    /// Last end.
    pub finished: Option<Timestamp>,
    /// Exit code of the last run; 128+n for signal n.
    pub exit_code: i32,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Why it could not start.
    pub error: Option<String>,
    /// Health.
    pub health: Health,
    /// Published ports.
    pub ports: Vec<Published>,
    /// Restarts by policy since the last start by command.
    pub restarts: u32,
    /// Short runs in a row, which space restarts.
    pub backoff: u32,
    /// The last health check that failed, while no later one has passed.
    pub probe: Option<Probe>,
    /// What it waits for to be ready, where `x-stack.ready` says that; none once it is.
    pub waits_for: Option<String>,
    /// What it listens on, as far as its sockets are kept.
    pub listens: Vec<SocketAddr>,
    /// It listened before it was started again.
    pub listened: bool,
    /// A command stopped it: no policy starts it again.
    pub stopped_by_user: bool,
}

/// A health check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it ended.
    pub at: Timestamp,
    /// Its exit code; none if it took too long.
    pub code: Option<i32>,
    /// The beginning of what it wrote.
    pub output: String,
}

/// A container: its record and its run state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// What was decided.
    pub record: Arc<Record>,
    /// What it does.
    pub state: RunState,
}

/// The first twelve digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// This boot's identity.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A project's containers by name. A file that is gone or torn between two looks is left out.
pub fn read_containers(paths: &Paths, project: &str) -> io::Result<Vec<Container>> {
    let boot = boot_id()?;
    let mut containers: Vec<_> = container_ids(paths, project)?
        .into_iter()
        .filter_map(|id| read_container(paths, project, &id, &boot).transpose())
        .collect::<io::Result<_>>()?;
    containers.sort_by(|a: &Container, b| a.record.name.cmp(&b.record.name));
    Ok(containers)
}

/// The names of all projects that have a container, sorted.
pub fn projects(paths: &Paths) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = all_records(paths)?.into_iter().map(|record| record.project).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Every container's record, of all projects.
pub fn all_records(paths: &Paths) -> io::Result<Vec<Record>> {
    records(paths, |_| false)
}

/// The ids of the images that containers use.
pub fn images_in_use(paths: &Paths) -> Result<Vec<Digest>, images::Error> {
    let records = all_records(paths).map_err(|source| images::Error::Io {
        what: format!("reading the containers in {}", paths.containers().display()),
        source,
    })?;
    Ok(records.iter().filter_map(|record| record.image_id.parse().ok()).collect())
}

/// The records of all projects' containers, those left out whose id is known already.
pub fn records(paths: &Paths, is_known: impl Fn(&str) -> bool) -> io::Result<Vec<Record>> {
    let entries = match fs::read_dir(paths.containers()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let id = entry?.file_name().to_string_lossy().into_owned();
        if !is_known(&id) {
            // One that can't be read is the business of its own project.
            records.extend(find_record(paths, &id).ok().flatten());
        }
    }
    Ok(records)
}

/// Writes the record of a new container, and with it makes the container exist.
pub fn write_record(paths: &Paths, record: &Record) -> io::Result<()> {
    write_atomic(&paths.container(&record.id).join("config.json"), &serde_json::to_vec(record)?, false)
}

/// Replaces a container's run state.
pub fn write_run_state(paths: &Paths, project: &str, id: &str, state: &RunState) -> io::Result<()> {
    write_atomic(&paths.run_state(project, id), &serde_json::to_vec(state)?, false)
}

/// Ids of a project's containers: its run state files, or where there are none (after a reboot) every record that
/// names it.
fn container_ids(paths: &Paths, project: &str) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    match fs::read_dir(paths.run_states(project)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(entries) => {
            for entry in entries {
                ids.extend(entry?.file_name().to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
            }
        }
    }
    if ids.is_empty() {
        let ours = all_records(paths)?.into_iter().filter(|record| record.project == project);
        ids.extend(ours.map(|record| record.id));
    }
    Ok(ids)
}

fn read_container(paths: &Paths, project: &str, id: &str, boot: &str) -> io::Result<Option<Container>> {
    let Some(record) = find_record(paths, id)? else { return Ok(None) };
    let mut state: RunState = read_json(&paths.run_state(project, id))?.unwrap_or_default();
    if state.boot_id != boot {
        let status = if state.status == Status::Dead { Status::Dead } else { Status::Exited };
        state = RunState { status, pid: 0, health: Health::None, ports: Vec::new(), ..state };
    }
    Ok(Some(Container { record: Arc::new(record), state }))
}

/// A container's record.
pub fn find_record(paths: &Paths, id: &str) -> io::Result<Option<Record>> {
    read_json(&paths.container(id).join("config.json"))
}

/// Reads a JSON file; none if it is missing.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} was not written by this version of stack, or is damaged: {e}", path.display()),
        )
    })
}
