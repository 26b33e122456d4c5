//! Root file systems: an overlay of an image's layers, mounted nowhere.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::error::{Doing as _, Error};
use super::{Guest, Image, Rootfs, Store, Writable, guest, host, snapshot};
use crate::sys::{kernel, mount, path};

/// As many lower directories as overlay takes.
const MAX_LAYERS: usize = 499;

/// Longest value that the kernel takes for one option.
const MAX_VALUE: usize = 255;

impl Store {
    /// Mounts an image's layers, read-only unless `writable`. Nothing appears in the host's mount table.
    pub fn rootfs(&self, image: &Image, writable: Option<Writable<'_>>) -> Result<Rootfs, Error> {
        self.rootfs_for(None, image, writable)
    }

    /// As [`Self::rootfs`], for a user namespace.
    pub fn rootfs_for(
        &self,
        guest: Option<Guest<'_>>,
        image: &Image,
        writable: Option<Writable<'_>>,
    ) -> Result<Rootfs, Error> {
        let _lease = self.lease()?;
        let layers = self.inner.snapshots(&image.layers)?;
        if let Some(writable) = &writable {
            snapshot::like_root(writable.upper, layers.last().map(PathBuf::as_path))?;
        }
        let mut lowers: Vec<PathBuf> = layers.into_iter().rev().collect();
        // Overlay wants a lower directory with an upper one, and two without.
        let fewest = if writable.is_some() { 1 } else { 2 };
        for name in ["a", "b"] {
            if lowers.len() < fewest {
                lowers.push(self.empty_directory(name)?);
            }
        }
        let mount = match guest {
            Some(guest) => guest::overlay(guest, &lowers, writable.as_ref())?,
            None => overlay(&lowers, writable.as_ref())?,
        };
        let binds = if image.host { host::binds(guest)? } else { Vec::new() };
        Ok(Rootfs { mount, binds })
    }

    fn empty_directory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.inner.layers.join(".empty").join(name);
        fs::create_dir_all(&path).doing(|| "making an empty layer".to_owned())?;
        Ok(path)
    }
}

/// Mounts an overlay of directories, topmost first.
pub(super) fn overlay(lowers: &[PathBuf], writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
    let context = new_context(lowers.len())?;
    let opened = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    if kernel::overlay_takes_layers_singly() {
        // One by one, without a limit for all of them together.
        for (path, fd) in lowers.iter().zip(&opened) {
            let set = fsconfig_set_string(&context, "lowerdir+", value(path, fd.as_fd()).as_str());
            set.map_err(|errno| failed(&context, "choosing layers", errno))?;
        }
        return finish(&context, writable);
    }
    // Joined in one value, as descriptors in the shortest form: by number, in the folder of all of them.
    let all: Vec<String> = opened.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let all = all.join(":");
    if all.len() > MAX_VALUE {
        return Err(Error::Unsupported {
            what: "the image".to_owned(),
            why: format!("it has {} layers, too many for overlay before Linux 6.5", lowers.len()),
        });
    }
    let mounted = path::with_folder(Path::new("/proc/self/fd"), || {
        let set = fsconfig_set_string(&context, "lowerdir", all.as_str());
        set.map_err(|errno| failed(&context, "choosing layers", errno))?;
        finish(&context, writable)
    });
    mounted.doing(|| "mounting the image's layers".to_owned())?
}

/// A new overlay, to be configured.
pub(super) fn new_context(layers: usize) -> Result<OwnedFd, Error> {
    if layers > MAX_LAYERS {
        return Err(Error::Unsupported {
            what: "the image".to_owned(),
            why: format!("it has {layers} layers, and overlay mounts at most {MAX_LAYERS}"),
        });
    }
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => Error::Unsupported {
            what: "mounting a root file system".to_owned(),
            why: "this kernel has no overlay; load it with `modprobe overlay`".to_owned(),
        },
        errno => Error::Io { what: "opening the overlay file system".to_owned(), source: errno.into() },
    })
}

/// What is above the layers, and the mount.
fn finish(context: &OwnedFd, writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
    let mut held = Vec::new();
    if let Some(writable) = writable {
        for (key, path) in [("upperdir", writable.upper), ("workdir", writable.work)] {
            let fd = open(path)?;
            let set = fsconfig_set_string(context, key, value(path, fd.as_fd()).as_str());
            set.map_err(|errno| failed(context, key, errno))?;
            held.push(fd);
        }
    }
    mount_context(context, writable)
}

/// The mount of an overlay whose layers are chosen.
pub(super) fn mount_context(context: &OwnedFd, writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
    if writable.is_some_and(|writable| writable.volatile) {
        fsconfig_set_flag(context, "volatile").map_err(|errno| failed(context, "volatile", errno))?;
    }
    // With these off, an upper directory says all of what changed: a layer can be packed from it.
    for key in ["redirect_dir", "metacopy", "index"] {
        match fsconfig_set_string(context, key, "off") {
            // A kernel without the feature has it off.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(failed(context, key, errno)),
        }
    }
    fsconfig_create(context).map_err(|errno| failed(context, "mounting", errno))?;
    let attributes = if writable.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|errno| failed(context, "mounting", errno))
}

pub(super) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).doing(|| format!("opening {}", path.display()))
}

/// A path as an option's value; through its descriptor where it is too long, no text, or has characters that mean
/// something there.
fn value(path: &Path, fd: BorrowedFd<'_>) -> String {
    match path.to_str() {
        Some(text) if text.len() <= MAX_VALUE && !text.contains([',', ':', '\\']) => text.to_owned(),
        _ => format!("/proc/self/fd/{}", fd.as_raw_fd()),
    }
}

/// A mount error with what the kernel wrote into the context's log.
pub(super) fn failed(context: &OwnedFd, step: &str, errno: Errno) -> Error {
    let source = mount::explain(context.as_fd(), errno.into());
    Error::Io { what: format!("mounting the image's layers: {step}"), source }
}
