//! What the Compose Specification knows: every attribute, its shape and how two files' values merge. One declared
//! table; checking, casting, canonical forms, merging and suggestions are all read from it.

use Shape::{
    Any, Bool, Bytes, Command, Context, DependsOn, Duration, Enum, EnvFiles, FileMode, FileMounts, Float, Gpus, Hosts,
    Int, List, MapOf, ModeNumber, Names, Object as Obj, OptionMap, Path, Ports, Resource, SizeText, Ssh, Str, StrList,
    StrOrList, StrictBool, StrictInt, Test, Text, TextMap, Ulimits, Unique, Volumes, WordOr,
};

/// The shape of a value, in the sense of what it becomes.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// A string; numbers are refused.
    Str,
    /// A scalar that becomes a string.
    Text,
    /// A string or a number that becomes one.
    NumberText,
    /// A string or a whole number that becomes one.
    WholeText,
    /// A string or a boolean that becomes one.
    Attestation,
    /// A boolean, or a string that casts to one.
    Bool,
    /// A boolean.
    StrictBool,
    /// An integer between two bounds, or a string that casts to one.
    Int(i64, i64),
    /// A number from a bound on, whose fraction is cut; or a string that casts to a whole one.
    Number(i64),
    /// An integer between two bounds; text is refused.
    StrictInt(i64, i64),
    /// A number, or a string that casts to one.
    Float,
    /// `1m30s`.
    Duration,
    /// A number of bytes or `64m`.
    Bytes,
    /// `64m`, but no bare number.
    SizeText,
    /// File permissions that become `"0440"`.
    FileMode,
    /// File permissions that become a number.
    ModeNumber,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A path, relative to the file's project directory.
    Path,
    /// A path whose symbolic links are followed.
    WatchPath,
    /// A path, or a URL, or `service:x`.
    Context,
    /// A list of strings.
    StrList,
    /// A list whose items differ from each other once everything is merged.
    Unique(&'static Shape),
    /// Addresses: a string or a list of strings, empty ones left out.
    Addresses,
    /// A string or a list of strings, each of the given shape.
    StrOrList(&'static Shape),
    /// A shell-like string or a list of strings; null means "the image's".
    Command,
    /// `healthcheck.test`.
    Test,
    /// A mapping or a list of `key=value`, with what a missing value means and the shape of values.
    Mapping(Missing, &'static Shape),
    /// A mapping to strings and numbers, which become strings; null is the empty string.
    TextMap,
    /// The same, where null is refused.
    OptionMap,
    /// `extra_hosts`.
    Hosts,
    /// A list.
    List(&'static Shape),
    /// A mapping from names to one shape.
    MapOf(&'static Shape),
    /// A list of names or a mapping from names to one shape.
    Names(&'static Shape),
    /// `depends_on`.
    DependsOn,
    /// A mapping with known keys.
    Object(&'static Object),
    /// A string that stands for one key of a mapping.
    Short(&'static str, &'static Object),
    /// One of these words, or a mapping with known keys.
    WordOr(&'static [&'static str], &'static Object),
    /// The same, where null is a value too.
    Optional(&'static Shape),
    /// A top-level network, volume, configuration or secret.
    Resource(&'static Object),
    /// `ports`.
    Ports,
    /// `volumes` of a service.
    Volumes,
    /// `devices`.
    Devices,
    /// `configs` and `secrets` of a service.
    FileMounts,
    /// `env_file`.
    EnvFiles,
    /// `gpus`.
    Gpus,
    /// `count` of a device request: a number or `all`.
    Count,
    /// `build.ssh`.
    Ssh,
    /// `ulimits`.
    Ulimits,
    /// `provider.options`.
    Options,
}

/// What `KEY` without a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Taken from outside.
    Outside,
    /// The empty string.
    Empty,
    /// Nothing: it is refused.
    Refused,
}

/// How a later value joins an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Mappings by key, lists appended, scalars replaced, null keeps.
    Deep,
    /// Replaced whole.
    Replace,
    /// Mappings by key, where null replaces too.
    Keyed,
    /// Lists appended, then one item per key, the later in the earlier's place.
    Unique(Identity),
    /// `logging`: options of another driver are dropped.
    Logging,
    /// `ipam.config`: by subnet.
    Pools,
}

/// What makes two list items the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The whole text.
    Whole,
    /// The text before `=`.
    BeforeEquals,
    /// `target`.
    Target,
    /// `target`, or the source below a directory.
    Mount(&'static str),
    /// Address, published and target port, protocol.
    Port,
    /// `path`.
    FilePath,
}

/// A mapping with known keys.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) fields: &'static [Field],
    /// Whether `x-` keys are allowed.
    pub(crate) extensible: bool,
}

/// One known key.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) merge: Merge,
    pub(crate) required: bool,
    pub(crate) nullable: bool,
    /// A zero, false or empty value is the same as none.
    pub(crate) empty_is_none: bool,
}

const fn f(name: &'static str, shape: Shape) -> Field {
    let empty_is_none = matches!(
        shape,
        Str | Path | Int(..) | Shape::Number(_) | Float | Bytes | SizeText | Text | Duration | Shape::Attestation
    );
    Field { name, shape, merge: Merge::Deep, required: false, nullable: false, empty_is_none }
}

impl Field {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// `false` is the same as none.
    const fn plain(mut self) -> Self {
        self.empty_is_none = true;
        self
    }

    /// Zero and the empty string mean something.
    const fn exact(mut self) -> Self {
        self.empty_is_none = false;
        self
    }

    const fn merge(mut self, merge: Merge) -> Self {
        self.merge = merge;
        self
    }

    const fn unique(self, identity: Identity) -> Self {
        self.merge(Merge::Unique(identity))
    }

    const fn keyed(self) -> Self {
        self.merge(Merge::Keyed)
    }

    const fn replaced(self) -> Self {
        self.merge(Merge::Replace)
    }
}

impl Object {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const fn object(fields: &'static [Field]) -> Object {
    Object { fields, extensible: true }
}

const fn closed(fields: &'static [Field]) -> Object {
    Object { fields, extensible: false }
}

const LABELS: Shape = Shape::Mapping(Missing::Empty, &Text);
const ENVIRONMENT: Shape = Shape::Mapping(Missing::Outside, &Text);
const COUNT: Shape = Int(0, i64::MAX);
const NUMBER: Shape = Int(i64::MIN, i64::MAX);

/// The whole file.
pub(crate) static ROOT: Object = object(&[
    f("version", Str),
    f("name", Str),
    f("include", List(&Shape::Short("path", &INCLUDE))),
    f("services", MapOf(&Obj(&SERVICE))),
    f("networks", MapOf(&Shape::Optional(&Resource(&NETWORK)))),
    f("volumes", MapOf(&Shape::Optional(&Resource(&VOLUME)))),
    f("configs", MapOf(&Resource(&CONFIG))),
    f("secrets", MapOf(&Resource(&SECRET))),
    f("models", MapOf(&Obj(&MODEL))),
    f("x-stack", Obj(&X_STACK)),
]);

/// Our own settings of the whole stack.
static X_STACK: Object = closed(&[]);

/// Our own settings of one service.
static X_STACK_SERVICE: Object =
    closed(&[f("ready", WordOr(&["port"], &READY)).replaced(), f("watch", Enum(&["auto"]))]);

static READY: Object = closed(&[f("log", Str), f("file", Str), f("http", Str)]);

/// Shape of the whole file.
pub(crate) static ROOT_SHAPE: Shape = Obj(&ROOT);
/// Shape of a service.
pub(crate) static SERVICE_SHAPE: Shape = Obj(&SERVICE);
/// Shape of an entry of `depends_on`.
pub(crate) static DEPENDENCY_SHAPE: Shape = Obj(&DEPENDENCY);
/// Shape of an entry of `configs` or `secrets` of a service.
pub(crate) static FILE_MOUNT_SHAPE: Shape = Shape::Short("source", &FILE_MOUNT);
/// Shape of an entry of `env_file`.
pub(crate) static ENV_FILE_SHAPE: Shape = Shape::Short("path", &ENV_FILE);
/// Shape of a port in its long form.
pub(crate) static PORT_SHAPE: Shape = Obj(&PORT);
/// Shape of a mount in its long form.
pub(crate) static MOUNT_SHAPE: Shape = Obj(&MOUNT);
/// Shape of a device in its long form.
pub(crate) static DEVICE_SHAPE: Shape = Obj(&DEVICE);
/// Shape of a limit in its long form; a number is one too.
pub(crate) static ULIMIT_SHAPE: Shape = Obj(&ULIMIT);
/// Shape of an entry of `gpus`.
pub(crate) static GPU_SHAPE: Shape = Obj(&GPU);

/// One entry of `include`; its paths are resolved where it is loaded.
static INCLUDE: Object =
    closed(&[f("path", StrOrList(&Str)).required(), f("project_directory", Str), f("env_file", StrOrList(&Str))]);

/// A service.
static SERVICE: Object = object(&[
    f("annotations", LABELS).keyed(),
    f("attach", Bool),
    f("blkio_config", Obj(&BLKIO)),
    f("build", Shape::Short("context", &BUILD)),
    f("cap_add", StrList).unique(Identity::BeforeEquals),
    f("cap_drop", StrList).unique(Identity::BeforeEquals),
    f("cgroup", Enum(&["host", "private"])),
    f("cgroup_parent", Str),
    f("command", Command).replaced().nullable(),
    f("configs", FileMounts).unique(Identity::Mount("")),
    f("container_name", Str).exact(),
    f("cpu_count", COUNT),
    f("cpu_percent", Int(0, 100)),
    f("cpu_period", Shape::Number(i64::MIN)),
    f("cpu_quota", Shape::Number(i64::MIN)),
    f("cpu_rt_period", Shape::Number(i64::MIN)),
    f("cpu_rt_runtime", Shape::Number(i64::MIN)),
    f("cpu_shares", Shape::Number(i64::MIN)),
    f("cpus", Float),
    f("cpuset", Str),
    f("credential_spec", Obj(&CREDENTIAL_SPEC)),
    f("depends_on", DependsOn),
    f("deploy", Obj(&DEPLOY)).nullable(),
    f("develop", Obj(&DEVELOP)).nullable(),
    f("device_cgroup_rules", Unique(&StrList)),
    f("devices", Shape::Devices).unique(Identity::Target),
    f("dns", Shape::Addresses).unique(Identity::BeforeEquals),
    f("dns_opt", StrList).unique(Identity::BeforeEquals),
    f("dns_search", StrOrList(&Str)).unique(Identity::BeforeEquals),
    f("domainname", Str),
    f("entrypoint", Command).replaced().nullable(),
    f("env_file", EnvFiles).unique(Identity::FilePath),
    f("environment", ENVIRONMENT).keyed(),
    f("expose", List(&Shape::WholeText)).unique(Identity::Whole),
    f("extends", Shape::Short("service", &EXTENDS)),
    f("external_links", Unique(&StrList)),
    f("extra_hosts", Hosts).unique(Identity::Whole),
    f("gpus", Gpus),
    f("group_add", Unique(&List(&Shape::WholeText))),
    f("healthcheck", Obj(&HEALTHCHECK)),
    f("hostname", Str),
    f("image", Str),
    f("init", Bool),
    f("ipc", Str),
    f("isolation", Str),
    f("label_file", StrOrList(&Path)),
    f("labels", LABELS).keyed(),
    f("links", StrList).unique(Identity::BeforeEquals),
    f("logging", Obj(&LOGGING)).merge(Merge::Logging),
    f("mac_address", Str),
    f("mem_limit", Bytes),
    f("mem_reservation", Bytes),
    f("mem_swappiness", Bytes).exact(),
    f("memswap_limit", Bytes),
    f("models", Names(&Shape::Optional(&Obj(&MODEL_BINDING)))),
    f("network_mode", Str),
    f("networks", Names(&Shape::Optional(&Obj(&ATTACHMENT)))),
    f("oom_kill_disable", Bool).plain(),
    f("oom_score_adj", Int(-1000, 1000)),
    f("pid", Str).nullable(),
    f("pids_limit", Shape::Number(i64::MIN)),
    f("platform", Str),
    f("ports", Ports).unique(Identity::Port),
    f("post_start", List(&Obj(&HOOK))),
    f("pre_start", List(&Obj(&START_HOOK))),
    f("pre_stop", List(&Obj(&HOOK))),
    f("privileged", Bool).plain(),
    f("profiles", StrList).unique(Identity::BeforeEquals),
    f("provider", Obj(&PROVIDER)),
    f("pull_policy", Str).exact(),
    f("pull_refresh_after", Str),
    f("read_only", Bool).plain(),
    f("restart", Str),
    f("runtime", Str),
    f("scale", COUNT).exact(),
    f("secrets", FileMounts).unique(Identity::Mount("/run/secrets")),
    f("security_opt", Unique(&StrList)),
    f("shm_size", Bytes),
    f("stdin_open", Bool).plain(),
    f("stop_grace_period", Duration).exact(),
    f("stop_signal", Str),
    f("storage_opt", TextMap),
    f("sysctls", LABELS).keyed(),
    f("tmpfs", StrOrList(&Str)).unique(Identity::BeforeEquals),
    f("tty", Bool).plain(),
    f("ulimits", Ulimits),
    f("use_api_socket", StrictBool).plain(),
    f("user", Str),
    f("userns_mode", Str),
    f("uts", Str),
    f("volumes", Volumes).unique(Identity::Target),
    f("volumes_from", Unique(&StrList)),
    f("working_dir", Str),
    f("x-stack", Obj(&X_STACK_SERVICE)),
]);

/// `extends` of a service; its file is resolved where it is loaded.
static EXTENDS: Object = closed(&[f("service", Str).required(), f("file", Str)]);

static BUILD: Object = object(&[
    f("context", Context),
    f("dockerfile", Str).exact(),
    f("dockerfile_inline", Str).exact(),
    f("args", ENVIRONMENT).keyed(),
    f("ssh", Ssh).unique(Identity::BeforeEquals),
    f("labels", LABELS).keyed(),
    f("cache_from", StrList),
    f("cache_to", StrList),
    f("additional_contexts", Shape::Mapping(Missing::Refused, &Context)).keyed(),
    f("no_cache", Bool),
    f("no_cache_filter", Unique(&StrOrList(&Str))),
    f("pull", Bool),
    f("network", Str),
    f("target", Str),
    f("shm_size", Bytes),
    f("extra_hosts", Hosts).unique(Identity::Whole),
    f("isolation", Str),
    f("privileged", Bool),
    f("entitlements", StrList),
    f("secrets", FileMounts),
    f("tags", StrList).unique(Identity::BeforeEquals),
    f("ulimits", Ulimits),
    f("platforms", StrList),
    f("provenance", Shape::Attestation),
    f("sbom", Shape::Attestation),
]);

static BLKIO: Object = closed(&[
    f("weight", StrictInt(0, 65535)),
    f("weight_device", List(&Obj(&BLKIO_WEIGHT))),
    f("device_read_bps", List(&Obj(&BLKIO_RATE))),
    f("device_read_iops", List(&Obj(&BLKIO_RATE))),
    f("device_write_bps", List(&Obj(&BLKIO_RATE))),
    f("device_write_iops", List(&Obj(&BLKIO_RATE))),
]);
static BLKIO_WEIGHT: Object = closed(&[f("path", Str), f("weight", StrictInt(0, 65535))]);
static BLKIO_RATE: Object = closed(&[f("path", Str), f("rate", Bytes)]);
static CREDENTIAL_SPEC: Object = object(&[f("config", Str), f("file", Str), f("registry", Str)]);

/// One entry of `depends_on`.
static DEPENDENCY: Object = object(&[
    f("condition", Enum(&["service_started", "service_healthy", "service_completed_successfully"])).required(),
    f("restart", Bool),
    f("required", StrictBool),
]);

static DEPLOY: Object = object(&[
    f("mode", Str),
    f("replicas", COUNT).exact(),
    f("labels", LABELS).keyed(),
    f("endpoint_mode", Str),
    f("resources", Obj(&RESOURCES)),
    f("restart_policy", Obj(&RESTART_POLICY)),
    f("update_config", Obj(&UPDATE)),
    f("rollback_config", Obj(&UPDATE)),
    f("placement", Obj(&PLACEMENT)),
]);
static RESOURCES: Object = object(&[f("limits", Obj(&LIMITS)), f("reservations", Obj(&RESERVATIONS))]);
static LIMITS: Object = object(&[f("cpus", Float), f("memory", SizeText), f("pids", NUMBER)]);
static RESERVATIONS: Object = object(&[
    f("cpus", Float),
    f("memory", SizeText),
    f("generic_resources", List(&Obj(&GENERIC_RESOURCE))),
    f("devices", List(&Obj(&DEVICE_REQUEST))),
]);
static GENERIC_RESOURCE: Object = object(&[f("discrete_resource_spec", Obj(&DISCRETE_RESOURCE))]);
static DISCRETE_RESOURCE: Object = object(&[f("kind", Str), f("value", NUMBER)]);
static DEVICE_REQUEST: Object = object(&[
    f("capabilities", Unique(&StrList)).required(),
    f("count", Shape::Count),
    f("device_ids", Unique(&StrList)),
    f("driver", Str),
    f("options", LABELS).keyed(),
]);

/// One entry of `gpus`.
static GPU: Object = object(&[
    f("capabilities", Unique(&StrList)),
    f("count", Shape::Count),
    f("device_ids", Unique(&StrList)),
    f("driver", Str),
    f("options", LABELS).keyed(),
]);
static RESTART_POLICY: Object =
    object(&[f("condition", Str), f("delay", Duration), f("max_attempts", COUNT).exact(), f("window", Duration)]);
static UPDATE: Object = object(&[
    f("parallelism", COUNT).exact(),
    f("delay", Duration),
    f("failure_action", Str),
    f("monitor", Duration),
    f("max_failure_ratio", Float),
    f("order", Enum(&["start-first", "stop-first"])),
]);
static PLACEMENT: Object =
    object(&[f("constraints", StrList), f("preferences", List(&Obj(&PREFERENCE))), f("max_replicas_per_node", COUNT)]);
static PREFERENCE: Object = object(&[f("spread", Str)]);

static DEVELOP: Object = object(&[f("watch", List(&Obj(&WATCH)))]);
static WATCH: Object = object(&[
    f("path", Shape::WatchPath).required(),
    f("action", Enum(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])).required(),
    f("target", Str),
    f("ignore", Unique(&StrOrList(&Str))),
    f("include", Unique(&StrOrList(&Str))),
    f("exec", Obj(&HOOK)),
    f("initial_sync", StrictBool),
]);
static HOOK: Object = object(&[
    f("command", Command).replaced().required(),
    f("user", Str),
    f("privileged", Bool),
    f("working_dir", Str),
    f("environment", ENVIRONMENT).keyed(),
]);
static START_HOOK: Object = object(&[
    f("command", Command).replaced().nullable(),
    f("image", Str),
    f("user", Str),
    f("privileged", Bool),
    f("working_dir", Str),
    f("environment", ENVIRONMENT).keyed(),
    f("per_replica", Bool),
]);
static HEALTHCHECK: Object = object(&[
    f("test", Test).replaced(),
    f("interval", Duration).exact(),
    f("timeout", Duration).exact(),
    f("retries", Shape::Number(0)).exact(),
    f("start_period", Duration).exact(),
    f("start_interval", Duration).exact(),
    f("disable", Bool),
]);
static LOGGING: Object = object(&[f("driver", Str), f("options", TextMap)]);

/// A service's attachment to a network.
static ATTACHMENT: Object = object(&[
    f("aliases", StrList).unique(Identity::BeforeEquals),
    f("interface_name", Str),
    f("ipv4_address", Str),
    f("ipv6_address", Str),
    f("link_local_ips", StrList).unique(Identity::BeforeEquals),
    f("mac_address", Str),
    f("driver_opts", OptionMap),
    f("priority", Shape::Number(i64::MIN)),
    f("gw_priority", NUMBER),
]);
static MODEL_BINDING: Object = object(&[f("endpoint_var", Str), f("model_var", Str)]);
static PROVIDER: Object = object(&[f("type", Str).required(), f("options", Shape::Options)]);

/// Long form of a port.
pub(crate) static PORT: Object = object(&[
    f("name", Str),
    f("mode", Str),
    f("host_ip", Str),
    f("target", Int(0, 65535)).exact().required(),
    f("published", Shape::WholeText),
    f("protocol", Str),
    f("app_protocol", Str),
]);

/// Long form of a device.
pub(crate) static DEVICE: Object =
    object(&[f("source", Str).required(), f("target", Str).required(), f("permissions", Str)]);

/// Long form of a mount.
pub(crate) static MOUNT: Object = object(&[
    f("type", Enum(&["bind", "volume", "tmpfs", "image", "npipe", "cluster"])).required(),
    f("source", Str),
    f("target", Str).required(),
    f("read_only", Bool),
    f("consistency", Str),
    f("bind", Obj(&MOUNT_BIND)),
    f("volume", Obj(&MOUNT_VOLUME)),
    f("tmpfs", Obj(&MOUNT_TMPFS)),
    f("image", Obj(&MOUNT_IMAGE)),
]);
static MOUNT_BIND: Object = object(&[
    f("propagation", Str),
    f("create_host_path", Bool),
    f("recursive", Enum(&["enabled", "disabled", "writable", "readonly"])),
    f("selinux", Enum(&["z", "Z"])),
]);
static MOUNT_VOLUME: Object = object(&[f("labels", LABELS).keyed(), f("nocopy", Bool), f("subpath", Str)]);
static MOUNT_TMPFS: Object = object(&[f("size", Bytes), f("mode", ModeNumber)]);
static MOUNT_IMAGE: Object = object(&[f("subpath", Str)]);

/// Long form of a file mount.
static FILE_MOUNT: Object =
    object(&[f("source", Str), f("target", Str), f("uid", Str), f("gid", Str), f("mode", FileMode)]);

/// Long form of an environment file.
static ENV_FILE: Object = closed(&[f("path", Path).exact().required(), f("format", Str), f("required", Bool)]);

/// Long form of a limit.
pub(crate) static ULIMIT: Object =
    object(&[f("soft", Int(-1, i64::MAX)).exact().required(), f("hard", Int(-1, i64::MAX)).exact().required()]);

static NETWORK: Object = object(&[
    f("name", Str),
    f("driver", Str),
    f("driver_opts", OptionMap),
    f("ipam", Obj(&IPAM)),
    f("external", Any),
    f("internal", Bool),
    f("enable_ipv4", Bool),
    f("enable_ipv6", Bool),
    f("attachable", Bool),
    f("labels", LABELS).keyed(),
]);
static IPAM: Object =
    object(&[f("driver", Str), f("config", List(&Obj(&POOL))).merge(Merge::Pools), f("options", MapOf(&Str))]);
static POOL: Object =
    object(&[f("subnet", Str), f("ip_range", Str), f("gateway", Str), f("aux_addresses", MapOf(&Str))]);
static VOLUME: Object = object(&[
    f("name", Str),
    f("driver", Str),
    f("driver_opts", OptionMap),
    f("external", Any),
    f("labels", LABELS).keyed(),
]);
static CONFIG: Object = object(&[
    f("name", Str),
    f("content", Str).exact(),
    f("environment", Str).exact(),
    f("file", Path).exact(),
    f("external", Any),
    f("labels", LABELS).keyed(),
    f("template_driver", Str),
]);
static SECRET: Object = object(&[
    f("name", Str),
    f("environment", Str),
    f("file", Path).exact(),
    f("external", Any),
    f("labels", LABELS).keyed(),
    f("driver", Str),
    f("driver_opts", OptionMap),
    f("template_driver", Str),
]);
static MODEL: Object = object(&[
    f("name", Str),
    f("model", Str).required(),
    f("context_size", StrictInt(i64::MIN, i64::MAX)),
    f("runtime_flags", StrList),
]);
