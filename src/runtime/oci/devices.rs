//! Device nodes of a container, and the links that programs expect beside them.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, mknodat, statat, symlinkat};
use rustix::io::Errno;

use super::config::Config;
use super::linux::{Device, Kind};
use super::options::Options;
use crate::runtime::child::{Step, dev, mounts};
use crate::runtime::error::LaunchError;
use crate::sys::path::{self, Missing};
use crate::sys::{mount, tree};

/// Every device that the container gets: its own, and the standard ones that it doesn't name.
fn wanted(config: &Config) -> Vec<Device> {
    let own = &config.linux.devices;
    let standard = dev::NODES.iter().map(|(name, major, minor)| Device {
        kind: "c".to_owned(),
        path: format!("/dev/{name}"),
        major: *major,
        minor: *minor,
        file_mode: Some(0o666),
        uid: None,
        gid: None,
    });
    let missing = standard.filter(|device| !own.iter().any(|other| other.path == device.path));
    missing.chain(own.iter().cloned()).collect()
}

/// Whether `/dev` is the host's, in which nothing is to be made.
fn is_foreign(config: &Config) -> bool {
    let is_dev = |destination: &str| Path::new("/").join(destination) == Path::new("/dev");
    config.mounts.iter().any(|mount| {
        is_dev(&mount.destination) && (mount.kind == "bind" || Options::parse(&mount.options).bind.is_some())
    })
}

/// The devices as mounts, for a container whose user namespace may make no node. Called outside.
pub(super) fn outside(config: &Config) -> Result<Vec<(OwnedFd, Device)>, LaunchError> {
    if config.linux.namespace(Kind::User).is_none() || is_foreign(config) {
        return Ok(Vec::new());
    }
    let step = || "make devices";
    // Copies of what it holds can only be made of an attached mount (before kernel 6.15): the host's own will do, where
    // it is the same device.
    let mut found = Vec::new();
    for device in wanted(config) {
        let host = Path::new(&device.path);
        let number = rustix::fs::makedev(device.major, device.minor);
        match rustix::fs::stat(host) {
            Ok(stat) if stat.st_rdev == number => {
                found.push((mount::clone_tree(&fs_err::canonicalize(host).step(step)?, false).step(step)?, device));
            }
            _ => {
                let reason = "a user namespace can only have devices that the host has at the same path";
                return Err(LaunchError::refused(format!("make device {}", device.path), reason));
            }
        }
    }
    Ok(found)
}

/// Makes or mounts the devices, and the links.
pub(super) fn inside(root: BorrowedFd<'_>, config: &Config, mounted: &[(OwnedFd, Device)]) -> Result<(), LaunchError> {
    if is_foreign(config) {
        return Ok(());
    }
    let place = path::ensure_in_root(root, Path::new("/dev"), Missing::Folder).step(|| "open /dev")?;
    if mounted.is_empty() {
        wanted(config).iter().try_for_each(|device| node(root, device))?;
    }
    for (tree, device) in mounted {
        mounts::place(root, tree.as_fd(), &device.path)?;
    }
    for (target, name) in dev::LINKS {
        // The terminals of the container are those of its own file system, whatever its image has there.
        if name == "ptmx" && statat(&place, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            tree::remove(place.as_fd(), name.as_bytes()).step(|| "make /dev/ptmx")?;
        }
        match symlinkat(target, &place, name) {
            // A read-only /dev holds what it holds.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(e) => return Err(LaunchError::new(format!("make /dev/{name}"), e)),
        }
    }
    Ok(())
}

fn node(root: BorrowedFd<'_>, device: &Device) -> Result<(), LaunchError> {
    let step = || format!("make device {}", device.path);
    let path = Path::new(&device.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(LaunchError::refused(step(), "not a path of a file"));
    };
    let folder = path::ensure_in_root(root, parent, Missing::Folder).step(step)?;
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(LaunchError::refused(step(), format!("unknown type {other:?}"))),
    };
    let number = if kind == FileType::Fifo { 0 } else { rustix::fs::makedev(device.major, device.minor) };
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    match mknodat(&folder, name, kind, mode, number) {
        Err(Errno::EXIST) => {
            let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).step(step)?;
            if (FileType::from_raw_mode(stat.st_mode), stat.st_rdev) != (kind, number) {
                return Err(LaunchError::refused(step(), "something else is there"));
            }
        }
        other => other.step(step)?,
    }
    let owner = |id: Option<u32>| id.unwrap_or(0);
    let (uid, gid) = (Uid::from_raw(owner(device.uid)), Gid::from_raw(owner(device.gid)));
    chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).step(step)
}

/// The null device of the container, or whatever is there in its place, for masks.
pub(super) fn null(root: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    let null = path::open_in_root(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY).step(|| "open /dev")?;
    let node = statat(&null, "null", AtFlags::SYMLINK_NOFOLLOW).step(|| "look at /dev/null")?;
    let device = FileType::from_raw_mode(node.st_mode) == FileType::CharacterDevice;
    if !device || node.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(LaunchError::refused("look at /dev/null", "it isn't the null device"));
    }
    Ok(null)
}
