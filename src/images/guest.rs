//! Root file systems for user namespaces: layers and upper directory through mounts that map ids, so that what is
//! stored are the container's own ids.
//!
//! The overlay itself can't map ids. What it does on its own behalf in the upper directory it does as its mounter, who
//! must therefore be somebody inside, or it silently becomes read-only.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::mount::fsconfig_set_fd;

use super::error::{Doing as _, Error};
use super::rootfs::{failed, mount_context, new_context, overlay as plain_overlay};
use super::{Guest, Store, Writable};
use crate::sys::{kernel, mntns, mount, userns};

/// Mounts an overlay of directories, topmost first, for a user namespace.
pub(super) fn overlay(guest: Guest<'_>, lowers: &[PathBuf], writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
    let mounted = userns::acting_as(guest.root, guest.root, || {
        if kernel::overlay_takes_descriptors() {
            Ok(by_descriptors(guest, lowers, writable))
        } else {
            by_paths(guest, lowers, writable)
        }
    });
    mounted.doing(|| "mounting the image's layers for a user namespace".to_owned())?
}

fn by_descriptors(guest: Guest<'_>, lowers: &[PathBuf], writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
    let mapping = |path: &Path| format!("showing {} to a user namespace", path.display());
    let context = new_context(lowers.len())?;
    // A detached mount goes with its descriptor; until the overlay is mounted it is needed.
    let mut held = Vec::with_capacity(lowers.len() + 1);
    for path in lowers {
        let layer = mapped(guest, path).doing(|| mapping(path))?;
        let set = fsconfig_set_fd(&context, "lowerdir+", layer.as_fd());
        set.map_err(|errno| failed(&context, "choosing layers", errno))?;
        held.push(layer);
    }
    if let Some(writable) = writable {
        let (home, names) = home(writable);
        let tree = mapped(guest, home).doing(|| mapping(home))?;
        for (key, name) in ["upperdir", "workdir"].into_iter().zip(names) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(&tree, name, flags, Mode::empty()).doing(|| mapping(home))?;
            fsconfig_set_fd(&context, key, folder.as_fd()).map_err(|errno| failed(&context, key, errno))?;
        }
        held.push(tree);
    }
    mount_context(&context, writable)
}

/// Before Linux 6.13 layers are named by path, and must be attached: over themselves, among mounts that nobody else sees.
fn by_paths(
    guest: Guest<'_>,
    lowers: &[PathBuf],
    writable: Option<&Writable<'_>>,
) -> io::Result<Result<OwnedFd, Error>> {
    mntns::with_new(|| {
        for path in lowers.iter().map(PathBuf::as_path).chain(writable.map(|writable| home(writable).0)) {
            mount::attach_at(mapped(guest, path)?.as_fd(), path)?;
        }
        Ok(plain_overlay(lowers, writable))
    })
}

/// The folder that holds both directories, which must be on one mount, and their names.
fn home<'a>(writable: &Writable<'a>) -> (&'a Path, [&'a Path; 2]) {
    let home = writable.upper.parent().unwrap_or(Path::new("/"));
    (home, [writable.upper, writable.work].map(|path| path.strip_prefix(home).unwrap_or(path)))
}

fn mapped(guest: Guest<'_>, path: &Path) -> io::Result<OwnedFd> {
    let tree = mount::clone_tree(path, false)?;
    mount::map_ids(tree.as_fd(), guest.namespace, false)?;
    Ok(tree)
}

impl Store {
    /// Tries whether root file systems can be mounted for a user namespace here, with a changed file as the proof.
    pub fn try_guest(&self, guest: Guest<'_>) -> Result<(), Error> {
        let folder = tempfile_in(&self.inner.layers)?;
        let result = try_in(guest, &folder);
        let _ = fs::remove_dir_all(&folder);
        result
    }
}

fn tempfile_in(layers: &Path) -> Result<PathBuf, Error> {
    let folder = layers.join(format!(".guest-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(folder.join(name)).doing(|| "making a folder to try in".to_owned())?;
    }
    Ok(folder)
}

fn try_in(guest: Guest<'_>, folder: &Path) -> Result<(), Error> {
    let trying = || "changing a file as the root of a user namespace".to_owned();
    fs::write(folder.join("lower/file"), "old").doing(trying)?;
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    let writable = Writable { upper: &upper, work: &work, volatile: true };
    let root = overlay(guest, &[folder.join("lower")], Some(&writable))?;
    let change = userns::acting_as(guest.root, guest.root, || {
        let file = rustix::fs::openat(&root, "file", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, b"new")?;
        rustix::fs::mkdirat(&root, "folder", Mode::RWXU)?;
        Ok(rustix::fs::statat(&root, "file", AtFlags::SYMLINK_NOFOLLOW)?.st_uid)
    });
    let seen = change.doing(trying)?;
    let stored = rustix::fs::stat(upper.join("folder")).doing(trying)?.st_uid;
    if (seen, stored) == (guest.root, 0) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "mounting for a user namespace".to_owned(),
        why: format!("a file of user 0 is seen as {seen}'s, and one by {} stored as {stored}'s", guest.root),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::userns::Extent;

    #[test]
    fn an_overlay_stores_the_ids_that_are_inside() {
        let base = 1_900_000_000;
        let extent = [Extent { inside: 0, outside: base, count: 1 << 16 }];
        let namespace = userns::make(&extent, &extent).unwrap();
        let guest = Guest { namespace: namespace.as_fd(), root: base };
        let folder = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        try_in(guest, folder.path()).unwrap();
        // As older kernels have it.
        let other = tempfile::tempdir().unwrap();
        let paths = ["lower", "upper", "work"].map(|name| other.path().join(name));
        for path in &paths {
            fs::create_dir(path).unwrap();
        }
        fs::write(paths[0].join("file"), "old").unwrap();
        let writable = Writable { upper: &paths[1], work: &paths[2], volatile: false };
        let root = userns::acting_as(base, base, || by_paths(guest, &paths[..1], Some(&writable))).unwrap().unwrap();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        userns::acting_as(base, base + 7, || Ok(rustix::fs::openat(&root, "new", flags, Mode::RUSR)?)).unwrap();
        let stat = rustix::fs::stat(paths[1].join("new")).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (0, 7));
        assert_eq!(rustix::fs::statat(&root, "file", AtFlags::empty()).unwrap().st_uid, base);
    }
}
