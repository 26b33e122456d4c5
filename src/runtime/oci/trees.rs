//! The mounts of a container, as far as they are made outside: copies of trees of the host, with their attributes.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use super::config::{Config, Mount};
use super::error::{Doing as _, Error};
use super::linux::Kind;
use super::namespaces::extents;
use super::options::{Options, Propagation};
use crate::sys::{mount, netns, userns};

/// A mount, and what is known of it before the container exists.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) mount: &'a Mount,
    pub(super) options: Options,
    /// The copy of a tree of the host.
    pub(super) tree: Option<OwnedFd>,
}

/// The root as a detached copy.
pub(super) fn root(config: &Config, rootfs: &Path) -> Result<OwnedFd, Error> {
    let tree = mount::clone_tree(rootfs, true).doing(|| format!("take {} for the root", rootfs.display()))?;
    propagate(&tree, default_propagation(config))
        // No root can be changed to one that is shared; it becomes so afterwards.
        .and_then(|()| {
            let shared = default_propagation(config).flag == libc::MS_SHARED;
            let private = Propagation { flag: libc::MS_PRIVATE, recursive: false };
            if shared { propagate(&tree, private) } else { Ok(()) }
        })
        .doing(|| format!("cut {} off from the host's mounts", rootfs.display()))?;
    Ok(tree)
}

/// What the host and the container see of each other's mounts, unless a mount says otherwise: by default the container
/// sees the host's.
fn default_propagation(config: &Config) -> Propagation {
    let asked = config.linux.rootfs_propagation.as_deref().and_then(Propagation::parse);
    match asked {
        // Can't be copied any more: the root becomes so when everything else is done.
        Some(asked) if asked.flag != libc::MS_UNBINDABLE => Propagation { recursive: true, ..asked },
        Some(_) => Propagation { flag: libc::MS_PRIVATE, recursive: true },
        None => Propagation { flag: libc::MS_SLAVE, recursive: true },
    }
}

/// Every mount of the configuration; binds get their trees.
pub(super) fn prepare<'a>(config: &'a Config, bundle: &Path) -> Result<Vec<Prepared<'a>>, Error> {
    let users = users_namespace(config)?;
    config.mounts.iter().map(|mount| one(config, mount, bundle, users.as_ref())).collect()
}

/// The user namespace of the container where it has a path.
fn users_namespace(config: &Config) -> Result<Option<OwnedFd>, Error> {
    let path = config.linux.namespace(Kind::User).and_then(|namespace| namespace.path.as_deref());
    path.map(|path| netns::open(path).doing(|| format!("open {}", path.display()))).transpose()
}

fn one<'a>(
    config: &'a Config,
    mount: &'a Mount,
    bundle: &Path,
    users: Option<&OwnedFd>,
) -> Result<Prepared<'a>, Error> {
    let mut options = Options::parse(&mount.options);
    if mount.kind == "bind" && options.bind.is_none() {
        options.bind = Some(true);
    }
    let Some(recursive) = options.bind.filter(|_| !options.remount) else {
        return Ok(Prepared { mount, options, tree: None });
    };
    let source = bundle.join(&mount.source);
    let step = || format!("bind {} to {}", source.display(), mount.destination);
    let real = fs_err::canonicalize(&source).doing(step)?;
    let tree = mount::clone_tree(&real, recursive).doing(step)?;
    propagate(&tree, default_propagation(config)).doing(step)?;
    if options.mapped.is_some() || !mount.uid_mappings.is_empty() {
        map_ids(config, mount, &options, &tree, users)?;
    }
    apply(&tree, &options).doing(step)?;
    Ok(Prepared { mount, options, tree: Some(tree) })
}

/// Shows the owners by the mount's own map, or by the container's.
fn map_ids(
    config: &Config,
    mount: &Mount,
    options: &Options,
    tree: &OwnedFd,
    users: Option<&OwnedFd>,
) -> Result<(), Error> {
    let step = || format!("map the owners of {}", mount.destination);
    let recursive = options.mapped.unwrap_or(false);
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let (uids, gids) = match (own, users) {
        (false, Some(users)) => return mount::map_ids(tree.as_fd(), users.as_fd(), recursive).doing(step),
        (false, None) => (&config.linux.uid_mappings, &config.linux.gid_mappings),
        (true, _) => (&mount.uid_mappings, &mount.gid_mappings),
    };
    if uids.is_empty() || gids.is_empty() {
        let message = format!("{} shall be mapped, but there are no uidMappings and gidMappings", mount.destination);
        return Err(Error::Config(message));
    }
    let namespace = userns::make(&extents(uids), &extents(gids)).doing(step)?;
    mount::map_ids(tree.as_fd(), namespace.as_fd(), recursive).doing(step)
}

/// Gives a mount the attributes and the propagation asked for.
pub(super) fn apply(tree: &OwnedFd, options: &Options) -> std::io::Result<()> {
    for (change, recursive) in [(options.own, false), (options.all, true)] {
        if !change.is_empty() {
            let attributes = mount::Attributes { set: change.set, clear: change.clear, propagation: 0 };
            mount::set_attributes(tree.as_fd(), attributes, recursive)?;
        }
    }
    options.propagation.iter().try_for_each(|propagation| propagate(tree, *propagation))
}

/// Changes what a mount and others see of each other.
pub(super) fn propagate(tree: &OwnedFd, propagation: Propagation) -> std::io::Result<()> {
    let attributes = mount::Attributes { propagation: propagation.flag, ..mount::Attributes::default() };
    mount::set_attributes(tree.as_fd(), attributes, propagation.recursive)
}
