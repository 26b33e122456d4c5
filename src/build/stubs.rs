//! The empty files and folders that were made only to mount something on: they don't belong into the layer.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, statat, unlinkat};

use super::error::Error;
use crate::runtime::launch::Mount;
use crate::sys::path::{open_in_root, open_plain};

/// What the runtime mounts itself.
const STANDARD: [&str; 4] = ["/dev", "/proc", "/sys", "/etc/hostname"];

/// What was there before a step, so that what was only made for its mounts can go.
#[derive(Debug)]
pub(crate) struct Stubs {
    /// Paths that were missing, longest first.
    missing: Vec<PathBuf>,
    /// Folders above them that were there, longest first: the overlay copies them up for a stub.
    parents: Vec<(PathBuf, Stat)>,
}

impl Stubs {
    /// Notes which mount targets, and folders above them, are missing in a root.
    pub(crate) fn before(root: &OwnedFd, mounts: &[Mount]) -> Self {
        let targets = STANDARD.into_iter().chain(mounts.iter().map(Mount::target));
        let mut missing: Vec<PathBuf> = targets
            .flat_map(|target| Path::new(target).ancestors().map(Path::to_owned).collect::<Vec<_>>())
            .filter(|path| path.file_name().is_some() && open_in_root(root.as_fd(), path, OFlags::PATH).is_err())
            .filter_map(|path| path.strip_prefix("/").map(Path::to_owned).ok())
            .collect();
        missing.sort();
        missing.dedup();
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        let parents = missing.iter().filter_map(|path| {
            let parent = path.parent().filter(|parent| parent.file_name().is_some())?;
            let folder = open_in_root(root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
            Some((parent.to_owned(), fstat(&folder).ok()?))
        });
        let mut parents: Vec<(PathBuf, Stat)> = parents.collect();
        parents.dedup_by(|a, b| a.0 == b.0);
        Self { missing, parents }
    }

    /// Removes those that exist and are still empty. No link is followed: a step may have put one in place of a folder.
    pub(crate) fn remove(&self, upper: &Path) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(upper, flags, Mode::empty());
        let root = root.map_err(std::io::Error::from).map_err(Error::io("open", upper))?;
        for path in &self.missing {
            let Some(name) = path.file_name() else { continue };
            let parent = path.parent().unwrap_or(Path::new(""));
            let Ok(parent) = open_plain(root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let Ok(stat) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let removal = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => continue,
            };
            // One that isn't empty stays.
            let _ = unlinkat(&parent, name, removal);
        }
        for (path, before) in &self.parents {
            let Some(name) = path.file_name() else { continue };
            let parent = path.parent().unwrap_or(Path::new(""));
            let Ok(parent) = open_plain(root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let Ok(now) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let same = (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid);
            if same && !is_opaque(&parent, name) {
                // One that isn't empty stays.
                let _ = unlinkat(&parent, name, AtFlags::REMOVEDIR);
            }
        }
        Ok(())
    }
}

/// Whether a folder of an upper directory hides the one below it.
fn is_opaque(parent: &OwnedFd, name: &OsStr) -> bool {
    let Ok(folder) = open_plain(parent.as_fd(), Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY) else {
        return true;
    };
    let mut value = [0; 8];
    rustix::fs::fgetxattr(&folder, "trusted.overlay.opaque", &mut value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_empty_and_was_missing_goes() {
        let lower = tempfile::tempdir().unwrap();
        let upper = tempfile::tempdir().unwrap();
        let canary = tempfile::tempdir().unwrap();
        fs_err::create_dir(lower.path().join("etc")).unwrap();
        let root = rustix::fs::open(lower.path(), OFlags::PATH, Mode::empty()).unwrap();
        let tmpfs = |target: &str| Mount::Tmpfs {
            target: target.to_owned(),
            size: None,
            mode: 0,
            uid: 0,
            gid: 0,
            flags: super::super::run::read_only(false),
        };
        fs_err::create_dir(lower.path().join("run")).unwrap();
        let stubs = Stubs::before(&root, &[tmpfs("/a/b/c"), tmpfs("/d/x"), tmpfs("/etc"), tmpfs("/run/secrets/s")]);
        for path in ["a/b/c", "etc", "proc", "sys", "run/secrets/s"] {
            fs_err::create_dir_all(upper.path().join(path)).unwrap();
        }
        fs_err::write(upper.path().join("a/kept"), "x").unwrap();
        fs_err::write(upper.path().join("sys/kept"), "x").unwrap();
        fs_err::create_dir(canary.path().join("x")).unwrap();
        std::os::unix::fs::symlink(canary.path(), upper.path().join("d")).unwrap();
        stubs.remove(upper.path()).unwrap();
        let there = |path: &str| upper.path().join(path).exists();
        assert!(!there("a/b") && there("a/kept") && !there("run") && !there("proc") && there("sys/kept"));
        assert!(canary.path().join("x").exists());
    }
}
