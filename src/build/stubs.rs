//! The empty files and folders that were made only to mount something on: they don't belong into the layer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat, unlinkat};

use super::error::Error;
use crate::runtime::launch::Mount;
use crate::sys::path::{open_in_root, open_plain};

/// What the runtime mounts itself.
const STANDARD: [&str; 4] = ["/dev", "/proc", "/sys", "/etc/hostname"];

/// Paths that were missing before a step, longest first.
#[derive(Debug)]
pub(crate) struct Stubs(Vec<PathBuf>);

impl Stubs {
    /// Notes which mount targets, and folders above them, are missing in a root.
    pub(crate) fn before(root: &OwnedFd, mounts: &[Mount]) -> Self {
        let targets = STANDARD.into_iter().chain(mounts.iter().map(Mount::target));
        let mut missing: Vec<PathBuf> = targets
            .flat_map(|target| Path::new(target).ancestors().map(Path::to_owned).collect::<Vec<_>>())
            .filter(|path| path.file_name().is_some() && open_in_root(root.as_fd(), path, OFlags::PATH).is_err())
            .filter_map(|path| path.strip_prefix("/").map(Path::to_owned).ok())
            .collect();
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        missing.dedup();
        Self(missing)
    }

    /// Removes those that exist and are still empty. No link is followed: a step may have put one in place of a folder.
    pub(crate) fn remove(&self, upper: &Path) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(upper, flags, Mode::empty());
        let root = root.map_err(std::io::Error::from).map_err(Error::io("open", upper))?;
        for path in &self.0 {
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
        Ok(())
    }
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
        let stubs = Stubs::before(&root, &[tmpfs("/a/b/c"), tmpfs("/d/x"), tmpfs("/etc")]);
        for path in ["a/b/c", "etc", "proc", "sys"] {
            fs_err::create_dir_all(upper.path().join(path)).unwrap();
        }
        fs_err::write(upper.path().join("a/kept"), "x").unwrap();
        fs_err::write(upper.path().join("sys/kept"), "x").unwrap();
        fs_err::create_dir(canary.path().join("x")).unwrap();
        std::os::unix::fs::symlink(canary.path(), upper.path().join("d")).unwrap();
        stubs.remove(upper.path()).unwrap();
        let there = |path: &str| upper.path().join(path).exists();
        assert!(!there("a/b") && there("a/kept") && there("etc") && !there("proc") && there("sys/kept"));
        assert!(canary.path().join("x").exists());
    }
}
