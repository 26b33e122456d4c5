//! The mount API by descriptors: detached mounts that nobody sees until they are attached, and vanish when closed.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

/// Attributes to set or clear on a mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// New propagation, one of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`; 0 leaves it.
    pub propagation: u64,
}

/// `MOUNT_ATTR_RDONLY`.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `MOUNT_ATTR_NOSUID`.
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// `MOUNT_ATTR_NODEV`.
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// `MOUNT_ATTR_NOEXEC`.
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// A detached copy of the mount at `path`, as `mount --bind` (or `--rbind`) makes it, rooted at `path` itself.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree_at(CWD, path, recursive)
}

/// As [`clone_tree`], of `path` below `folder`; an empty path clones what `folder` itself is. Symlinks at the end of
/// the path are not followed.
pub fn clone_tree_at(folder: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_NO_AUTOMOUNT
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    Ok(rustix::mount::open_tree(folder, path, flags)?)
}

/// Changes the attributes of a mount, and of all below it if `recursive`.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> io::Result<()> {
    let value = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    set(mount, &value, recursive)
}

/// Shows the ids stored below a detached mount as those that they have outside of a user namespace; what is made there
/// is stored the other way round. Not every file system can.
pub fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let value = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().cast_unsigned()),
    };
    set(mount, &value, recursive)
}

fn set(mount: BorrowedFd<'_>, value: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open while borrowed, the path is a NUL-terminated literal, and `value` outlives the
    // call, which reads exactly the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(value),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets attributes, as [`set_attributes`].
pub fn restrict(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    if set == 0 { Ok(()) } else { set_attributes(mount, Attributes { set, ..Attributes::default() }, recursive) }
}

/// A new instance of a file system as a detached mount. An option without a value is a flag. The kernel's own log of
/// a refused option is part of the error.
pub fn new(kind: &str, options: &[(&str, Option<&str>)], attributes: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configure = || -> io::Result<OwnedFd> {
        for &(key, value) in options {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?,
                None => rustix::mount::fsconfig_set_flag(context.as_fd(), key)?,
            }
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
        Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    };
    configure().map_err(|error| explain(context.as_fd(), error))
}

/// An empty file system in memory, as a detached mount. `size` in bytes; absent is the kernel's default.
pub fn tmpfs(size: Option<u64>, mode: u32) -> io::Result<OwnedFd> {
    let (size, mode) = (size.map(|size| size.to_string()), format!("{mode:o}"));
    let mut options = vec![("mode", Some(mode.as_str()))];
    options.extend(size.as_deref().map(|size| ("size", Some(size))));
    new("tmpfs", &options, NOSUID | NODEV)
}

/// Adds what the kernel logged about a file system context to an error.
pub fn explain(context: BorrowedFd<'_>, error: io::Error) -> io::Error {
    let mut buffer = [0_u8; 1024];
    let mut lines = Vec::new();
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        lines.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
    }
    match error.raw_os_error() {
        Some(_) if !lines.is_empty() => io::Error::new(error.kind(), format!("{error}: {}", lines.join("; "))),
        _ => error,
    }
}

/// Attaches a detached mount on top of what `target` is.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Attaches a detached mount at a path.
pub fn attach_at(mount: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Cuts the caller's mount namespace off from all propagation.
pub fn make_all_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes an attached mount the caller's root and drops the old one. The working directory becomes the new root.
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // With both arguments the same, the old root is stacked on the new one and needs no folder in it.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    // Whatever were left of the old root would lie on top of the new one, one `..` away.
    if mount_id(CWD, "/..")? != mount_id(root, "")? {
        return Err(io::Error::other("the old root is still attached"));
    }
    Ok(())
}

fn mount_id(folder: BorrowedFd<'_>, path: &str) -> io::Result<u64> {
    Ok(rustix::fs::statx(folder, path, AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, openat};

    #[test]
    fn detached_tmpfs_takes_attributes() {
        let tree = tmpfs(Some(1 << 20), 0o755).unwrap();
        let create = |name| openat(&tree, name, OFlags::CREATE | OFlags::WRONLY, Mode::from(0o600));
        create("a").unwrap();
        restrict(tree.as_fd(), READ_ONLY, true).unwrap();
        assert_eq!(create("b").unwrap_err(), rustix::io::Errno::ROFS);
    }

    #[test]
    fn a_refused_option_names_itself() {
        let error = new("tmpfs", &[("nonsense", Some("1"))], 0).unwrap_err();
        assert!(error.to_string().contains("nonsense"), "{error}");
    }
}
