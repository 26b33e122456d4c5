//! The mounts of a container, inside: in the order of the configuration, at places that are looked up in its root.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use super::config::Config;
use super::linux::Kind;
use super::trees::{self, Prepared};
use crate::runtime::child::{Step, mounts};
use crate::runtime::error::LaunchError;
use crate::sys::path::{self, Missing};
use crate::sys::{mount, tree};

/// Mounts one after the other.
pub(super) fn attach(
    root: BorrowedFd<'_>,
    config: &Config,
    prepared: &[Prepared<'_>],
    views: &[(String, PathBuf)],
) -> Result<(), LaunchError> {
    prepared.iter().try_for_each(|mount| one(root, config, mount, views))
}

fn one(
    root: BorrowedFd<'_>,
    config: &Config,
    prepared: &Prepared<'_>,
    views: &[(String, PathBuf)],
) -> Result<(), LaunchError> {
    let Prepared { mount, options, tree } = prepared;
    let target = mount.destination.as_str();
    let step = || format!("mount {target}");
    if let Some(tree) = tree {
        return mounts::place(root, tree.as_fd(), target);
    }
    if options.remount {
        let there = path::open_in_root(root, Path::new(target), OFlags::PATH).step(step)?;
        return trees::apply(&there, options).step(step);
    }
    if matches!(mount.kind.as_str(), "proc" | "sysfs") {
        refuse_link(root, target)?;
    }
    if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") {
        let place = path::ensure_in_root(root, Path::new(target), Missing::Folder).step(step)?;
        return mounts::groups_at(place.as_fd(), views, options.own.set);
    }
    let tree = new(config, prepared).step(step)?;
    if options.copies_up {
        copy_up(root, target, &tree).step(|| format!("copy what {target} holds"))?;
    }
    if !options.all.is_empty() || !options.propagation.is_empty() {
        trees::apply(&tree, options).step(step)?;
    }
    mounts::place(root, tree.as_fd(), target)
}

fn new(config: &Config, prepared: &Prepared<'_>) -> io::Result<OwnedFd> {
    let Prepared { mount, options, .. } = prepared;
    let mut data: Vec<(&str, Option<&str>)> =
        options.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    if !mount.source.is_empty() {
        data.push(("source", Some(&mount.source)));
    }
    match mount::new(&mount.kind, &data, options.own.set) {
        // Only who owns the network namespace may; then a copy of the host's it is.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && mount.kind == "sysfs" && !owns_network(config) => {
            let tree = mount::clone_tree(Path::new("/sys"), true)?;
            mount::restrict(tree.as_fd(), options.own.set, true)?;
            Ok(tree)
        }
        other => other,
    }
}

fn owns_network(config: &Config) -> bool {
    config.linux.has_new(Kind::Network)
}

/// `/proc` and `/sys` must be folders of the root itself: through a link, later writes would go astray.
fn refuse_link(root: BorrowedFd<'_>, target: &str) -> Result<(), LaunchError> {
    let name = target.trim_start_matches('/');
    match rustix::fs::statat(root, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Ok(_) => Err(LaunchError::refused(format!("mount {target}"), "must be mounted on ordinary directory")),
        Err(e) => Err(LaunchError::new(format!("mount {target}"), e)),
    }
}

/// Copies what lies at `target` into a file system that will cover it.
fn copy_up(root: BorrowedFd<'_>, target: &str, into: &OwnedFd) -> io::Result<()> {
    match path::open_in_root(root, Path::new(target), OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => tree::copy(other?.as_fd(), into.as_fd()),
    }
}
