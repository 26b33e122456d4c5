//! A container's `/dev`: a file system of its own, filled before anything of the image can be in the way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chownat, mkdirat, mknodat, symlinkat, unlinkat};

use super::Step;
use crate::runtime::device::{Device, DeviceKind};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Ids;
use crate::sys::{mount, tree};

/// Name and numbers of the devices that every container has.
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Target and name of the links beside them.
pub(crate) const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];
const FOLDERS: [&str; 3] = ["pts", "shm", "mqueue"];

/// Where a device that belongs elsewhere waits for its mount, by its place in the list.
fn waiting(index: usize) -> String {
    format!(".device-{index}")
}

/// A detached `/dev` with its nodes, links, mount points, and the devices asked for that lie below `/dev`.
///
/// With `ids` it is for a user namespace, where nodes can't be made: all of it is given to its root, and the devices
/// that lie elsewhere are in it, too.
pub(crate) fn build(devices: &[Device], ids: Option<Ids>) -> Result<OwnedFd, LaunchError> {
    let step = || "make /dev";
    let options = [("mode", Some("755")), ("size", Some("64k"))];
    let dev = mount::new("tmpfs", &options, mount::NOSUID | mount::NOEXEC).step(step)?;
    // The mask of the shim must not take bits from the nodes.
    rustix::process::umask(Mode::empty());
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        mknodat(&dev, name, FileType::CharacterDevice, Mode::from(0o666), number).step(step)?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name).step(step)?;
    }
    for name in FOLDERS {
        mkdirat(&dev, name, Mode::from(0o755)).step(step)?;
    }
    for device in devices {
        if let Some(name) = device.path.strip_prefix("/dev/") {
            node(dev.as_fd(), name, device)?;
        }
    }
    if let Some(ids) = ids {
        for (index, device) in devices.iter().enumerate().filter(|(_, device)| !device.path.starts_with("/dev/")) {
            node(dev.as_fd(), &waiting(index), device)?;
        }
        give(dev.as_fd(), ids).step(|| "give /dev to the container")?;
    }
    rustix::process::umask(Mode::from(0o022));
    Ok(dev)
}

/// Makes the container's ids, as which everything in a folder was made, what they are outside.
fn give(folder: BorrowedFd<'_>, ids: Ids) -> std::io::Result<()> {
    let shifted = |id: u32| ids.outside(id).unwrap_or(ids.base);
    let own = |name: &[u8], stat: &rustix::fs::Stat| {
        let (user, group) = (Uid::from_raw(shifted(stat.st_uid)), Gid::from_raw(shifted(stat.st_gid)));
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        chownat(folder, name, Some(user), Some(group), flags)
    };
    own(b"", &rustix::fs::fstat(folder)?)?;
    // The descriptor of a mount can't be read itself.
    for (name, kind) in tree::list(tree::open(folder, b".")?.as_fd())? {
        if kind == FileType::Directory {
            give(tree::open(folder, &name)?.as_fd(), ids)?;
        } else {
            own(&name, &rustix::fs::statat(folder, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?)?;
        }
    }
    Ok(())
}

/// The devices that wait in an attached `/dev` as mounts with their paths.
pub(super) fn waiting_elsewhere<'a>(
    dev: BorrowedFd<'_>,
    devices: &'a [Device],
) -> Result<Vec<(OwnedFd, &'a Device)>, LaunchError> {
    let step = || "mount devices";
    let mut mounts = Vec::new();
    for (index, device) in devices.iter().enumerate().filter(|(_, device)| !device.path.starts_with("/dev/")) {
        let name = waiting(index);
        mounts.push((mount::clone_tree_at(dev, name.as_ref(), false).step(step)?, device));
    }
    Ok(mounts)
}

/// Takes the names away under which devices waited. What is gone can't be mounted, but what is mounted stays.
pub(super) fn forget_waiting(dev: BorrowedFd<'_>, devices: &[Device]) -> Result<(), LaunchError> {
    for (index, _) in devices.iter().enumerate().filter(|(_, device)| !device.path.starts_with("/dev/")) {
        unlinkat(dev, waiting(index), AtFlags::empty()).step(|| "mount devices")?;
    }
    Ok(())
}

/// Makes a device node below `folder`, with the folders that its name needs. `/dev` holds no foreign links yet.
fn node(folder: BorrowedFd<'_>, name: &str, device: &Device) -> Result<(), LaunchError> {
    let step = || format!("make device {}", device.path);
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(LaunchError::refused(step(), "not a plain path"));
    }
    for (end, _) in name.match_indices('/') {
        match mkdirat(folder, &name[..end], Mode::from(0o755)) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other.step(step)?,
        }
    }
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    match mknodat(folder, name, kind, Mode::from(device.mode), number) {
        // One of the standard ones asked for again.
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        other => other.step(step)?,
    }
    chownat(folder, name, Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)), AtFlags::empty()).step(step)
}

/// Devices outside of `/dev` as detached mounts of a node with their paths.
pub(super) fn elsewhere(devices: &[Device]) -> Result<Vec<(OwnedFd, &Device)>, LaunchError> {
    let elsewhere: Vec<_> = devices.iter().filter(|device| !device.path.starts_with("/dev/")).collect();
    if elsewhere.is_empty() {
        return Ok(Vec::new());
    }
    let step = || "make devices";
    let nodes = mount::new("tmpfs", &[("mode", Some("755")), ("size", Some("64k"))], mount::NOSUID).step(step)?;
    super::mounts::keep_on_old_root(nodes.as_fd()).step(step)?;
    let mut mounts = Vec::new();
    for (index, device) in elsewhere.into_iter().enumerate() {
        let name = index.to_string();
        node(nodes.as_fd(), &name, device)?;
        mounts.push((mount::clone_tree_at(nodes.as_fd(), name.as_ref(), false).step(step)?, device));
    }
    Ok(mounts)
}
