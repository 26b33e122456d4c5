//! A container's control groups: where they are, and their limits.

use std::io;
use std::path::Path;

use super::config::Config;
use super::error::Error;
use super::limits::{self, Write};
use super::resources::{DeviceAccess, Resources};
use crate::runtime::cgroup::Group;
use crate::runtime::device::{DeviceKind, DeviceRule};
use crate::runtime::error::LaunchError;

/// Files that some kernels lack although they have the controller: a limit there is a loss, not a failure.
const OPTIONAL: [&str; 8] = [
    "memory.memsw.limit_in_bytes",
    "memory.swap.max",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.use_hierarchy",
    "memory.swappiness",
    "cpu.rt_period_us",
    "cpu.rt_runtime_us",
    "cpu.cfs_burst_us",
];

/// What every container may use; the configuration's own rules come before.
const STANDARD: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The path below each hierarchy: as asked for, or by the container's id.
///
/// With `systemd` the path is of the form `slice:prefix:name`, and stands for the folder that systemd would make.
pub(super) fn path(config: &Config, id: &str, systemd: bool) -> Result<String, Error> {
    let asked = config.linux.cgroups_path.as_deref().unwrap_or_default();
    let parts: Vec<&str> = asked.split(':').collect();
    let path = match parts.as_slice() {
        [slice, prefix, name] if systemd => {
            let slice = if slice.is_empty() { "system.slice" } else { slice };
            let is_slice = name.strip_suffix(".slice").is_some();
            let unit = if is_slice { (*name).to_owned() } else { format!("{prefix}-{name}.scope") };
            format!("{}/{unit}", expanded(slice))
        }
        _ if asked.is_empty() => id.to_owned(),
        _ => asked.to_owned(),
    };
    let plain: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if plain.is_empty() || plain.contains(&"..") {
        return Err(Error::Config(format!("linux.cgroupsPath {asked:?} is not a plain path")));
    }
    Ok(plain.join("/"))
}

/// `a-b.slice` lies in `a.slice`.
fn expanded(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("{}.slice", &stem[..end])).collect::<Vec<_>>().join("/")
}

/// Sets limits; says what can't be held.
pub(super) fn limit(group: &Group, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    let mut losses = Vec::new();
    let (older, newer) = (limits::v1(resources), limits::v2(resources));
    for write in &older {
        if let Some(folder) = group.folder_of(write.controller) {
            set(&folder, write, &older, &mut losses)?;
        } else if !newer.iter().any(|other| same(other, write) && group.unified_has(other.controller)) {
            return Err(missing(write));
        }
    }
    for write in &newer {
        let own = write.controller == "unified";
        let held_elsewhere =
            older.iter().any(|other| same(write, other) && group.folder_of(other.controller).is_some());
        match group.unified_folder() {
            Some(folder) if own || group.unified_has(write.controller) => {
                if own && (write.file.contains('/') || write.file.starts_with('.')) {
                    return Err(LaunchError::refused(format!("set {}", write.file), "not a name of a file"));
                }
                set(&folder, write, &newer, &mut losses)?;
            }
            _ if held_elsewhere => {}
            _ => return Err(missing(write)),
        }
    }
    Ok(losses)
}

/// Whether both are about the same thing.
fn same(newer: &Write, older: &Write) -> bool {
    newer.controller == older.controller || (newer.controller, older.controller) == ("io", "blkio")
}

fn missing(write: &Write) -> LaunchError {
    let reason = format!("this kernel offers no control group `{}`", write.controller);
    LaunchError::refused(format!("set {}", write.file), reason)
}

fn set(folder: &Path, write: &Write, all: &[Write], losses: &mut Vec<String>) -> Result<(), LaunchError> {
    let Write { file, value, .. } = write;
    let put = |file: &str, value: &str| crate::runtime::cgroup::write(&folder.join(file), value);
    let result = match put(file, value) {
        // The two limits of memory are never in the wrong order: what grows goes first.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) && file == "memory.limit_in_bytes" => {
            let both = all.iter().find(|other| other.file == "memory.memsw.limit_in_bytes");
            both.map_or(Err(e), |both| put(&both.file, &both.value)).and_then(|()| put(file, value))
        }
        // The weights of the scheduler that has them.
        Err(e) if e.kind() == io::ErrorKind::NotFound && file.starts_with("blkio.weight") => {
            put(&file.replace("blkio.", "blkio.bfq."), value)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && file == "io.weight" => put("io.bfq.weight", value),
        other => other,
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound && OPTIONAL.contains(&file.as_str()) => {
            losses.push(format!("{file} is not set to {value}: this kernel has no such limit"));
            Ok(())
        }
        other => other.map_err(|e| LaunchError::new(format!("set {file} to {value}"), e)),
    }
}

/// Lets the container touch the devices that its rules allow, and the standard ones.
pub(super) fn allow_devices(group: &Group, rules: &[DeviceAccess]) -> Result<(), LaunchError> {
    if rules.is_empty() {
        return Ok(());
    }
    let mut ordered = rules.iter().map(|rule| Ok((rule.allow, understood(rule)?))).collect::<Result<Vec<_>, _>>()?;
    ordered.extend(STANDARD.iter().filter_map(|rule| Some((true, DeviceRule::parse(rule)?))));
    if let Some(folder) = group.folder_of("devices") {
        for (allow, rule) in &ordered {
            let file = if *allow { "devices.allow" } else { "devices.deny" };
            crate::runtime::cgroup::write(&folder.join(file), &rule.to_string())
                .map_err(|e| LaunchError::new(format!("write `{rule}` to {file}"), e))?;
        }
        return Ok(());
    }
    group.filter_devices(&ordered)
}

fn understood(rule: &DeviceAccess) -> Result<DeviceRule, LaunchError> {
    let kind = match rule.kind.as_deref() {
        None | Some("a" | "") => None,
        Some("c" | "u") => Some(DeviceKind::Char),
        Some("b") => Some(DeviceKind::Block),
        Some(other) => return Err(LaunchError::refused("allow devices", format!("unknown type {other:?}"))),
    };
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let permissions = rule.access.clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    Ok(DeviceRule { kind, major: number(rule.major), minor: number(rule.minor), permissions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_groups() {
        let of = |asked: Option<&str>, systemd| {
            let mut config = Config::default();
            config.linux.cgroups_path = asked.map(str::to_owned);
            path(&config, "id", systemd).ok()
        };
        assert_eq!(of(None, false).as_deref(), Some("id"));
        assert_eq!(of(Some("/a/b"), false).as_deref(), Some("a/b"));
        assert_eq!(of(Some("a//b"), false).as_deref(), Some("a/b"));
        assert_eq!(of(Some("/a/../../b"), false), None);
        assert_eq!(of(Some("a-b.slice:x:y"), true).as_deref(), Some("a.slice/a-b.slice/x-y.scope"));
        assert_eq!(of(Some(":x:y"), true).as_deref(), Some("system.slice/x-y.scope"));
    }
}
