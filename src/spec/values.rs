//! Checks of single values that reach the kernel or become part of names and paths.

use std::net::IpAddr;

use super::diagnostic::Kind;
use super::model::{MountKind, Service};
use super::units::ByteSize;
use super::validate::Check;
use super::words;
use crate::sys::process::signal_number;

type Problem = Option<String>;
type Test = fn(&str) -> Problem;

/// Checks the values of one service.
pub(crate) fn check(check: &mut Check<'_, '_, '_>) {
    let service = check.service;
    let single: [(&str, Option<&String>, Test); 13] = [
        ("image", service.image.as_ref(), image),
        ("user", service.user.as_ref(), user),
        ("container_name", service.container_name.as_ref(), container_name),
        ("hostname", service.hostname.as_ref(), hostname),
        ("restart", service.restart.as_ref(), restart),
        ("pull_policy", service.pull_policy.as_ref(), pull_policy),
        ("working_dir", service.working_dir.as_ref(), working_dir),
        ("cgroup_parent", service.cgroup_parent.as_ref(), cgroup_parent),
        ("stop_signal", service.stop_signal.as_ref(), signal),
        ("platform", service.platform.as_ref(), platform),
        ("runtime", service.runtime.as_ref(), plain_word),
        ("pid", service.pid.as_ref(), namespace),
        ("ipc", service.ipc.as_ref(), namespace),
    ];
    for (attribute, value, test) in single {
        if let Some(problem) = value.and_then(|value| test(value)) {
            check.refuse(Kind::Value, &[attribute], format!("{attribute}: {problem}"));
        }
    }
    patterns(check);
    if let Some(ByteSize(share)) = service.mem_swappiness.filter(|share| !(0..=100).contains(&share.0)) {
        check.refuse(Kind::Value, &["mem_swappiness"], format!("mem_swappiness: {share} is not between 0 and 100"));
    }
    let lists: [(&str, &[String], Test); 4] = [
        ("dns", &service.dns, address),
        ("extra_hosts", &service.extra_hosts, host),
        ("expose", &service.expose, expose),
        ("tmpfs", &service.tmpfs, tmpfs),
    ];
    for (attribute, values, test) in lists {
        for (index, value) in values.iter().enumerate() {
            if let Some(problem) = test(value) {
                check.refuse(Kind::Value, &[attribute, &index.to_string()], format!("{attribute}: {problem}"));
            }
        }
    }
    maps(check, service);
    capabilities(check, service);
    mounts(check, service);
    watches(check, service);
    requests(check, service);
}

/// What docker compose itself refuses of names that are checked more strictly above.
fn patterns(check: &mut Check<'_, '_, '_>) {
    const POLICIES: [&str; 8] = ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    let service = check.service;
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let part = |text: &str| text.trim_start_matches(['_', '.', '-']).len() > 1;
    if let Some(name) = &service.container_name
        && !name.split(|c| !inner(c)).any(part)
    {
        let message = format!("container_name: `{name}` is too short; a container name has at least two characters");
        check.error(Kind::Value, &["container_name"], message);
    }
    if let Some(policy) = &service.pull_policy
        && !POLICIES.iter().any(|known| policy.contains(known))
        && pull_policy(policy).is_some()
    {
        let problem = pull_policy(policy).unwrap_or_default();
        check.error(Kind::Value, &["pull_policy"], format!("pull_policy: {problem}"));
    }
}

fn signal(name: &str) -> Problem {
    let unknown = signal_number(name).is_none();
    unknown.then(|| format!("`{name}` is no signal; write one such as SIGTERM, RTMIN+3 or 15"))
}

/// Capabilities of Linux 6.18, without their prefix.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A capability that the kernel does not know can be printed, but not given.
fn capabilities(check: &mut Check<'_, '_, '_>, service: &Service) {
    for (attribute, names) in [("cap_add", &service.cap_add), ("cap_drop", &service.cap_drop)] {
        for (index, name) in names.iter().enumerate() {
            let upper = name.to_ascii_uppercase();
            let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if !CAPABILITIES.contains(&plain) {
                let span = check.tree.locate(&["services", check.name, attribute, &index.to_string()]);
                let hint = words::suggest(plain, CAPABILITIES).unwrap_or_else(|| "see capabilities(7)".into());
                check.session.refuse(
                    Kind::Value,
                    span,
                    &format!("{attribute}: there is no capability `{name}`"),
                    &hint,
                );
            }
        }
    }
}

fn maps(check: &mut Check<'_, '_, '_>, service: &Service) {
    for name in service.sysctls.keys() {
        if let Some(problem) = sysctl(name) {
            check.refuse(Kind::Value, &["sysctls", name], format!("sysctls: {problem}"));
        }
    }
    for name in service.environment.keys().filter(|name| name.contains(['*', '\0'])) {
        check.refuse(Kind::Value, &["environment", name], format!("environment: `{name}` cannot be a variable"));
    }
    for name in service.labels.keys().filter(|name| name.len() > 4096) {
        check.refuse(Kind::Limit, &["labels", name], "labels: a key is longer than 4096 bytes");
    }
    let driver = service.logging.as_ref().and_then(|logging| logging.driver.as_deref());
    if let Some(problem) = driver.and_then(plain_word) {
        check.refuse(Kind::Value, &["logging", "driver"], format!("logging.driver: {problem}"));
    }
}

fn mounts(check: &mut Check<'_, '_, '_>, service: &Service) {
    for (index, mount) in service.volumes.iter().enumerate() {
        let system =
            |path: &str| path.strip_prefix("/sys").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let from_sys = mount.kind == MountKind::Bind && mount.source.as_deref().is_some_and(system);
        if in_proc(&mount.target) || system(&mount.target) && !from_sys {
            let message = format!("volumes: nothing can be mounted at `{}`, a part of the system", mount.target);
            check.refuse(Kind::Value, &["volumes", &index.to_string()], message);
        }
    }
    for (index, device) in service.devices.iter().enumerate() {
        if device.source.split('/').any(|part| part == "..") {
            let message = format!("devices: `{}` must not contain `..`", device.source);
            check.refuse(Kind::Value, &["devices", &index.to_string()], message);
        }
    }
}

fn watches(check: &mut Check<'_, '_, '_>, service: &Service) {
    let watches = service.develop.as_ref().and_then(|develop| develop["watch"].as_array());
    for (index, watch) in watches.into_iter().flatten().enumerate() {
        let (action, target) = (watch["action"].as_str().unwrap_or_default(), watch["target"].as_str());
        if target.is_none() && !matches!(action, "rebuild" | "restart") {
            let message = format!("develop.watch[{index}]: action `{action}` needs a `target`");
            check.error(Kind::Shape, &["develop", "watch", &index.to_string()], message);
        }
    }
}

fn requests(check: &mut Check<'_, '_, '_>, service: &Service) {
    let reservations = service.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref()?.reservations.as_ref());
    let devices = reservations.and_then(|reservations| reservations.devices.as_ref());
    for (path, list) in [("deploy", devices), ("gpus", service.gpus.as_ref())] {
        let requests = list.and_then(serde_json::Value::as_array).into_iter().flatten();
        if requests.into_iter().any(|request| !request["count"].is_null() && !request["device_ids"].is_null()) {
            check.error(Kind::Conflict, &[path], format!("{path}: `count` and `device_ids` exclude each other"));
        }
    }
}

fn in_proc(path: &str) -> bool {
    path.strip_prefix("/proc").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `[host[:port]/]path[:tag][@digest]`.
fn image(text: &str) -> Problem {
    let bad = |why: &str| Some(format!("`{text}` is no image reference: {why}"));
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) || text.starts_with("sha256:") {
        return None;
    }
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    if let Some(digest) = digest {
        let (algorithm, hex) = digest.split_once(':').unwrap_or((digest, ""));
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return bad("the digest must be sha256:<64 hex digits>"),
        };
        if hex.len() != length || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return bad("the digest must be sha256:<64 hex digits>");
        }
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if tag.is_empty() {
            return bad("the tag is empty");
        }
        if tag.len() > 128 || !tag.starts_with(first) || !tag.chars().all(|c| first(c) || matches!(c, '.' | '-')) {
            return bad("a tag consists of letters, digits, `_`, `.` and `-`, at most 128");
        }
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (Some(host), path)
        }
        _ => (None, name),
    };
    if host.is_some_and(|host| !registry(host)) {
        return bad("the registry is no host name");
    }
    let component = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(inner)
            && part.ends_with(inner)
            && part.chars().all(|c| inner(c) || matches!(c, '.' | '_' | '-'))
            && !part.contains("..")
    };
    if name.chars().any(|c| c.is_ascii_uppercase()) && host.is_none_or(|_| path.chars().any(|c| c.is_ascii_uppercase()))
    {
        return bad("a repository name is lower-case");
    }
    if path.split('/').all(component) {
        return None;
    }
    bad("a repository name consists of lower-case letters, digits and separators")
}

/// `host[:port]`.
fn registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, "0"),
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let named = !host.is_empty() && host.chars().all(inner) && !host.starts_with(['.', '-']) && !host.contains("..");
    named && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// `name|uid[:group|gid]`.
fn user(text: &str) -> Problem {
    let bad = || Some(format!("`{text}` is no user; the form is `name|uid[:group|gid]`"));
    let parts: Vec<&str> = text.split(':').collect();
    let id = |part: &str| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() {
            return (part == "0" || !part.starts_with('0')) && part.parse::<u32>().is_ok_and(|id| id <= 2_147_483_647);
        }
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let inner = |c: char| first(c) || c.is_ascii_digit() || matches!(c, '.' | '-' | '@' | '\\');
        part.starts_with(first) && part.trim_end_matches('$').chars().all(inner)
    };
    if parts.len() > 2 || !parts.iter().all(|part| id(part)) { bad() } else { None }
}

fn container_name(text: &str) -> Problem {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let valid = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner) && text.len() <= 255;
    (!valid).then(|| format!("`{text}` cannot be a container name; it consists of letters, digits, `_`, `.` and `-`"))
}

fn hostname(text: &str) -> Problem {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let valid = !text.starts_with('-') && text.chars().all(inner) && text.len() <= 253;
    (!valid).then(|| format!("`{text}` is no host name; it consists of letters, digits and `-`"))
}

fn restart(text: &str) -> Problem {
    let attempts = text.strip_prefix("on-failure:").is_some_and(|count| count.parse::<u32>().is_ok());
    let known = matches!(text, "no" | "always" | "on-failure" | "unless-stopped") || attempts;
    (!known).then(|| format!("`{text}` is unknown; possible: no, always, on-failure[:attempts], unless-stopped"))
}

fn pull_policy(text: &str) -> Problem {
    let every = text.strip_prefix("every_").is_some_and(|time| time.parse::<super::units::Span>().is_ok());
    let known =
        matches!(text, "always" | "never" | "build" | "missing" | "if_not_present" | "refresh" | "daily" | "weekly");
    let possible = "possible: always, never, missing, build, daily, weekly, every_<duration>";
    (!known && !every).then(|| format!("`{text}` is unknown; {possible}"))
}

fn working_dir(text: &str) -> Problem {
    in_proc(text).then(|| format!("`{text}` lies in /proc, where no process can start"))
}

fn cgroup_parent(text: &str) -> Problem {
    text.split('/').any(|part| part == "..").then(|| format!("`{text}` must not contain `..`"))
}

fn platform(text: &str) -> Problem {
    let part = |part: &str| {
        !part.is_empty()
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let valid = text.split('/').all(part) && text.split('/').count() <= 3;
    (!valid).then(|| format!("`{text}` is no platform; the form is os[/architecture[/variant]]"))
}

fn plain_word(text: &str) -> Problem {
    let valid =
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':')) && !text.starts_with('.');
    (!valid).then(|| format!("`{text}` is no plain name"))
}

/// `service:x`, `container:x` or a mode.
fn namespace(text: &str) -> Problem {
    let name = text.strip_prefix("container:").or_else(|| text.strip_prefix("service:")).unwrap_or(text);
    if name.is_empty() {
        return None;
    }
    container_name(name).map(|_| format!("`{text}` is unknown; possible: host, service:<name>, container:<name>"))
}

fn address(text: &str) -> Problem {
    (!text.is_empty() && text.parse::<IpAddr>().is_err()).then(|| format!("`{text}` is no IP address"))
}

fn host(text: &str) -> Problem {
    let (name, ip) = text.split_once('=').unwrap_or((text, ""));
    let valid = matches!(ip, "host-gateway" | "") || ip.parse::<IpAddr>().is_ok();
    if name.contains(char::is_whitespace) {
        return Some(format!("`{name}` is no host name"));
    }
    (!valid).then(|| format!("`{ip}` is neither an IP address nor `host-gateway`"))
}

fn expose(text: &str) -> Problem {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    super::ports::published(ports).and_then(|()| super::ports::protocol(protocol)).err().map(|error| error.to_string())
}

fn tmpfs(text: &str) -> Problem {
    let path = text.split(':').next().unwrap_or_default();
    let system = in_proc(path) || path == "/sys" || path.starts_with("/sys/");
    system.then(|| format!("nothing can be mounted at `{path}`, a part of the system"))
}

/// Only kernel parameters that belong to a container's own namespaces.
fn sysctl(name: &str) -> Problem {
    const OWN: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm",
        "kernel.domainname",
        "kernel.hostname",
        "kernel.msg_next_id",
        "fs.mqueue.",
    ];
    const HOST: [&str; 5] = ["kernel.", "vm.", "fs.", "dev.", "debug."];
    let dotted = name.replace('/', ".");
    if name.contains("..") || dotted.contains("..") || name.contains(char::is_whitespace) {
        return Some(format!("`{name}` is no kernel parameter"));
    }
    let host_wide =
        HOST.iter().any(|prefix| dotted.starts_with(prefix)) && !OWN.iter().any(|own| dotted.starts_with(own));
    host_wide.then(|| format!("`{name}` belongs to the whole machine, not to a container"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        for good in ["nginx", "a/b", "Example.com:5000/u/app", "localhost/x:1", "x@sha256:", "a_b.c-d", "stack/host"] {
            let good = if good.ends_with("sha256:") { format!("{good}{}", "a".repeat(64)) } else { good.to_owned() };
            assert_eq!(image(&good), None);
        }
        let digest = format!("b@md5:{}", "0".repeat(32));
        for bad in [
            "b@sha256:../../../x",
            "b@sha256:abc",
            "b:../x",
            "../b",
            "registry/../../b",
            digest.as_str(),
            "B",
            "b:",
            "a:b:c:d",
            "http://x/b",
            "x@y@z",
            "UPPER/..",
        ] {
            assert!(image(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn users() {
        for good in ["0", "1000:1000", "app", "www-data:www-data", "_x", "a.b"] {
            assert_eq!(user(good), None);
        }
        for bad in ["4294967296", "-1", "2147483648:0", "0:4294967296", "a:b:c", "root\n", "../etc", "0x0", "00", "+0"]
        {
            assert!(user(bad).is_some(), "{bad}");
        }
    }
}
