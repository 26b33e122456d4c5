//! What is wrong with a configuration, found before anything is made; and what is only worth a warning.

use std::path::Path;

use super::config::{Capabilities, Config, Process};
use super::error::Error;
use super::identity;
use super::linux::Kind;
use super::options::Propagation;

/// Refuses what can't be obeyed. Gives warnings.
pub(super) fn check(config: &Config) -> Result<Vec<String>, Error> {
    version(&config.oci_version)?;
    let root = config.root.as_ref().ok_or_else(|| wrong("root is missing"))?;
    if root.path.is_empty() {
        return Err(wrong("root.path is empty"));
    }
    for mount in &config.mounts {
        if mount.destination.is_empty() {
            return Err(wrong("a mount has no destination"));
        }
    }
    namespaces(config)?;
    let linux = &config.linux;
    if linux.intel_rdt.is_some() {
        return Err(wrong("linux.intelRdt is not supported"));
    }
    if let Some(name) = &linux.rootfs_propagation
        && !name.is_empty()
        && Propagation::parse(name).is_none()
    {
        return Err(wrong(format!("linux.rootfsPropagation {name:?} is unknown")));
    }
    if let Some(personality) = linux.personality.as_ref().filter(|personality| !personality.flags.is_empty()) {
        return Err(wrong(format!("linux.personality.flags {:?} are not supported", personality.flags)));
    }
    hooks(config)?;
    match &config.process {
        Some(process) => self::process(process),
        None => Ok(Vec::new()),
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::Config(message.into())
}

fn version(text: &str) -> Result<(), Error> {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').map(str::parse::<u32>).collect();
    match numbers.as_slice() {
        [Ok(1), Ok(_), Ok(_)] => Ok(()),
        _ => Err(wrong(format!("ociVersion {text:?} is not supported: this is 1.x"))),
    }
}

fn namespaces(config: &Config) -> Result<(), Error> {
    let linux = &config.linux;
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        if linux.namespaces[..index].iter().any(|other| other.kind == namespace.kind) {
            return Err(wrong(format!("linux.namespaces names {} twice", namespace.kind.file())));
        }
    }
    let none = |kind| linux.namespace(kind).is_none();
    if linux.has_new(Kind::User) {
        if linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty() {
            return Err(wrong("a new user namespace needs linux.uidMappings and linux.gidMappings"));
        }
    } else if none(Kind::User) && !(linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty()) {
        return Err(wrong("linux.uidMappings and linux.gidMappings need a new user namespace"));
    }
    if none(Kind::Uts) {
        for (name, value) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
            if value.as_ref().is_some_and(|value| !value.is_empty()) {
                return Err(wrong(format!("{name} needs a uts namespace")));
            }
        }
    }
    if !linux.time_offsets.is_empty() && !linux.has_new(Kind::Time) {
        return Err(wrong("linux.timeOffsets need a new time namespace"));
    }
    if let Some(clock) = linux.time_offsets.keys().find(|clock| !matches!(clock.as_str(), "monotonic" | "boottime")) {
        return Err(wrong(format!("linux.timeOffsets has an unknown clock {clock:?}")));
    }
    if none(Kind::Mount) && !(linux.masked_paths.is_empty() && linux.readonly_paths.is_empty()) {
        return Err(wrong("linux.maskedPaths and linux.readonlyPaths need a mount namespace"));
    }
    if !linux.net_devices.is_empty() && none(Kind::Network) {
        return Err(wrong("linux.netDevices need a network namespace"));
    }
    Ok(())
}

fn hooks(config: &Config) -> Result<(), Error> {
    let hooks = &config.hooks;
    let all = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
        &hooks.poststart,
        &hooks.poststop,
    ];
    for hook in all.into_iter().flatten() {
        if !Path::new(&hook.path).is_absolute() {
            return Err(wrong(format!("the path of a hook, {:?}, is not absolute", hook.path)));
        }
        if hook.timeout.is_some_and(|timeout| timeout <= 0) {
            return Err(wrong(format!("the timeout of hook {} is not greater than zero", hook.path)));
        }
    }
    Ok(())
}

/// Refuses a process that can't be; gives warnings.
pub(super) fn process(process: &Process) -> Result<Vec<String>, Error> {
    if process.args.is_empty() || process.args[0].is_empty() {
        return Err(wrong("process.args is empty"));
    }
    if !Path::new(&process.cwd).is_absolute() {
        return Err(wrong(format!("process.cwd {:?} is not an absolute path", process.cwd)));
    }
    for (index, limit) in process.rlimits.iter().enumerate() {
        if !limit.kind.starts_with("RLIMIT_") {
            return Err(wrong(format!("process.rlimits has an unknown type {:?}", limit.kind)));
        }
        if process.rlimits[..index].iter().any(|other| other.kind == limit.kind) {
            return Err(wrong(format!("process.rlimits names {} twice", limit.kind)));
        }
        if limit.soft > limit.hard {
            return Err(wrong(format!("process.rlimits: {} is softly more than hard", limit.kind)));
        }
    }
    if process.io_priority.as_ref().is_some_and(|priority| priority.priority > 7) {
        return Err(wrong("process.ioPriority.priority is more than 7"));
    }
    Ok(process.capabilities.as_ref().map(unknown_capabilities).unwrap_or_default())
}

fn unknown_capabilities(sets: &Capabilities) -> Vec<String> {
    let all = [&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient];
    let mut unknown: Vec<&str> = all.into_iter().flat_map(|set| identity::known(set).1).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if unknown.is_empty() {
        return Vec::new();
    }
    vec![format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = r#""ociVersion":"1.0.2-dev","root":{"path":"r"},"process":{"cwd":"/","args":["a"]}"#;

    fn of(more: &str) -> Result<Vec<String>, String> {
        let config = Config::parse(&format!("{{{FINE}{more}}}")).map_err(|e| e.to_string())?;
        check(&config).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(of(""), Ok(Vec::new()));
        let table = [
            (r#","hostname":"x""#, "uts"),
            (r#","linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#, "twice"),
            (r#","linux":{"namespaces":[{"type":"user"}]}"#, "uidMappings"),
            (r#","linux":{"intelRdt":{}}"#, "intelRdt"),
            (r#","linux":{"rootfsPropagation":"wide"}"#, "wide"),
            (r#","linux":{"timeOffsets":{"monotonic":{"secs":1}}}"#, "time namespace"),
            (r#","hooks":{"prestart":[{"path":"x"}]}"#, "absolute"),
            (r#","hooks":{"prestart":[{"path":"/x","timeout":0}]}"#, "timeout"),
            (r#","mounts":[{}]"#, "destination"),
        ];
        for (more, word) in table {
            let error = of(more).unwrap_err();
            assert!(error.contains(word), "{more}: {error}");
        }
    }

    #[test]
    fn unknown_capabilities_are_a_warning() {
        let sets = Capabilities { bounding: vec!["TEST_CAP".into(), "CAP_KILL".into()], ..Capabilities::default() };
        assert_eq!(unknown_capabilities(&sets), ["ignoring unknown or unavailable capabilities: [TEST_CAP]"]);
    }
}
