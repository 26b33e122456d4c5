//! Mounts of a container: the standard ones, and those asked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, symlinkat};

use super::Step;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Launch, Mount, MountFlags, Net, Share};
use crate::sys::mount::{self, NODEV, NOEXEC, NOSUID, READ_ONLY};
use crate::sys::path::{self, Missing};

/// Attaches a helper mount where the pivot will drop it: copies of what it holds can only be made while it is
/// attached (before kernel 6.15), and live on after it. Not on the root itself: only the topmost mount there would go.
pub(super) fn keep_on_old_root(mount: BorrowedFd<'_>) -> io::Result<()> {
    mount::attach_at(mount, Path::new("/dev"))
}

/// Attaches a detached tree at `target` in the root, making the target if missing.
pub(crate) fn place(root: BorrowedFd<'_>, tree: BorrowedFd<'_>, target: &str) -> Result<(), LaunchError> {
    let step = || format!("mount {target}");
    let is_folder = |fd: BorrowedFd<'_>| -> io::Result<bool> {
        Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
    };
    let folder = is_folder(tree).step(step)?;
    let missing = if folder { Missing::Folder } else { Missing::File };
    let place = path::ensure_in_root(root, Path::new(target), missing).step(step)?;
    if is_folder(place.as_fd()).step(step)? != folder {
        let (source, there) = if folder { ("a folder", "a file") } else { ("a file", "a folder") };
        return Err(LaunchError::refused(step(), format!("the source is {source}, but the image has {there} there")));
    }
    mount::attach(tree, place.as_fd()).step(step)
}

/// The standard file systems but `/dev`: proc, sysfs and the view of the control groups. Returns proc's root and
/// sysfs's.
pub(super) fn kernel(root: BorrowedFd<'_>, launch: &Launch) -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let plain = NOSUID | NODEV | NOEXEC;
    let proc = mount::new("proc", &[], plain).step(|| "mount /proc")?;
    place_on_real_folder(root, proc.as_fd(), "proc")?;
    let read_only = if launch.privileged { 0 } else { READ_ONLY };
    let sys = match mount::new("sysfs", &[], plain | read_only) {
        Ok(sys) => sys,
        // Only who owns the network namespace may; then a copy of the host's it is.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && launch.namespaces.net == Net::Host => {
            let sys = mount::clone_tree(Path::new("/sys"), true).step(|| "mount /sys")?;
            mount::restrict(sys.as_fd(), plain | read_only, true).step(|| "mount /sys")?;
            sys
        }
        Err(e) => return Err(LaunchError::new("mount /sys", e)),
    };
    place_on_real_folder(root, sys.as_fd(), "sys")?;
    Ok((proc, sys))
}

/// `/proc` and `/sys` must be folders of the image itself: through a link, later writes would go astray.
fn place_on_real_folder(root: BorrowedFd<'_>, tree: BorrowedFd<'_>, name: &str) -> Result<(), LaunchError> {
    let step = || format!("mount /{name}");
    match mkdirat(root, name, Mode::from(0o755)) {
        Err(rustix::io::Errno::EXIST) => {}
        other => other.step(step)?,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let place = path::open_plain(root, Path::new(name), flags)
        .map_err(|e| LaunchError::refused(step(), format!("/{name} of the image is not a plain folder ({e})")))?;
    mount::attach(tree, place.as_fd()).step(step)
}

/// The container's own control groups below `/sys/fs/cgroup`.
pub(super) fn control_groups(
    sys: BorrowedFd<'_>,
    views: &[(String, PathBuf)],
    privileged: bool,
) -> Result<(), LaunchError> {
    let read_only = if privileged { 0 } else { READ_ONLY };
    let restriction = NOSUID | NODEV | NOEXEC | read_only;
    let Ok(place) = path::open_plain(sys, Path::new("fs/cgroup"), OFlags::PATH | OFlags::DIRECTORY) else {
        return Ok(());
    };
    groups_at(place.as_fd(), views, restriction)
}

/// Control groups at a place: one that is the whole, or one folder for each hierarchy.
pub(crate) fn groups_at(
    place: BorrowedFd<'_>,
    views: &[(String, PathBuf)],
    restriction: u64,
) -> Result<(), LaunchError> {
    let step = || "mount the control groups";
    if let [(name, view)] = views
        && name.is_empty()
    {
        let tree = mount::clone_tree(view, false).step(step)?;
        mount::restrict(tree.as_fd(), restriction, false).step(step)?;
        return mount::attach(tree.as_fd(), place).step(step);
    }
    let top = mount::tmpfs(Some(64 << 10), 0o755).step(step)?;
    mount::attach(top.as_fd(), place).step(step)?;
    for (name, view) in views {
        let tree = match mount::clone_tree(view, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.step(step)?,
        };
        mkdirat(&top, name.as_str(), Mode::from(0o755)).step(step)?;
        let place = path::open_plain(top.as_fd(), Path::new(name), OFlags::PATH).step(step)?;
        mount::attach(tree.as_fd(), place.as_fd()).step(step)?;
        for alias in name.split(',').filter(|alias| alias != name) {
            symlinkat(name.as_str(), &top, alias).step(step)?;
        }
    }
    mount::restrict(top.as_fd(), restriction, true).step(step)
}

/// `/dev` and what is mounted in it. Returns the root of devpts.
pub(super) fn dev(
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    launch: &Launch,
    shared_memory: Option<OwnedFd>,
) -> Result<OwnedFd, LaunchError> {
    place_on_real_folder(root, dev, "dev")?;
    let inner = |tree: BorrowedFd<'_>, name: &str| {
        let place = path::open_plain(dev, Path::new(name), OFlags::PATH).step(|| format!("mount /dev/{name}"))?;
        mount::attach(tree, place.as_fd()).step(|| format!("mount /dev/{name}"))
    };
    let options = [("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let devpts = mount::new("devpts", &options, NOSUID | NOEXEC).step(|| "mount /dev/pts")?;
    inner(devpts.as_fd(), "pts")?;
    let plain = NOSUID | NODEV | NOEXEC;
    let shm = match (shared_memory, &launch.namespaces.ipc) {
        (Some(tree), _) => tree,
        (None, Share::Host) => mount::clone_tree(Path::new("/dev/shm"), false).step(|| "mount /dev/shm")?,
        (None, _) => {
            let size = launch.shm_size.to_string();
            let options = [("mode", Some("1777")), ("size", Some(size.as_str()))];
            mount::new("tmpfs", &options, plain).step(|| "mount /dev/shm")?
        }
    };
    inner(shm.as_fd(), "shm")?;
    let mqueue = mount::new("mqueue", &[], plain).step(|| "mount /dev/mqueue")?;
    inner(mqueue.as_fd(), "mqueue")?;
    Ok(devpts)
}

/// The small files that are mounts of their own, on a file system in memory which must be made before the root is in
/// place. One entry for each [`Mount::File`], in order.
pub(super) fn files(mounts: &[Mount]) -> Result<Vec<OwnedFd>, LaunchError> {
    let sizes = mounts.iter().filter_map(|mount| match mount {
        Mount::File { content, .. } => Some(content.len() as u64),
        _ => None,
    });
    // Whole pages each.
    let (count, total) = sizes.fold((0_u64, 0_u64), |(count, total), size| (count + 1, total + (size | 0xfff) + 1));
    if count == 0 {
        return Ok(Vec::new());
    }
    let store = mount::tmpfs(Some(total + (64 << 10)), 0o755).step(|| "make files")?;
    keep_on_old_root(store.as_fd()).step(|| "make files")?;
    let mut trees = Vec::new();
    for mount in mounts {
        let Mount::File { target, content, mode, uid, gid, read_only } = mount else { continue };
        let step = || format!("make {target}");
        let name = trees.len().to_string();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&store, &name, flags, Mode::from(0o600)).step(step)?;
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).step(step)?;
            rest = &rest[written..];
        }
        fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid))).step(step)?;
        fchmod(&file, Mode::from(mode & 0o7777)).step(step)?;
        let tree = mount::clone_tree_at(store.as_fd(), name.as_ref(), false).step(step)?;
        mount::restrict(tree.as_fd(), if *read_only { READ_ONLY } else { 0 }, false).step(step)?;
        trees.push(tree);
    }
    Ok(trees)
}

/// The mounts asked for; those with shorter targets first, so that none hides another.
pub(super) fn wanted(
    root: BorrowedFd<'_>,
    mounts: &[Mount],
    fds: &[OwnedFd],
    files: Vec<OwnedFd>,
) -> Result<(), LaunchError> {
    let mut files = files.into_iter();
    let mut trees = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let target = mount.target();
        let step = || format!("mount {target}");
        if !target.starts_with('/') {
            return Err(LaunchError::refused(step(), "the target is not an absolute path"));
        }
        trees.push(match mount {
            Mount::Tree { slot, flags, .. } => {
                let tree = fds.get(slot.0).ok_or_else(|| LaunchError::refused(step(), "its descriptor is missing"))?;
                mount::restrict(tree.as_fd(), bits(*flags), flags.read_only).step(step)?;
                Tree::Borrowed(tree.as_fd(), target)
            }
            Mount::Tmpfs { size, mode, uid, gid, flags, .. } => {
                Tree::Owned(tmpfs(*size, *mode, *uid, *gid, *flags).step(step)?, target)
            }
            Mount::File { .. } => {
                let tree = files.next().ok_or_else(|| LaunchError::refused(step(), "it wasn't made"))?;
                Tree::Owned(tree, target)
            }
        });
    }
    trees.sort_by_key(|tree| Path::new(tree.target()).components().count());
    trees.iter().try_for_each(|tree| place(root, tree.fd(), tree.target()))
}

enum Tree<'a> {
    Borrowed(BorrowedFd<'a>, &'a str),
    Owned(OwnedFd, &'a str),
}

impl Tree<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd, _) => *fd,
            Self::Owned(fd, _) => fd.as_fd(),
        }
    }

    fn target(&self) -> &str {
        match self {
            Self::Borrowed(_, target) | Self::Owned(_, target) => target,
        }
    }
}

fn tmpfs(size: Option<u64>, mode: u32, uid: u32, gid: u32, flags: MountFlags) -> io::Result<OwnedFd> {
    let [mode, uid, gid] = [format!("{mode:o}"), uid.to_string(), gid.to_string()];
    let size = size.map(|size| size.to_string());
    let mut options = vec![("mode", Some(mode.as_str())), ("uid", Some(uid.as_str())), ("gid", Some(gid.as_str()))];
    options.extend(size.as_deref().map(|size| ("size", Some(size))));
    mount::new("tmpfs", &options, bits(flags))
}

fn bits(flags: MountFlags) -> u64 {
    let pick = |wanted, bit| if wanted { bit } else { 0 };
    pick(flags.read_only, READ_ONLY)
        | pick(flags.nosuid, NOSUID)
        | pick(flags.nodev, NODEV)
        | pick(flags.noexec, NOEXEC)
}
