//! What a caller asks of the builder.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

use crate::images::Registries;
use crate::runtime::launch::Rlimit;

/// Everything that decides a build. Paths are absolute and already checked to belong to the caller's project.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Directory that COPY and ADD read from; None if there is none (a Dockerfile from standard input).
    pub context: Option<PathBuf>,
    /// Name of the Dockerfile for messages; `<this>.dockerignore` is preferred to the context's `.dockerignore`.
    pub dockerfile_name: PathBuf,
    /// Text of the Dockerfile.
    pub dockerfile: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Stage to build; the last one if None.
    pub target: Option<String>,
    /// Labels set on the image beside those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Names to give to the image.
    pub tags: Vec<String>,
    /// Take no earlier results.
    pub no_cache: bool,
    /// Names of stages that take no earlier results.
    pub no_cache_filter: Vec<String>,
    /// When base images are fetched.
    pub pull: Pull,
    /// Where they are fetched from; None takes what the store has.
    pub registries: Option<Rc<Registries>>,
    /// Contexts that FROM, `COPY --from` and `RUN --mount=from` can name.
    pub additional_contexts: BTreeMap<String, ContextSource>,
    /// Network of RUN steps.
    pub network: Network,
    /// Whether `RUN --network=host` may leave that network.
    pub host_network: bool,
    /// Secrets that `RUN --mount=type=secret` can name, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of the ssh agents that `RUN --mount=type=ssh` can name, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// Further lines of /etc/hosts in RUN steps: name and address.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Most memory of a RUN step in bytes; as much as there is if None.
    pub memory: Option<u64>,
    /// Size of /dev/shm in RUN steps in bytes; 64 MiB if None.
    pub shm_size: Option<u64>,
    /// Resource limits of RUN steps.
    pub rlimits: Vec<Rlimit>,
    /// Certificate authorities (PEM) that RUN steps are offered beside those of their image.
    pub certificates: Option<Vec<u8>>,
    /// Directory of the store (`lib`): step cache and cache mounts live in its `build` folder.
    pub lib: PathBuf,
    /// Directory for what lives only during the build (`run`).
    pub run: PathBuf,
}

/// Where an additional context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of the host.
    Directory(PathBuf),
    /// An image in the store, by name or id: `docker-image://…`, or the result of another build (`service:…`).
    Image(String),
}

/// When base images are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// If the store doesn't have them.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Network of RUN steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A bridge of the build's own with a way out.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// The content of a secret. Its debug output says nothing about it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
