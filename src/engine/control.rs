//! The language between a command and a project's supervisor: one request per connection, answered by any number of
//! events and one final reply. JSON in frames, descriptors beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::update::Limits;
use crate::planner::Line;
use crate::spec::model::{Attachment, Project};
use crate::sys::userns::Ids;

/// What a command asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Set the fault of the crash tests: see [`crate::sys::fault`].
    Fault {
        /// As in the environment.
        text: String,
    },
    /// Let a supervisor of the program that comes along take over, unless it is the same or older.
    Succeed {
        /// Version of that program.
        version: String,
    },
    /// Make what runs match the project.
    Up(Box<Up>),
    /// What another request that changes the stack would do; answered by [`Reply::Plan`].
    Plan(Box<Request>),
    /// Stop and remove.
    Down(Down),
    /// Start existing containers, dependencies first.
    Start {
        /// Services; all if empty.
        services: Vec<String>,
        /// Wait until running or healthy.
        wait: bool,
        /// Seconds to wait at most.
        wait_timeout: Option<u64>,
    },
    /// Stop containers, dependents first.
    Stop {
        /// Services; all if empty.
        services: Vec<String>,
        /// Seconds before SIGKILL, instead of the service's own.
        timeout: Option<u64>,
    },
    /// Stop and start.
    Restart {
        /// Services; all if empty.
        services: Vec<String>,
        /// Seconds before SIGKILL, instead of the service's own.
        timeout: Option<u64>,
        /// Leave dependents alone.
        no_deps: bool,
    },
    /// Send a signal.
    Kill {
        /// Services; all if empty.
        services: Vec<String>,
        /// Signal name or number.
        signal: String,
    },
    /// Remove stopped containers.
    Remove {
        /// Services; all if empty.
        services: Vec<String>,
        /// Stop them first.
        stop: bool,
        /// Anonymous volumes, too.
        volumes: bool,
        /// Only these, by id; those of the services if empty.
        #[serde(default)]
        containers: Vec<String>,
    },
    /// Freeze or thaw.
    Pause {
        /// Services; all if empty.
        services: Vec<String>,
        /// Thaw instead.
        thaw: bool,
    },
    /// Change limits.
    Update {
        /// Services.
        services: Vec<String>,
        /// What to change.
        limits: Box<Limits>,
    },
    /// Run a command in a container. With a terminal, the reply [`Reply::Started`] carries its master; without one,
    /// the request carries the three standard descriptors. Ends with [`Reply::Exited`].
    Exec(Exec),
    /// Make and start a one-off container, dependencies first; descriptors and replies as for `Exec`.
    Run(Box<Run>),
    /// Standard input (or the terminal) of a running container: [`Reply::Started`] carries it.
    Attach {
        /// Container id.
        container: String,
    },
    /// A container's files: [`Reply::Root`] carries its root and what keeps it mounted, for
    /// [`super::rootfs::Root::received`].
    Root {
        /// Container id.
        container: String,
        /// Without what is mounted below the root.
        alone: bool,
    },
    /// Mark the writable bind mounts of services' containers in a fanotify queue, which is the one descriptor, until the
    /// connection is closed; answered by [`Reply::Done`].
    Witness {
        /// Services.
        services: BTreeSet<String>,
    },
    /// Freeze a running container until the connection is closed; answered by [`Reply::Done`].
    Hold {
        /// Container id.
        container: String,
    },
    /// Attach a container to one more network.
    Connect {
        /// Container id.
        container: String,
        /// Real name of the network.
        network: String,
        /// How.
        attachment: Box<Attachment>,
    },
    /// Take a container off a network.
    Disconnect {
        /// Container id.
        container: String,
        /// Real name of the network.
        network: String,
    },
    /// Follow what happens until the connection is closed.
    Events,
    /// Wait until the services' containers have ended; [`Reply::Exited`] has the last one's code.
    Wait {
        /// Services.
        services: Vec<String>,
    },
}

impl Request {
    /// The command's word for it, of those that change what exists.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Kill { .. } => "kill",
            Self::Remove { .. } => "rm",
            Self::Pause { thaw: true, .. } => "unpause",
            Self::Pause { thaw: false, .. } => "pause",
            _ => "",
        }
    }
}

/// The project and how to bring it up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Up {
    /// The canonical project.
    pub project: Project,
    /// Where it comes from.
    pub source: Source,
    /// Contents of secrets and configs, by `secret:<key>` or `config:<key>`.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Services that inactive profiles leave out.
    pub disabled: Vec<String>,
    /// Services asked for; all if empty.
    pub services: Vec<String>,
    /// Replica counts of the command line.
    pub scale: BTreeMap<String, u32>,
    /// Recreate everything selected.
    pub force_recreate: bool,
    /// Recreate nothing.
    pub no_recreate: bool,
    /// Recreate dependencies, too.
    pub always_recreate_deps: bool,
    /// Leave dependencies alone.
    pub no_deps: bool,
    /// Create only.
    pub no_start: bool,
    /// Do not inherit anonymous volumes.
    pub renew_anon_volumes: bool,
    /// Remove containers of services that the file does not have.
    pub remove_orphans: bool,
    /// Say nothing of such containers.
    pub ignore_orphans: bool,
    /// Seconds before SIGKILL, instead of the services' own.
    pub timeout: Option<u64>,
    /// Wait until running or healthy.
    pub wait: bool,
    /// Seconds to wait at most.
    pub wait_timeout: Option<u64>,
    /// Destructive steps are agreed to.
    pub yes: bool,
    /// When the command began, before it prepared images.
    #[serde(default)]
    pub asked: Option<Timestamp>,
}

/// Where a project comes from; goes into the containers' labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Project directory.
    pub working_dir: PathBuf,
    /// Files in order.
    pub files: Vec<PathBuf>,
    /// Environment files.
    pub env_files: Vec<PathBuf>,
}

/// How to take a project down.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Down {
    /// The project, where a file was found.
    pub project: Option<Box<Project>>,
    /// Services asked for; all if empty.
    pub services: Vec<String>,
    /// Named and anonymous volumes, too.
    pub volumes: bool,
    /// Containers of services that the file does not have, too.
    pub remove_orphans: bool,
    /// Seconds before SIGKILL, instead of the services' own.
    pub timeout: Option<u64>,
}

/// A command in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Container id.
    pub container: String,
    /// Arguments.
    pub args: Vec<String>,
    /// `K=V`, added to the container's.
    pub env: Vec<String>,
    /// User instead of the container's.
    pub user: Option<String>,
    /// Working directory instead of the container's.
    pub cwd: Option<String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
    /// All capabilities.
    pub privileged: bool,
    /// Do not wait for its end; no descriptors then.
    pub detach: bool,
}

/// A one-off container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// The project, the service's overrides already applied, and how its dependencies come up.
    pub up: Up,
    /// Service.
    pub service: String,
    /// Container name instead of the generated one.
    pub name: Option<String>,
    /// Remove it after its end.
    pub remove: bool,
    /// Publish the service's ports.
    pub service_ports: bool,
    /// Take the service's network aliases.
    pub use_aliases: bool,
    /// Do not wait for its end.
    pub detach: bool,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

/// What a supervisor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The request will be carried out; always the first reply.
    Accepted,
    /// Something happened on the way.
    Event(Event),
    /// A process or container runs; a terminal master or standard input may come along.
    Started {
        /// Container or process.
        id: String,
    },
    /// A container's files.
    Root {
        /// The user namespace that they are seen outside of.
        ids: Option<Ids>,
    },
    /// The awaited process ended.
    Exited {
        /// Exit code, 128+n for signal n.
        code: i32,
    },
    /// What a request would do.
    Plan(Box<Outlook>),
    /// The request is carried out.
    Done,
    /// The request failed, wholly or in part.
    Failed(Failure),
}

/// What a request would do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outlook {
    /// One line per thing that happens, for people.
    pub lines: Vec<Line>,
    /// The same for programs: every step with its cause and the steps that it waits for.
    pub steps: serde_json::Value,
    /// Whether anything would change.
    pub changes: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Why it can't be carried out.
    pub problems: Vec<String>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What failed and why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Exit code of the command.
    pub code: i32,
    /// What asks for it in the stack file: keys and list indices; empty if nothing does.
    #[serde(default)]
    pub path: Vec<String>,
    /// The user can agree to it, and then it is carried out.
    #[serde(default)]
    pub asks: bool,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1, path: Vec::new(), asks: false }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Names the attribute of a service that asks for what failed.
    #[must_use]
    pub fn about(self, service: &str, attribute: &[&str]) -> Self {
        let path = ["services", service].into_iter().chain(attribute.iter().copied());
        Self { path: path.map(str::to_owned).collect(), ..self }
    }

    /// Sets the exit code.
    #[must_use]
    pub fn code(self, code: i32) -> Self {
        Self { code, ..self }
    }
}

/// A change of a project, the single source for progress, `events` and tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What kind of thing.
    pub kind: Kind,
    /// Name of the thing: container, network or volume name.
    pub name: String,
    /// Container id, empty for other kinds.
    pub id: String,
    /// Service, empty for other kinds.
    pub service: String,
    /// What happened.
    pub action: Action,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A container.
    Container,
}

/// What happened. The participles of docker compose's progress lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Under way.
    Creating,
    /// Exists now.
    Created,
    /// It is as it should be already.
    Running,
    /// Under way.
    Recreate,
    /// Replaced.
    Recreated,
    /// Under way.
    Starting,
    /// Its process runs.
    Started,
    /// A dependent waits for it.
    Waiting,
    /// Its health check passed.
    Healthy,
    /// Its health check failed too often.
    Unhealthy,
    /// Ended by itself as a dependent asked for.
    Completed,
    /// Its process ended.
    Died {
        /// Exit code.
        code: i32,
        /// A policy starts it again.
        restarting: bool,
    },
    /// Under way.
    Stopping,
    /// Ended by a command.
    Stopped,
    /// Under way.
    Killing,
    /// A signal was sent.
    Killed,
    /// Under way.
    Restarting,
    /// Stopped and started again.
    Restarted,
    /// Frozen.
    Paused,
    /// Thawed.
    Unpaused,
    /// Under way.
    Removing,
    /// Gone.
    Removed,
    /// Something failed.
    Error {
        /// What.
        message: String,
    },
    /// Something to know.
    Warning {
        /// What.
        message: String,
    },
}
