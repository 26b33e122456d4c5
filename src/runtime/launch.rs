//! What to start: everything about a container decided.
//!
//! Descriptors travel beside the value; a [`Slot`] is an index into that list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::device::{Device, DeviceRule};
pub use crate::sys::userns::Ids;

/// Index into the descriptors that are sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot(pub usize);

/// A container's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The container's id, unique within the shim.
    pub id: String,
    /// Host name in a private UTS namespace.
    pub hostname: String,
    /// NIS domain name in a private UTS namespace.
    pub domainname: Option<String>,
    /// Which namespaces are new, shared or the host's.
    pub namespaces: Namespaces,
    /// The root: a detached mount.
    pub rootfs: Slot,
    /// Make the root read-only once everything is mounted.
    pub read_only: bool,
    /// Further mounts; those with shorter targets are done first.
    pub mounts: Vec<Mount>,
    /// What to run.
    pub process: Process,
    /// Run a tiny init as process 1, which forwards signals and reaps orphans.
    pub init: bool,
    /// Control group and limits.
    pub cgroup: Cgroup,
    /// Paths hidden in the container; [`Launch::default_masked`] unless asked otherwise.
    pub masked: Vec<String>,
    /// Paths made read-only; [`Launch::default_read_only_paths`] unless asked otherwise.
    pub read_only_paths: Vec<String>,
    /// Kernel parameters of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Keep its sockets that listen for its next run. Takes a filter.
    pub keeps: bool,
    /// Everything allowed, all devices, nothing masked.
    pub privileged: bool,
    /// Devices beside the standard ones.
    pub devices: Vec<Device>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Where input and output go.
    pub stdio: Stdio,
    /// The ids that its own become outside, in a user namespace: its own, or that of the container whose network,
    /// process, IPC or host name namespace it joins, or that its kept network belongs to. None: the host's, as they are.
    pub ids: Option<Ids>,
}

impl Launch {
    /// What Docker hides, and a few more sources of host information.
    pub fn default_masked() -> Vec<String> {
        let paths = [
            "/proc/acpi",
            "/proc/asound",
            "/proc/config.gz",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/kmsg",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/vmallocinfo",
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
        ];
        paths.map(str::to_owned).to_vec()
    }

    /// What Docker makes read-only.
    pub fn default_read_only_paths() -> Vec<String> {
        ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).to_vec()
    }
}

/// The namespaces of a container. The mount namespace is always its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network.
    pub net: Net,
    /// Processes.
    pub pid: Share,
    /// System V IPC, message queues and `/dev/shm`.
    pub ipc: Share,
    /// Host name.
    pub uts: Share,
    /// Control groups: `Private` or `Host`.
    pub cgroup: Share,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self { net: Net::New, pid: Share::Private, ipc: Share::Private, uts: Share::Private, cgroup: Share::Private }
    }
}

/// A container's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Net {
    /// A new one, whose descriptor is returned.
    New,
    /// The one that the shim keeps from an earlier run of this id.
    Kept,
    /// The host's.
    Host,
    /// That of another container.
    Join(String),
    /// A new one with nothing but loopback.
    None,
}

/// Another namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// A new one.
    Private,
    /// The host's.
    Host,
    /// That of another container.
    Join(String),
}

/// Restrictions of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// Read-only, submounts included.
    pub read_only: bool,
    /// Set-user-id bits have no effect.
    pub nosuid: bool,
    /// Device nodes can't be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

/// One mount. A missing target is made, never outside the root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Mount {
    /// A detached tree: a volume, a bind, an image.
    Tree {
        /// The tree's descriptor.
        slot: Slot,
        /// Absolute path in the container.
        target: String,
        /// Restrictions to add.
        flags: MountFlags,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Absolute path in the container.
        target: String,
        /// Bytes; the kernel's default (half of the memory) if absent.
        size: Option<u64>,
        /// Mode of its root, e.g. 0o1777.
        mode: u32,
        /// Owner of its root.
        uid: u32,
        /// Group of its root.
        gid: u32,
        /// Restrictions; Docker's are nosuid, nodev and noexec.
        flags: MountFlags,
    },
    /// A small file: a secret, a config, `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`.
    File {
        /// Absolute path in the container.
        target: String,
        /// What it holds.
        #[serde(with = "super::wire::bytes")]
        content: Vec<u8>,
        /// Mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Mounted read-only.
        read_only: bool,
    },
}

impl Mount {
    /// Absolute path in the container.
    pub fn target(&self) -> &str {
        match self {
            Self::Tree { target, .. } | Self::Tmpfs { target, .. } | Self::File { target, .. } => target,
        }
    }
}

/// A program to run, at start or in a running container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value`. `HOME` is added from the user's entry if absent.
    pub env: Vec<String>,
    /// Working directory; made at a container's start if missing. Empty means `/`.
    pub cwd: String,
    /// As written: name or uid, with `:group` or `:gid`; empty is root.
    pub user: String,
    /// Additional groups: names or numbers.
    pub groups: Vec<String>,
    /// Capabilities that may be held at all, and are if the user is root.
    pub caps: Vec<String>,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// With a terminal of its own.
    pub tty: bool,
    /// Rows and columns of that terminal.
    pub size: Option<(u16, u16)>,
    /// Adjustment of the out-of-memory score.
    pub oom_score_adj: Option<i32>,
    /// File mode mask; 0o022 if absent.
    pub umask: Option<u32>,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Lower-case name without prefix, e.g. `nofile`.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Control group and limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below each hierarchy, e.g. `stack/<project>/<id>`.
    pub path: String,
    /// Limits.
    pub resources: Resources,
    /// Devices allowed beside the standard ones and [`Launch::devices`].
    pub device_rules: Vec<DeviceRule>,
    /// The groups above are somebody else's, and stay when they are empty.
    #[serde(default)]
    pub borrowed: bool,
}

/// Limits of a control group; absent means none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// Bytes kept when memory is short.
    pub memory_reservation: Option<u64>,
    /// 0 to 100; v1 only, a loss elsewhere.
    pub swappiness: Option<u64>,
    /// Don't kill when out of memory; v1 only, a loss elsewhere.
    pub oom_kill_disable: bool,
    /// Microseconds of processor time per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds; 100,000 if absent.
    pub cpu_period: Option<u64>,
    /// Microseconds per period for real-time processes; v1 only, a loss elsewhere.
    #[serde(default)]
    pub cpu_rt_runtime: Option<i64>,
    /// Microseconds; 1,000,000 if absent.
    #[serde(default)]
    pub cpu_rt_period: Option<u64>,
    /// Relative weight, 2 to 262,144; 1,024 is normal.
    pub cpu_shares: Option<u64>,
    /// Processors, e.g. `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1 is unlimited.
    pub pids: Option<i64>,
    /// The same where `pids` asks for nothing; a loss where it can't be held.
    #[serde(default)]
    pub default_pids: Option<i64>,
    /// Relative weight of block input/output, 10 to 1,000; a loss where the kernel's scheduler knows none.
    pub blkio_weight: Option<u16>,
    /// Limits of single block devices.
    #[serde(default)]
    pub block_limits: Vec<BlockLimit>,
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockLimit {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What is limited.
    pub kind: BlockLimitKind,
    /// Bytes or operations a second, or a weight of 10 to 1,000.
    pub value: u64,
}

/// What a [`BlockLimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockLimitKind {
    /// Relative weight; a loss where the kernel's scheduler knows none.
    Weight,
    /// Bytes read a second.
    ReadBytes,
    /// Bytes written a second.
    WriteBytes,
    /// Reads a second.
    Reads,
    /// Writes a second.
    Writes,
}

impl Resources {
    /// Per controller what the limits are called that it has to hold, and whether any is asked for.
    pub(crate) fn by_controller(&self) -> [(&'static str, &'static str, bool); 5] {
        let throttles = self.block_limits.iter().any(|limit| limit.kind != BlockLimitKind::Weight);
        [
            ("memory", "a memory limit", self.memory.is_some() || self.memory_reservation.is_some()),
            ("cpu", "a processor limit", self.cpu_quota.is_some() || self.cpu_shares.is_some()),
            ("pids", "a limit of processes", self.pids.is_some_and(|pids| pids >= 0)),
            ("cpuset", "processors", self.cpuset_cpus.is_some() || self.cpuset_mems.is_some()),
            ("io", "a limit of a block device", throttles),
        ]
    }

    /// Processes and threads, asked for or not; -1 is unlimited.
    pub(crate) fn processes(&self) -> Option<i64> {
        self.pids.or(self.default_pids)
    }
}

/// System call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's profile, tightened; follows the capabilities.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// One of the user's, in Docker's form: the JSON text.
    Profile(String),
}

/// Where a container's input and output go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Stdio {
    /// Into a log file of JSON lines, written by the shim. With a terminal, its master is drained the same way.
    Log {
        /// The file. Rotated ones have `.1`, `.2`, … appended.
        path: PathBuf,
        /// Bytes after which it is rotated; 0 is never.
        max_size: u64,
        /// Files kept, the current one included; at least 1.
        max_files: u32,
        /// Keep input open, to be written through `attach`.
        stdin: bool,
    },
    /// Straight to descriptors. With a terminal they are not used: `attach` gives its master, which nobody else reads.
    Fds {
        /// Standard input; `/dev/null` if absent.
        stdin: Option<Slot>,
        /// Standard output.
        stdout: Slot,
        /// Standard error.
        stderr: Slot,
    },
    /// Nowhere.
    Null,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code; 128 + signal if a signal ended it; -1 if nobody can know.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed something of the container for lack of memory.
    pub oom: bool,
}
