//! The canonical model of a stack file: what `stack config` prints and every other layer reads.
//!
//! A [`Project`] is complete: merged, interpolated, normalised and validated. Maps are ordered by key, so that two
//! equal projects serialise to equal bytes. Field names and canonical forms are those of the Compose Specification
//! as docker compose prints them (`config --format json`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, Span};

/// An ordered string map (labels, options, …).
pub type StringMap = BTreeMap<String, String>;
/// Environment-like map: `None` means "take it from outside, or leave it unset".
pub type OptionalMap = BTreeMap<String, Option<String>>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! model {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(#[serde(skip_serializing_if = "is_default")] $(#[$fdoc])* pub $field: $ty,)*
        }
    };
}

model! {
    /// A whole stack.
    pub struct Project {
        /// Project name: `[a-z0-9][a-z0-9_-]*`.
        name: String,
        /// Services by name, those of inactive profiles left out.
        services: BTreeMap<String, Service>,
        /// Networks that some service uses.
        networks: BTreeMap<String, Network>,
        /// Named volumes that some service uses.
        volumes: BTreeMap<String, Volume>,
        /// Configuration objects.
        configs: BTreeMap<String, FileObject>,
        /// Secret objects.
        secrets: BTreeMap<String, FileObject>,
        /// Models that some service uses.
        models: BTreeMap<String, serde_json::Value>,
        /// Names of containers and built images are joined with `_`, as Compose 1 did (`--compatibility`). Not of the file.
        underscores: bool,
        /// Top-level `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}

impl Project {
    /// What stands between the parts of names that are made up.
    pub fn separator(&self) -> char {
        if self.underscores { '_' } else { '-' }
    }
}

model! {
    /// One service. Every attribute of the Compose Specification; see `../shared/checklists/compose.md` §1.2–1.4.
    pub struct Service {
        /// Container annotations.
        annotations: StringMap,
        /// `false`: `up` does not show its log.
        attach: Option<bool>,
        /// Block IO limits.
        blkio_config: Option<serde_json::Value>,
        /// How to build the image.
        build: Option<Build>,
        /// Capabilities to add, without `CAP_` prefix normalisation.
        cap_add: Vec<String>,
        /// Capabilities to drop.
        cap_drop: Vec<String>,
        /// `host` or `private`.
        cgroup: Option<String>,
        /// Parent control group.
        cgroup_parent: Option<String>,
        /// `None`: the image's; `Some([])`: emptied.
        command: Option<Vec<String>>,
        /// Configuration files to mount.
        configs: Vec<FileMount>,
        /// Fixed container name.
        container_name: Option<String>,
        /// Windows processors.
        cpu_count: Option<i64>,
        /// Windows share of processors.
        cpu_percent: Option<f64>,
        /// CFS period in µs.
        cpu_period: Option<i64>,
        /// CFS quota in µs.
        cpu_quota: Option<i64>,
        /// Realtime period in µs.
        cpu_rt_period: Option<i64>,
        /// Realtime runtime in µs.
        cpu_rt_runtime: Option<i64>,
        /// Relative weight.
        cpu_shares: Option<i64>,
        /// Number of processors, fractions allowed.
        cpus: Option<f64>,
        /// Processors it may run on, e.g. `0-3,5`.
        cpuset: Option<String>,
        /// Windows credential.
        credential_spec: Option<serde_json::Value>,
        /// Dependencies by service name.
        depends_on: BTreeMap<String, Dependency>,
        /// Deployment: replicas, resources, restart policy.
        deploy: Option<Deploy>,
        /// File watching.
        develop: Option<serde_json::Value>,
        /// Device rules, `c 1:3 mr`.
        device_cgroup_rules: Vec<String>,
        /// Devices.
        devices: Vec<Device>,
        /// DNS servers.
        dns: Vec<String>,
        /// resolv.conf options.
        dns_opt: Vec<String>,
        /// Search domains.
        dns_search: Vec<String>,
        /// NIS domain name.
        domainname: Option<String>,
        /// `None`: the image's; `Some([])`: emptied.
        entrypoint: Option<Vec<String>>,
        /// Resolved environment (env_file already merged in).
        environment: OptionalMap,
        /// Ports open inside, documentation.
        expose: Vec<String>,
        /// Containers outside the project to link.
        external_links: Vec<String>,
        /// `host=address` entries for /etc/hosts.
        extra_hosts: Vec<String>,
        /// GPU requests.
        gpus: Option<serde_json::Value>,
        /// Supplementary groups.
        group_add: Vec<String>,
        /// Health check.
        healthcheck: Option<Healthcheck>,
        /// Host name.
        hostname: Option<String>,
        /// Image reference.
        image: Option<String>,
        /// Run a reaping init as process 1.
        init: Option<bool>,
        /// IPC namespace: host, private, shareable, `service:X`, `container:X`.
        ipc: Option<String>,
        /// Windows isolation.
        isolation: Option<String>,
        /// Container labels.
        labels: StringMap,
        /// Legacy links, `service[:alias]`.
        links: Vec<String>,
        /// Logging.
        logging: Option<Logging>,
        /// Service-wide MAC address.
        mac_address: Option<String>,
        /// Memory limit in bytes.
        mem_limit: Option<ByteSize>,
        /// Soft memory limit in bytes.
        mem_reservation: Option<ByteSize>,
        /// 0–100.
        mem_swappiness: Option<ByteSize>,
        /// Memory plus swap in bytes; -1 means unlimited.
        memswap_limit: Option<ByteSize>,
        /// Models bound to the service.
        models: Option<serde_json::Value>,
        /// none, host, bridge, `service:X`, `container:X`.
        network_mode: Option<String>,
        /// Attachments by network key; `None` = defaults.
        networks: BTreeMap<String, Option<Attachment>>,
        /// Leave processes alive when memory runs out.
        oom_kill_disable: Option<bool>,
        /// −1000 to 1000.
        oom_score_adj: Option<i64>,
        /// PID namespace: host, `service:X`, `container:X`.
        pid: Option<String>,
        /// Maximum number of processes; -1 or 0 = unlimited.
        pids_limit: Option<i64>,
        /// os\[/arch\[/variant\]\].
        platform: Option<String>,
        /// Published ports.
        ports: Vec<Port>,
        /// Commands run in the container after its start.
        post_start: Vec<Hook>,
        /// Init containers.
        pre_start: Vec<StartHook>,
        /// Commands run in the container before its stop.
        pre_stop: Vec<Hook>,
        /// All capabilities and devices.
        privileged: Option<bool>,
        /// Profiles that switch the service on.
        profiles: Vec<String>,
        /// Externally run service.
        provider: Option<serde_json::Value>,
        /// always, never, missing, build, daily, weekly, `every_<duration>`.
        pull_policy: Option<String>,
        /// How long a pulled image counts as fresh.
        pull_refresh_after: Option<String>,
        /// Read-only root.
        read_only: Option<bool>,
        /// no, always, on-failure[:n], unless-stopped.
        restart: Option<String>,
        /// OCI runtime name.
        runtime: Option<String>,
        /// Replicas.
        scale: Option<i64>,
        /// Secrets to mount.
        secrets: Vec<FileMount>,
        /// Security options.
        security_opt: Vec<String>,
        /// Size of /dev/shm in bytes.
        shm_size: Option<ByteSize>,
        /// Keep standard input open.
        stdin_open: Option<bool>,
        /// Time between the stop signal and SIGKILL.
        stop_grace_period: Option<Span>,
        /// Signal that asks the service to end.
        stop_signal: Option<String>,
        /// Storage driver options.
        storage_opt: StringMap,
        /// Kernel parameters of the namespaces.
        sysctls: StringMap,
        /// `path[:options]`.
        tmpfs: Vec<String>,
        /// Allocate a terminal.
        tty: Option<bool>,
        /// Resource limits of the process.
        ulimits: BTreeMap<String, Ulimit>,
        /// Bind the engine's socket.
        use_api_socket: Option<bool>,
        /// User, `name|uid[:group|gid]`.
        user: Option<String>,
        /// User namespace mode.
        userns_mode: Option<String>,
        /// UTS namespace mode.
        uts: Option<String>,
        /// Mounts.
        volumes: Vec<VolumeMount>,
        /// Mounts of another service or container.
        volumes_from: Vec<String>,
        /// Working directory.
        working_dir: Option<String>,
        /// `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}

/// A condition on another service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    /// What to wait for.
    pub condition: Condition,
    /// Restart this service when the dependency is recreated or restarted by a command.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: bool,
    /// `false`: a missing or failed dependency is a warning.
    #[serde(default = "required_by_default")]
    pub required: bool,
}

fn required_by_default() -> bool {
    true
}

impl Dependency {
    /// A required dependency on a service that has started.
    pub fn started(restart: bool) -> Self {
        Self { condition: Condition::ServiceStarted, restart, required: true }
    }
}

/// What a dependent waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The container runs.
    #[default]
    ServiceStarted,
    /// Its health check passed.
    ServiceHealthy,
    /// It ended with exit code 0.
    ServiceCompletedSuccessfully,
}

model! {
    /// How an image is built.
    pub struct Build {
        /// Absolute directory, URL or `-`.
        context: String,
        /// Path of the Dockerfile, relative to the context unless absolute.
        dockerfile: Option<String>,
        /// Text of the Dockerfile.
        dockerfile_inline: Option<String>,
        /// Build arguments.
        args: OptionalMap,
        /// SSH agents.
        ssh: Vec<String>,
        /// Labels of the image.
        labels: StringMap,
        /// Cache sources.
        cache_from: Vec<String>,
        /// Cache destinations.
        cache_to: Vec<String>,
        /// Further contexts by name.
        additional_contexts: StringMap,
        /// Never use the cache.
        no_cache: bool,
        /// Stages that never use the cache.
        no_cache_filter: Vec<String>,
        /// Always pull base images.
        pull: bool,
        /// Network of RUN steps.
        network: Option<String>,
        /// Stage to build.
        target: Option<String>,
        /// Size of /dev/shm in RUN steps.
        shm_size: Option<ByteSize>,
        /// Extra /etc/hosts entries.
        extra_hosts: Vec<String>,
        /// Windows isolation.
        isolation: Option<String>,
        /// Elevated build.
        privileged: bool,
        /// Entitlements.
        entitlements: Vec<String>,
        /// Secrets offered to RUN steps.
        secrets: Vec<FileMount>,
        /// Further names of the image.
        tags: Vec<String>,
        /// Limits of RUN steps.
        ulimits: BTreeMap<String, Ulimit>,
        /// Platforms to build for.
        platforms: Vec<String>,
        /// Provenance attestation.
        provenance: Option<String>,
        /// SBOM attestation.
        sbom: Option<String>,
        /// `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}

model! {
    /// Deployment attributes.
    pub struct Deploy {
        /// replicated, global, …
        mode: Option<String>,
        /// Number of containers.
        replicas: Option<i64>,
        /// Labels of the service.
        labels: StringMap,
        /// vip or dnsrr.
        endpoint_mode: Option<String>,
        /// Limits and reservations.
        resources: Option<Resources>,
        /// Restart policy.
        restart_policy: Option<RestartPolicy>,
        /// Rolling update.
        update_config: Option<serde_json::Value>,
        /// Roll back.
        rollback_config: Option<serde_json::Value>,
        /// Placement.
        placement: Option<serde_json::Value>,
        /// `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}

model! {
    /// Limits and reservations.
    pub struct Resources {
        /// Upper bounds.
        limits: Option<ResourceLimits>,
        /// Guaranteed amounts.
        reservations: Option<ResourceLimits>,
    }
}

model! {
    /// Amounts of resources.
    pub struct ResourceLimits {
        /// Processors, as text (`0.5`).
        cpus: Option<f64>,
        /// Memory in bytes.
        memory: Option<ByteSize>,
        /// Processes.
        pids: Option<i64>,
        /// Device requests.
        devices: Option<serde_json::Value>,
        /// Generic resources.
        generic_resources: Option<serde_json::Value>,
    }
}

model! {
    /// `deploy.restart_policy`.
    pub struct RestartPolicy {
        /// none, on-failure, any.
        condition: Option<String>,
        /// Pause between attempts.
        delay: Option<Span>,
        /// Attempts before giving up.
        max_attempts: Option<u64>,
        /// How long to observe an attempt.
        window: Option<Span>,
    }
}

model! {
    /// A device given to a container.
    pub struct Device {
        /// Path on the host.
        source: String,
        /// Path in the container.
        target: String,
        /// Subset of `rwm`.
        permissions: String,
    }
}

model! {
    /// Health check of a service.
    pub struct Healthcheck {
        /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
        test: Option<Vec<String>>,
        /// Longest run of one check.
        timeout: Option<Span>,
        /// Pause between checks.
        interval: Option<Span>,
        /// Failures in a row that mean unhealthy.
        retries: Option<u64>,
        /// Failures in this time do not count.
        start_period: Option<Span>,
        /// Pause between checks during the start period.
        start_interval: Option<Span>,
        /// No check, not even the image's.
        disable: bool,
    }
}

model! {
    /// A command run in a container at a point of its life.
    pub struct Hook {
        /// Command.
        command: Vec<String>,
        /// User.
        user: Option<String>,
        /// All capabilities.
        privileged: bool,
        /// Working directory.
        working_dir: Option<String>,
        /// Environment.
        environment: OptionalMap,
    }
}

model! {
    /// An init container: it runs to its end before a service's container starts.
    pub struct StartHook {
        /// Command; `None` = the image's.
        command: Option<Vec<String>>,
        /// Image; `None` = the service's, which a build gives.
        image: Option<String>,
        /// User.
        user: Option<String>,
        /// All capabilities.
        privileged: bool,
        /// Working directory.
        working_dir: Option<String>,
        /// Environment, added to the service's.
        environment: OptionalMap,
        /// Once for each container of the service, not once for the service.
        per_replica: bool,
    }
}

model! {
    /// Where a service's output goes.
    pub struct Logging {
        /// json-file, local, none, …
        driver: Option<String>,
        /// Driver options (`max-size`, `max-file`).
        options: StringMap,
    }
}

model! {
    /// A service's attachment to a network.
    pub struct Attachment {
        /// Further names on that network.
        aliases: Vec<String>,
        /// Static IPv4 address.
        ipv4_address: Option<String>,
        /// Static IPv6 address.
        ipv6_address: Option<String>,
        /// Link-local addresses.
        link_local_ips: Vec<String>,
        /// MAC address.
        mac_address: Option<String>,
        /// Order of attachment, highest first.
        priority: Option<i64>,
        /// Order in which the default gateway is chosen, highest wins.
        gw_priority: Option<i64>,
        /// Interface name inside.
        interface_name: Option<String>,
        /// Driver options.
        driver_opts: StringMap,
    }
}

model! {
    /// A published port. `published` is a port or a range of which any free one is taken.
    pub struct Port {
        /// Name of the port.
        name: Option<String>,
        /// host or ingress.
        mode: Option<String>,
        /// Address on the host.
        host_ip: Option<String>,
        /// Port in the container.
        target: u16,
        /// Port or range on the host.
        published: Option<String>,
        /// tcp, udp or sctp.
        protocol: Option<String>,
        /// Application protocol.
        app_protocol: Option<String>,
    }
}

/// A soft and a hard limit; a single number sets both and prints as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "UlimitForm", into = "UlimitForm")]
pub struct Ulimit {
    /// One number for both, if it was given so.
    pub single: Option<i64>,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum UlimitForm {
    Single(i64),
    Both { soft: i64, hard: i64 },
}

impl From<UlimitForm> for Ulimit {
    fn from(form: UlimitForm) -> Self {
        match form {
            UlimitForm::Single(limit) => Self { single: Some(limit), soft: limit, hard: limit },
            UlimitForm::Both { soft, hard } => Self { single: None, soft, hard },
        }
    }
}

impl From<Ulimit> for UlimitForm {
    fn from(limit: Ulimit) -> Self {
        limit.single.map_or(Self::Both { soft: limit.soft, hard: limit.hard }, Self::Single)
    }
}

/// A mount of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// bind, volume, tmpfs, image, …
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// Host path, volume key or image; empty for anonymous volumes.
    #[serde(skip_serializing_if = "is_default")]
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    /// Read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Ignored.
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: Option<String>,
    /// Options of binds.
    #[serde(skip_serializing_if = "is_default")]
    pub bind: Option<BindOptions>,
    /// Options of volumes.
    #[serde(skip_serializing_if = "is_default")]
    pub volume: Option<VolumeOptions>,
    /// Options of tmpfs mounts.
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: Option<TmpfsOptions>,
    /// Options of image mounts.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<ImageMountOptions>,
}

/// Kind of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A host path.
    Bind,
    /// A named or anonymous volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// The file system of an image.
    Image,
    /// Windows named pipe.
    Npipe,
    /// Swarm cluster volume.
    Cluster,
}

model! {
    /// Options of a bind mount.
    pub struct BindOptions {
        /// shared, slave, private and their recursive forms.
        propagation: Option<String>,
        /// Make a missing source.
        create_host_path: Option<bool>,
        /// disabled, enabled, writable, readonly.
        recursive: Option<String>,
        /// z or Z.
        selinux: Option<String>,
    }
}

model! {
    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Do not copy the image's content into an empty volume.
        nocopy: bool,
        /// Directory inside the volume.
        subpath: Option<String>,
        /// Labels of an anonymous volume.
        labels: StringMap,
    }
}

model! {
    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Size in bytes.
        size: Option<ByteSize>,
        /// Mode of its root.
        mode: Option<u32>,
    }
}

model! {
    /// Options of an image mount.
    pub struct ImageMountOptions {
        /// Directory inside the image.
        subpath: Option<String>,
    }
}

model! {
    /// A secret or configuration given to a service or build.
    pub struct FileMount {
        /// Key of the object.
        source: String,
        /// Path (absolute) or name in the container.
        target: Option<String>,
        /// Owner.
        uid: Option<String>,
        /// Group.
        gid: Option<String>,
        /// Octal mode, e.g. `"0440"`.
        mode: Option<String>,
    }
}

model! {
    /// A network of the project.
    pub struct Network {
        /// Real name: `<project>_<key>` unless set.
        name: String,
        /// bridge, host, none, …
        driver: Option<String>,
        /// Driver options.
        driver_opts: StringMap,
        /// Address management.
        ipam: Option<Ipam>,
        /// Made by someone else.
        external: bool,
        /// No way out.
        internal: bool,
        /// Others may attach.
        attachable: bool,
        /// IPv4 on (default true).
        enable_ipv4: Option<bool>,
        /// IPv6 on (default false).
        enable_ipv6: Option<bool>,
        /// Labels.
        labels: StringMap,
        /// `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}

model! {
    /// Address management of a network.
    pub struct Ipam {
        /// Driver.
        driver: Option<String>,
        /// Subnets.
        config: Vec<IpamPool>,
        /// Driver options.
        options: StringMap,
    }
}

model! {
    /// One subnet.
    pub struct IpamPool {
        /// CIDR.
        subnet: Option<String>,
        /// CIDR out of which addresses are given.
        ip_range: Option<String>,
        /// Address of the bridge.
        gateway: Option<String>,
        /// Addresses that are taken.
        aux_addresses: StringMap,
    }
}

model! {
    /// A named volume of the project.
    pub struct Volume {
        /// Real name: `<project>_<key>` unless set.
        name: String,
        /// local.
        driver: Option<String>,
        /// Driver options (`type`, `o`, `device`).
        driver_opts: StringMap,
        /// Made by someone else.
        external: bool,
        /// Labels.
        labels: StringMap,
        /// `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}

model! {
    /// A secret or configuration of the project: exactly one of file, content, environment, external.
    pub struct FileObject {
        /// Real name.
        name: String,
        /// File on the host, absolute.
        file: Option<String>,
        /// Literal content.
        content: Option<String>,
        /// Name of an environment variable.
        environment: Option<String>,
        /// Made by someone else.
        external: bool,
        /// Driver.
        driver: Option<String>,
        /// Driver options.
        driver_opts: StringMap,
        /// Labels.
        labels: StringMap,
        /// Template driver.
        template_driver: Option<String>,
        /// `x-` keys.
        #[serde(flatten)]
        extensions: BTreeMap<String, serde_json::Value>,
    }
}
