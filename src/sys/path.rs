//! Paths inside a tree that isn't trusted: no symlink leads out of its root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

/// Links followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// Opens `path` as a process would whose root is `root`. Magic links of procfs are refused.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_with(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// A name of `path` short enough for a socket address (108 bytes), by way of its folder; valid as long as the returned
/// descriptor is kept.
pub fn short_path(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((folder, short))
}

/// Opens `path` below `folder`: neither `..`, an absolute link nor an absolute path may lead out.
pub fn open_beneath(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_with(folder, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `folder` on the very same file system and through no symlink at all: for procfs and sysfs.
pub fn open_plain(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_with(folder, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

fn open_with(folder: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename anywhere on the system during the walk.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Runs `f` on a fresh thread whose working directory, and no other thread's, is `folder`.
pub fn with_folder<T: Send>(folder: &Path, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("folder".to_owned()).spawn_scoped(scope, || {
            super::process::unshare(libc::CLONE_FS)?;
            rustix::process::chdir(folder).map_err(io::Error::from).map(|()| f())
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What to make where a path is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A folder with mode 0755.
    Folder,
    /// An empty file with mode 0644, in folders as needed.
    File,
}

/// An `O_PATH` descriptor of `path` in `root`, made if missing. Dangling links are followed and their targets made,
/// always inside the root.
pub fn ensure_in_root(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut pending: VecDeque<OsString> = names(path);
    let mut resolved = PathBuf::new();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let parent = open_in_root(root, &resolved, OFlags::PATH | OFlags::DIRECTORY)?;
        match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&parent, &name, Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    resolved.clear();
                }
                for name in names(target).into_iter().rev() {
                    pending.push_front(name);
                }
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                make(parent.as_fd(), &name, if pending.is_empty() { missing } else { Missing::Folder })?;
            }
            Err(e) => return Err(e.into()),
        }
        resolved.push(name);
    }
    open_in_root(root, &resolved, OFlags::PATH)
}

fn make(parent: BorrowedFd<'_>, name: &OsStr, missing: Missing) -> io::Result<()> {
    let made = match missing {
        Missing::Folder => mkdirat(parent, name, Mode::from(0o755)),
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from(0o644)).map(drop)
        }
    };
    match made {
        // Somebody else was quicker.
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (folder, fd)
    }

    #[test]
    fn missing_targets_are_made_inside() {
        let (folder, fd) = root();
        let stray = format!("stack-path-test-{}", std::process::id());
        symlink("../../../../../../tmp/inside", folder.path().join("up")).unwrap();
        symlink(format!("/{stray}/made"), folder.path().join("absolute")).unwrap();
        ensure_in_root(fd.as_fd(), Path::new("/up/deep"), Missing::Folder).unwrap();
        ensure_in_root(fd.as_fd(), Path::new("absolute"), Missing::File).unwrap();
        assert!(folder.path().join("tmp/inside/deep").is_dir());
        assert!(folder.path().join(&stray).join("made").is_file());
        assert!(!Path::new("/").join(&stray).exists());
    }

    #[test]
    fn loops_end() {
        let (folder, fd) = root();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        assert!(ensure_in_root(fd.as_fd(), Path::new("/a/x"), Missing::File).is_err());
    }

    #[test]
    fn beneath_refuses_what_leads_out() {
        let (folder, fd) = root();
        symlink("/etc", folder.path().join("etc")).unwrap();
        assert!(open_beneath(fd.as_fd(), Path::new("etc/passwd"), OFlags::PATH).is_err());
        assert!(open_beneath(fd.as_fd(), Path::new("../x"), OFlags::PATH).is_err());
        assert!(open_in_root(fd.as_fd(), Path::new("/proc/self/exe"), OFlags::PATH).is_err());
    }
}
