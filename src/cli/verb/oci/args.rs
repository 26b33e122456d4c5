//! The flags of `stack oci`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

/// Run containers of bundles, by the command line of the OCI runtime specification.
///
/// Takes the flags that runc and crun take. A link by the name `stack-oci` to this program stands for `stack oci`, for
/// engines that take one path: `podman --runtime /usr/local/bin/stack-oci`.
#[derive(Debug, Args)]
#[command(version, disable_help_subcommand = true)]
pub(crate) struct Oci {
    /// Folder where containers are kept (default: /run/stack-oci)
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Append messages to a file, too
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Form of these messages: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub(super) log_format: LogFormat,
    /// Least weight of these messages: debug, info, warn or error
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
    /// Say more
    #[arg(long)]
    pub(super) debug: bool,
    /// Control group paths are systemd's: `slice:prefix:name`
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// The same in crun's words: cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER")]
    pub(super) cgroup_manager: Option<String>,
    /// Accepted for compatibility
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) rootless: Option<String>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Forms of messages in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Words
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a container; its process waits for its start
    Create(Create),
    /// Let a container's process become its program
    Start(Id),
    /// Make and start a container
    Run(Run),
    /// Run a further process in a container
    Exec(Box<Process>),
    /// Print what a container is doing, as JSON
    State(Id),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove what a container that has ended leaves
    Delete(Delete),
    /// List containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Stop every process of a container for a while
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print what this runtime knows, as JSON
    Features,
}

#[derive(Debug, Args)]
pub(super) struct Id {
    /// The container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Where a container comes from and what it gets.
#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// Folder with `config.json`
    #[arg(short = 'b', long = "bundle", value_name = "DIR", default_value = ".")]
    pub(super) folder: PathBuf,
    /// Unix socket that gets the master of its terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File that gets the number of its process
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Change the root without leaving the old one, for a host that runs from memory
    #[arg(long)]
    pub(super) no_pivot: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub(super) no_new_keyring: bool,
    /// How many descriptors from 3 on it inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    pub(super) bundle: Bundle,
    /// The container's name
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) bundle: Bundle,
    /// Return when it runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Keep what it leaves when it has ended
    #[arg(long)]
    pub(super) keep: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub(super) no_subreaper: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct Process {
    /// File with the process as JSON
    #[arg(short = 'p', long = "process", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// With a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Return when it runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Variable; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<String>,
    /// User, by number, and group
    #[arg(short, long, value_name = "UID[:GID]", value_parser = user)]
    pub(super) user: Option<(u32, Option<u32>)>,
    /// Further group; repeatable
    #[arg(short = 'g', long, value_name = "GID")]
    pub(super) additional_gids: Vec<u32>,
    /// Further capability; repeatable
    #[arg(short, long, value_name = "NAME")]
    pub(super) cap: Vec<String>,
    /// Without new privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Profile of AppArmor
    #[arg(long, value_name = "NAME")]
    pub(super) apparmor: Option<String>,
    /// Label of SELinux
    #[arg(long = "process-label", value_name = "LABEL")]
    pub(super) selinux: Option<String>,
    /// Unix socket that gets the master of its terminal
    #[arg(long, value_name = "SOCKET")]
    pub(super) console_socket: Option<PathBuf>,
    /// File that gets the number of the process
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on it inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Also in a container that is paused
    #[arg(long)]
    pub(super) ignore_paused: bool,
    /// Control group below the container's
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup: Option<String>,
    /// The container
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Program and arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not a number"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Send it to every process of the container
    #[arg(short, long)]
    pub(super) all: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// By name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(super) signal: String,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// End it first, if it runs
    #[arg(short, long)]
    pub(super) force: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Forms of lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Columns
    #[default]
    Table,
    /// JSON
    Json,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Form of the output: table or json
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true)]
    pub(super) format: Form,
    /// Only names
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Form of the output: table or json
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true)]
    pub(super) format: Form,
    /// The container
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Accepted for compatibility
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) options: Vec<String>,
}

/// Limits; -1 is unlimited.
#[derive(Debug, Args)]
pub(super) struct Update {
    /// File with `linux.resources` as JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) resources: Option<PathBuf>,
    /// Bytes of memory
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Bytes kept when memory is short
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Microseconds of processor time per period
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// Microseconds that may be saved up
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Relative weight
    #[arg(long, alias = "cpu-shares", value_name = "N")]
    cpu_share: Option<u64>,
    /// Microseconds per period for real-time processes
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Microseconds of a period for real-time processes
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// 1: only time that nobody else wants
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,
    /// Processors, e.g. `0-2,4`
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Relative weight of block input and output
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u64>,
    /// The container
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

impl Update {
    /// The flags as `linux.resources`.
    pub(super) fn json(&self) -> Value {
        json!({
            "memory": { "limit": self.memory, "reservation": self.memory_reservation, "swap": self.memory_swap },
            "cpu": { "quota": self.cpu_quota, "period": self.cpu_period, "burst": self.cpu_burst,
                "shares": self.cpu_share, "realtimeRuntime": self.cpu_rt_runtime,
                "realtimePeriod": self.cpu_rt_period, "idle": self.cpu_idle, "cpus": self.cpuset_cpus,
                "mems": self.cpuset_mems },
            "pids": { "limit": self.pids_limit },
            "blockIO": { "weight": self.blkio_weight },
        })
    }
}
