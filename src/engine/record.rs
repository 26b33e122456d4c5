//! From a resolved service and its image to the record of a container: everything that is decided at its creation.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::control::Failure;
use super::intent::Desired;
use super::observe::digest;
use super::state::{Endpoint, Joins, MountRecord, Record, VERSION};
use crate::images::{self, Image};
use crate::planner;
use crate::runtime::caps;
use crate::runtime::launch::{Process, Rlimit};
use crate::spec::model::{FileMount, Healthcheck, MountKind, Service, Ulimit};
use crate::spec::units::Span;
use crate::sys::process::signal_number;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What makes a container this one and not another of its service.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) number: u32,
    pub(crate) oneoff: bool,
    /// Id of the container that it runs a step of `pre_start` for.
    pub(crate) prepares: Option<String>,
    /// Whether it answers to its service's name and aliases.
    pub(crate) discoverable: bool,
}

/// What depends on other containers and on leases.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) mounts: Vec<MountRecord>,
    pub(crate) joins: Joins,
    pub(crate) shares: BTreeMap<String, String>,
}

/// The record of a new container.
pub(crate) fn record(
    desired: &Desired,
    identity: Identity,
    service: &Service,
    image: &Image,
    hostname: String,
    surroundings: Surroundings,
) -> Result<Record, Failure> {
    let process = process(service, image, &hostname).map_err(|failure| Failure {
        message: format!("service {}: {}", identity.service, failure.message),
        ..failure
    })?;
    let stop = service.stop_signal.as_deref().unwrap_or(&image.config.config.stop_signal);
    let stop_signal = signal_number(if stop.is_empty() { "SIGTERM" } else { stop })
        .ok_or_else(|| Failure::new(format!("service {}: unknown stop signal {stop:?}", identity.service)))?;
    let files = |kind: &str, mounts: &[FileMount]| -> Vec<(String, String)> {
        let key = |mount: &FileMount| format!("{kind}:{}", mount.source);
        mounts.iter().filter_map(|m| Some((key(m), digest(desired.objects.get(&key(m))?)))).collect()
    };
    Ok(Record {
        version: VERSION,
        labels: labels(desired, &identity, service, image),
        image: planner::image_name(&desired.project, &identity.service, service),
        image_id: image.id.to_string(),
        process,
        created: Timestamp::now(),
        config_hash: crate::spec::hash::config_hash(service),
        files: files("secret", &service.secrets).into_iter().chain(files("config", &service.configs)).collect(),
        shares: surroundings.shares,
        config: service.clone(),
        healthcheck: healthcheck(service, image.config.config.healthcheck.as_ref()),
        stop_signal,
        hostname,
        joins: surroundings.joins,
        endpoints: surroundings.endpoints,
        mounts: surroundings.mounts,
        user_namespace: super::state::UserNamespace::default(),
        project: desired.project.name.clone(),
        id: identity.id,
        name: identity.name,
        service: identity.service,
        number: identity.number,
        oneoff: identity.oneoff,
        prepares: identity.prepares,
    })
}

fn labels(desired: &Desired, identity: &Identity, service: &Service, image: &Image) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> =
        image.config.config.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.extend(service.labels.clone());
    let join = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",")
    };
    let condition = |condition: &crate::spec::model::Condition| {
        serde_json::to_value(condition).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let depends =
        service.depends_on.iter().map(|(name, on)| format!("{name}:{}:{}", condition(&on.condition), on.restart));
    let own = [
        ("project", desired.project.name.clone()),
        ("service", identity.service.clone()),
        ("container-number", identity.number.to_string()),
        ("oneoff", if identity.oneoff { "True" } else { "False" }.to_owned()),
        ("config-hash", crate::spec::hash::config_hash(service)),
        ("image", image.id.to_string()),
        ("depends_on", depends.collect::<Vec<_>>().join(",")),
        ("project.working_dir", desired.source.working_dir.display().to_string()),
        ("project.config_files", join(&desired.source.files)),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    labels.extend(own.into_iter().map(|(key, value)| (format!("com.docker.compose.{key}"), value)));
    if !desired.source.env_files.is_empty() {
        let key = "com.docker.compose.project.environment_file".to_owned();
        labels.insert(key, join(&desired.source.env_files));
    }
    labels
}

fn process(service: &Service, image: &Image, hostname: &str) -> Result<Process, Failure> {
    let config = &image.config.config;
    let entrypoint = service.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
    let command = match (&service.command, &service.entrypoint) {
        (Some(command), _) => command.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => config.cmd.clone().unwrap_or_default(),
    };
    let args: Vec<String> = entrypoint.into_iter().chain(command).collect();
    if args.is_empty() {
        return Err(Failure::new("no command is given, and the image has none").hint("add `command:` to the service"));
    }
    if let Some(option) = service.security_opt.iter().find(|option| !is_known(option)) {
        return Err(Failure::new(format!(
            "security_opt {option} is not supported yet, and the stack cannot start without it"
        ))
        .hint("remove it if the service can do without"));
    }
    let flag = |name: &str| {
        let named =
            |option: &String| *option == name || *option == format!("{name}:true") || *option == format!("{name}=true");
        service.security_opt.iter().any(named)
    };
    let privileged = service.privileged.unwrap_or(false);
    let caps = caps::effective(&service.cap_add, &service.cap_drop, privileged);
    Ok(Process {
        args,
        env: environment(service, &config.env, hostname),
        cwd: service.working_dir.clone().unwrap_or_else(|| config.working_dir.clone()),
        user: service.user.clone().unwrap_or_else(|| config.user.clone()),
        groups: service.group_add.clone(),
        caps: caps.map_err(|e| Failure::new(e.to_string()))?,
        no_new_privileges: flag("no-new-privileges"),
        rlimits: rlimits(&service.ulimits),
        tty: service.tty.unwrap_or(false),
        size: None,
        oom_score_adj: service.oom_score_adj.and_then(|adj| i32::try_from(adj).ok()),
        umask: None,
    })
}

/// Security options that are honoured, or that ask for nothing.
fn is_known(option: &str) -> bool {
    let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match name {
        "no-new-privileges" => matches!(value, "" | "true" | "false"),
        "seccomp" => !value.is_empty(),
        "systempaths" | "apparmor" => value == "unconfined",
        "label" => value == "disable",
        _ => false,
    }
}

/// The image's variables under the service's; a variable without a value is taken away.
fn environment(service: &Service, image: &[String], hostname: &str) -> Vec<String> {
    let mut variables: Vec<(String, String)> =
        vec![("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOSTNAME".to_owned(), hostname.to_owned())];
    if service.tty.unwrap_or(false) {
        variables.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let mut set = |key: &str, value: Option<&str>| match (variables.iter().position(|(k, _)| k == key), value) {
        (Some(at), Some(value)) => value.clone_into(&mut variables[at].1),
        (Some(at), None) => drop(variables.remove(at)),
        (None, Some(value)) => variables.push((key.to_owned(), value.to_owned())),
        (None, None) => {}
    };
    for variable in image {
        if let Some((key, value)) = variable.split_once('=') {
            set(key, Some(value));
        }
    }
    for (key, value) in &service.environment {
        set(key, value.as_deref());
    }
    variables.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Limits of a file as the kernel takes them.
pub(crate) fn rlimits(ulimits: &BTreeMap<String, Ulimit>) -> Vec<Rlimit> {
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let ulimit = |(name, ulimit): (&String, &Ulimit)| {
        let (soft, hard) = ulimit.single.map_or((ulimit.soft, ulimit.hard), |single| (single, single));
        Rlimit { name: name.clone(), soft: limit(soft), hard: limit(hard) }
    };
    ulimits.iter().map(ulimit).collect()
}

/// The service's check over the image's, field by field; none if there is nothing to run.
fn healthcheck(service: &Service, image: Option<&images::Healthcheck>) -> Option<Healthcheck> {
    let nanoseconds = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0).map(|n| Span::from(Duration::from_nanos(n)));
    let base = image.map(|check| Healthcheck {
        test: Some(check.test.clone()).filter(|test| !test.is_empty()),
        timeout: nanoseconds(check.timeout),
        interval: nanoseconds(check.interval),
        retries: u64::try_from(check.retries).ok().filter(|n| *n > 0),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        disable: false,
    });
    let base = base.unwrap_or_default();
    let own = service.healthcheck.clone().unwrap_or_default();
    let merged = Healthcheck {
        test: own.test.or(base.test),
        timeout: own.timeout.or(base.timeout),
        interval: own.interval.or(base.interval),
        retries: own.retries.or(base.retries),
        start_period: own.start_period.or(base.start_period),
        start_interval: own.start_interval.or(base.start_interval),
        disable: own.disable,
    };
    let runs = merged.test.as_ref().is_some_and(|test| test.first().is_some_and(|kind| kind != "NONE"));
    (runs && !merged.disable).then_some(merged)
}

/// The mounts of a service in its image, those of `volumes_from` aside. `anonymous` names the volume for a path that
/// has none: the replaced container's, or a new one.
pub(crate) fn mounts(
    desired: &Desired,
    service: &Service,
    image: &Image,
    mut anonymous: impl FnMut(&str) -> Result<String, Failure>,
) -> Result<Vec<MountRecord>, Failure> {
    let mut mounts = Vec::new();
    for volume in &service.volumes {
        let options = volume.volume.clone().unwrap_or_default();
        let bind = volume.bind.clone().unwrap_or_default();
        let tmpfs = volume.tmpfs.clone().unwrap_or_default();
        let source = volume.source.clone().unwrap_or_default();
        let is_anonymous = volume.kind == MountKind::Volume && source.is_empty();
        let (kind, source) = match volume.kind {
            MountKind::Bind => ("bind", source),
            MountKind::Tmpfs => ("tmpfs", String::new()),
            MountKind::Image => ("image", source),
            MountKind::Volume if is_anonymous => ("volume", anonymous(&volume.target)?),
            MountKind::Volume => ("volume", planner::volume_name(&desired.project, &source)),
            MountKind::Npipe | MountKind::Cluster => {
                return Err(Failure::new(format!(
                    "the mount at {} is of a type that Linux hosts don't have",
                    volume.target
                )));
            }
        };
        mounts.push(MountRecord {
            kind: kind.to_owned(),
            source,
            target: volume.target.clone(),
            read_only: volume.read_only,
            anonymous: is_anonymous,
            subpath: options.subpath.or_else(|| volume.image.clone().and_then(|image| image.subpath)),
            nocopy: options.nocopy,
            create_host_path: bind.create_host_path.unwrap_or(true),
            propagation: bind.propagation,
            recursive: bind.recursive,
            size: tmpfs.size.and_then(|size| u64::try_from(size.0).ok()),
            mode: tmpfs.mode,
            uid: 0,
            gid: 0,
        });
    }
    for text in &service.tmpfs {
        mounts.push(short_tmpfs(text)?);
    }
    for path in image.config.config.volumes.keys() {
        if !mounts.iter().any(|mount| mount.target.trim_end_matches('/') == path.trim_end_matches('/')) {
            let (source, target) = (anonymous(path)?, path.clone());
            mounts.push(MountRecord {
                kind: "volume".to_owned(),
                source,
                target,
                anonymous: true,
                ..MountRecord::default()
            });
        }
    }
    Ok(mounts)
}

/// `path[:options]`.
fn short_tmpfs(text: &str) -> Result<MountRecord, Failure> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = MountRecord { kind: "tmpfs".to_owned(), target: target.to_owned(), ..MountRecord::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let invalid = || Failure::new(format!("tmpfs {target}: invalid option {option:?}"));
        match option.split_once('=') {
            Some(("size", size)) => mount.size = Some(tmpfs_size(size).ok_or_else(invalid)?),
            Some(("mode", mode)) => mount.mode = Some(u32::from_str_radix(mode, 8).map_err(|_| invalid())?),
            None if option == "ro" => mount.read_only = true,
            None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec" | "exec" | "suid" | "dev") => {}
            Some(("uid", uid)) => mount.uid = uid.parse().map_err(|_| invalid())?,
            Some(("gid", gid)) => mount.gid = gid.parse().map_err(|_| invalid())?,
            Some(("nr_inodes", _)) => {}
            _ => return Err(invalid()),
        }
    }
    Ok(mount)
}

/// A size as tmpfs takes it: a number with `k`, `m` or `g`.
fn tmpfs_size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entrypoint: &[&str], cmd: &[&str], env: &[&str]) -> Image {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut config = images::ImageConfig::scratch();
        config.config.entrypoint = Some(owned(entrypoint)).filter(|words| !words.is_empty());
        config.config.cmd = Some(owned(cmd)).filter(|words| !words.is_empty());
        config.config.env = owned(env);
        let digest: images::Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let (names, layers) = (Vec::new(), Vec::new());
        Image { id: digest, digest, names, sources: Vec::new(), config, layers, created: None, host: false }
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn args(service: &Service, image: &Image) -> Vec<String> {
        process(service, image, "host").unwrap().args
    }

    #[test]
    fn an_entrypoint_of_the_service_drops_the_images_command() {
        let image = image(&["/entry"], &["serve"], &[]);
        let service = Service::default();
        assert_eq!(args(&service, &image), ["/entry", "serve"]);
        let service = Service { command: Some(words("other")), ..Service::default() };
        assert_eq!(args(&service, &image), ["/entry", "other"]);
        let service = Service { entrypoint: Some(words("mine")), ..Service::default() };
        assert_eq!(args(&service, &image), ["mine"]);
        let service = Service { entrypoint: Some(words("mine")), command: Some(words("x y")), ..Service::default() };
        assert_eq!(args(&service, &image), ["mine", "x", "y"]);
    }

    #[test]
    fn a_process_without_a_command_is_refused() {
        let service = Service { entrypoint: Some(Vec::new()), ..Service::default() };
        assert!(process(&service, &image(&["/entry"], &["serve"], &[]), "host").is_err());
    }

    #[test]
    fn variables_of_the_service_beat_the_images_and_null_takes_them_away() {
        let image = image(&[], &["x"], &["PATH=/bin", "A=image", "B=image"]);
        let environment = [("A", Some("service")), ("B", None), ("C", Some("c=d"))];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        let service = Service { environment: environment.into_iter().collect(), ..Service::default() };
        let env = process(&service, &image, "web").unwrap().env;
        assert_eq!(env, ["PATH=/bin", "HOSTNAME=web", "A=service", "C=c=d"]);
    }

    #[test]
    fn a_disabled_check_is_none_and_fields_are_merged_one_by_one() {
        let image = images::Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval: 5_000_000_000,
            ..images::Healthcheck::default()
        };
        let own = Healthcheck { retries: Some(7), ..Healthcheck::default() };
        let service = Service { healthcheck: Some(own), ..Service::default() };
        let merged = healthcheck(&service, Some(&image)).unwrap();
        assert_eq!(merged.retries, Some(7));
        assert_eq!(merged.interval, Some(Span::from(Duration::from_secs(5))));
        let own = Healthcheck { disable: true, ..Healthcheck::default() };
        let service = Service { healthcheck: Some(own), ..Service::default() };
        assert_eq!(healthcheck(&service, Some(&image)), None);
        assert_eq!(healthcheck(&Service::default(), None), None);
    }

    #[test]
    fn security_options_are_honoured_or_refused() {
        let of = |option: &str| {
            let service = Service { security_opt: vec![option.to_owned()], ..Service::default() };
            process(&service, &image(&["/entry"], &[], &[]), "host")
        };
        assert!(of("no-new-privileges:true").unwrap().no_new_privileges);
        assert!(!of("no-new-privileges=false").unwrap().no_new_privileges);
        assert!(of("seccomp:unconfined").is_ok());
        assert!(of("seccomp=profile.json").is_ok());
        for option in ["seccomp=", "apparmor:mine", "label=type:x", "nonsense"] {
            assert!(of(option).is_err(), "{option}");
        }
    }

    #[test]
    fn short_tmpfs_mounts_take_sizes_and_modes() {
        let mount = short_tmpfs("/cache:size=64m,mode=0700,ro").unwrap();
        assert_eq!((mount.target.as_str(), mount.size, mount.mode), ("/cache", Some(64 << 20), Some(0o700)));
        assert!(mount.read_only);
        assert!(short_tmpfs("/cache:size=much").is_err());
        assert_eq!(short_tmpfs("/run").unwrap().size, None);
    }
}
