//! The instructions of a Dockerfile with their meaning; variables are still unexpanded.

use std::time::Duration;

use super::lines::Heredoc;

/// One instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// 1-based line.
    pub line: usize,
    /// As written, continuations joined, heredocs left out.
    pub text: String,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `FROM`
    From(From),
    /// `RUN`
    Run(Run),
    /// `COPY` or `ADD`
    Copy(Copy),
    /// `ENV`: names and values.
    Env(Vec<(String, String)>),
    /// `ARG`: names and defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `LABEL`: names and values.
    Label(Vec<(String, String)>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `USER`
    User(String),
    /// `WORKDIR`
    Workdir(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `SHELL`
    Shell(Vec<String>),
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `ONBUILD`: the instruction as written.
    Onbuild(String),
    /// `MAINTAINER`
    Maintainer(String),
}

/// `FROM [--platform=P] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Platform asked for.
    pub platform: Option<String>,
    /// `scratch`, a stage, an additional context or an image.
    pub image: String,
    /// Name of the stage, in lower case.
    pub name: Option<String>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// Documents announced in the command.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values.
    pub mounts: Vec<Mount>,
    /// `--network`
    pub network: Option<String>,
}

/// `RUN --mount`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; empty where the kind has a default.
    pub target: String,
    /// Path within `from`, or of a cache within its root.
    pub source: String,
    /// Stage, image or additional context; the build context if None.
    pub from: Option<String>,
    /// `ro`/`rw` as given.
    pub read_only: Option<bool>,
    /// Name of a cache or secret.
    pub id: Option<String>,
    /// Use of a cache by several steps at once.
    pub sharing: Sharing,
    /// The build fails without the secret.
    pub required: bool,
    /// Variable that gets the secret.
    pub env: Option<String>,
    /// Mode of a cache directory or secret file.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
}

/// Kinds of `RUN --mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret's content as a file or variable.
    Secret,
    /// An ssh agent's socket.
    Ssh,
}

/// How a cache mount is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// At once.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// `COPY` and `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// True for `ADD`.
    pub add: bool,
    /// Paths, patterns, URLs.
    pub sources: Vec<String>,
    /// Heredocs that are sources: file name and content.
    pub documents: Vec<Heredoc>,
    /// Where to.
    pub target: String,
    /// Stage, image or additional context.
    pub from: Option<String>,
    /// `user[:group]`
    pub chown: Option<String>,
    /// Octal or symbolic.
    pub chmod: Option<String>,
    /// Keep the sources' parent directories.
    pub parents: bool,
    /// Independent of what is below.
    pub link: bool,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// `--unpack`
    pub unpack: Option<bool>,
    /// `--checksum`
    pub checksum: Option<String>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// Takes away what the base image has.
    None,
    /// A command and its times.
    Check {
        /// What to run.
        command: Command,
        /// `--interval`
        interval: Option<Duration>,
        /// `--timeout`
        timeout: Option<Duration>,
        /// `--start-period`
        start_period: Option<Duration>,
        /// `--start-interval`
        start_interval: Option<Duration>,
        /// `--retries`
        retries: Option<u32>,
    },
}
