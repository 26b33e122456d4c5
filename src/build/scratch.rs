//! Directories that live only during a build. What a killed build left behind goes with the next one.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::error::Error;
use crate::sys::file::Lock;

/// A folder of one build, removed with everything in it.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: Lock,
    count: Cell<usize>,
}

/// Where an overlay mount writes.
#[derive(Debug)]
pub(crate) struct Upper {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

impl Scratch {
    /// Makes a folder below `parent`, after removing those of builds that are gone.
    pub(crate) fn new(parent: &Path) -> Result<Self, Error> {
        fs::create_dir_all(parent).map_err(Error::io("make the folder", parent))?;
        sweep(parent);
        let mut serial = 0;
        loop {
            let name = format!("{}-{serial}", std::process::id());
            let lock_path = parent.join(format!("{name}.lock"));
            let lock = Lock::try_exclusive(&lock_path).map_err(Error::io("lock", &lock_path))?;
            let folder = parent.join(name);
            if let Some(lock) = lock.filter(|_| !folder.exists()) {
                fs::create_dir(&folder).map_err(Error::io("make the folder", &folder))?;
                return Ok(Self { folder, lock_path, _lock: lock, count: Cell::new(0) });
            }
            serial += 1;
        }
    }

    /// An empty directory pair for an overlay.
    pub(crate) fn upper(&self) -> Result<Upper, Error> {
        let number = self.count.replace(self.count.get() + 1);
        let folder = self.folder.join(number.to_string());
        let pair = Upper { upper: folder.join("upper"), work: folder.join("work") };
        for path in [&pair.upper, &pair.work] {
            fs::create_dir_all(path).map_err(Error::io("make the folder", path))?;
        }
        Ok(pair)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        if path.extension().is_some_and(|extension| extension == "lock")
            && let Ok(Some(_lock)) = Lock::try_exclusive(&path)
        {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_living_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("1-0/3/upper/x")).unwrap();
        fs::write(parent.path().join("1-0.lock"), "").unwrap();
        let first = Scratch::new(parent.path()).unwrap();
        let upper = first.upper().unwrap();
        assert!(!parent.path().join("1-0").exists());
        let second = Scratch::new(parent.path()).unwrap();
        assert!(upper.upper.is_dir() && second.folder != first.folder);
        drop((first, second));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
