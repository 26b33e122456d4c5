//! Device nodes of a container and which devices its control group may touch.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// Character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// A node to make below `/dev`, or anywhere else in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub path: String,
    /// Kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What the control group allows: some of `r`, `w` and `m`.
    pub permissions: String,
}

impl Device {
    /// The host's device at `source` as `path`; every device below it where `source` is a folder.
    pub fn from_host(source: &Path, path: &str, permissions: &str) -> std::io::Result<Vec<Self>> {
        let metadata = fs::metadata(source)?;
        if metadata.is_dir() {
            let mut found = Vec::new();
            for entry in fs::read_dir(source)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if !(kind.is_dir() || kind.is_char_device() || kind.is_block_device()) {
                    continue;
                }
                let Ok(name) = entry.file_name().into_string() else { continue };
                if matches!(name.as_str(), "pts" | "shm" | "mqueue" | "fd" | "console") {
                    continue;
                }
                found.extend(Self::from_host(&entry.path(), &format!("{path}/{name}"), permissions)?);
            }
            return Ok(found);
        }
        let kind = match metadata.file_type() {
            t if t.is_char_device() => DeviceKind::Char,
            t if t.is_block_device() => DeviceKind::Block,
            _ => {
                let message = format!("{} is not a device; use a bind mount for files", source.display());
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
            }
        };
        let number = metadata.rdev();
        Ok(vec![Self {
            path: path.to_owned(),
            kind,
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
            mode: metadata.mode() & 0o777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            permissions: permissions.to_owned(),
        }])
    }
}

/// What a control group may do with devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Both kinds if absent.
    pub kind: Option<DeviceKind>,
    /// Any if absent.
    pub major: Option<u32>,
    /// Any if absent.
    pub minor: Option<u32>,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

impl DeviceRule {
    /// Parses a compose `device_cgroup_rules` entry such as `c 1:3 mr`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (kind, numbers, permissions) = (words.next()?, words.next()?, words.next()?);
        let kind = match kind {
            "c" => Some(DeviceKind::Char),
            "b" => Some(DeviceKind::Block),
            "a" => None,
            _ => return None,
        };
        let number = |text: &str| match text {
            "*" => Some(None),
            _ => text.parse().ok().map(Some),
        };
        let (major, minor) = numbers.split_once(':')?;
        let valid = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c)) && words.next().is_none();
        let rule = Self { kind, major: number(major)?, minor: number(minor)?, permissions: permissions.to_owned() };
        valid.then_some(rule)
    }
}

impl From<&Device> for DeviceRule {
    fn from(device: &Device) -> Self {
        Self {
            kind: Some(device.kind),
            major: Some(device.major),
            minor: Some(device.minor),
            permissions: device.permissions.clone(),
        }
    }
}

/// Formats the rule as the v1 devices controller wants it.
impl std::fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Some(DeviceKind::Char) => 'c',
            Some(DeviceKind::Block) => 'b',
            None => 'a',
        };
        let number = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_parse_and_print() {
        for text in ["c 1:3 mr", "b *:* rwm", "a 7:* w"] {
            assert_eq!(DeviceRule::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "c", "c 1 r", "d 1:1 r", "c 1:3 x", "c 1:3 r r", "c -1:3 r"] {
            assert_eq!(DeviceRule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn host_devices_are_described() {
        let found = Device::from_host(Path::new("/dev/null"), "/dev/nothing", "rw").unwrap();
        assert_eq!((found[0].major, found[0].minor, found[0].kind), (1, 3, DeviceKind::Char));
        assert!(Device::from_host(Path::new("/etc/passwd"), "/dev/x", "r").is_err());
    }
}
