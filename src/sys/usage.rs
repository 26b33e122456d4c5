//! What a directory tree takes on disk, as `du` counts it.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::tree;

/// Bytes of a block, whatever the file system's are.
const BLOCK: u64 = 512;

/// Bytes on disk of all that is at a path, hard links counted once; 0 where nothing is. What goes away meanwhile isn't
/// counted. Depth costs neither stack nor descriptors.
pub fn usage(path: &Path) -> Result<u64, Errno> {
    let mut here = match rustix::fs::open(path, OPEN, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(u64::try_from(rustix::fs::lstat(path)?.st_blocks).unwrap_or(0) * BLOCK);
        }
        other => other?,
    };
    let mut seen = HashSet::new();
    let mut bytes = count(&here, b"", &mut seen)?;
    // Directories still to be entered, for each level from the top to here.
    let mut waiting = vec![within(&here, &mut bytes, &mut seen)?];
    while let Some(names) = waiting.last_mut() {
        let Some(name) = names.pop() else {
            waiting.pop();
            if !waiting.is_empty() {
                here = rustix::fs::openat(&here, "..", OPEN, Mode::empty())?;
            }
            continue;
        };
        match rustix::fs::openat(&here, name.as_slice(), OPEN, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            other => {
                here = other?;
                waiting.push(within(&here, &mut bytes, &mut seen)?);
            }
        }
    }
    Ok(bytes)
}

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Counts a directory's members; the directories among them.
fn within(here: &OwnedFd, bytes: &mut u64, seen: &mut HashSet<(u64, u64)>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut directories = Vec::new();
    for (name, kind) in tree::list(here.as_fd())? {
        *bytes += count(here, &name, seen)?;
        if kind == FileType::Directory {
            directories.push(name);
        }
    }
    Ok(directories)
}

/// Bytes of one file, where no other name of it was counted before.
fn count(here: &OwnedFd, name: &[u8], seen: &mut HashSet<(u64, u64)>) -> Result<u64, Errno> {
    let found = if name.is_empty() {
        rustix::fs::fstat(here)
    } else {
        rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)
    };
    match found {
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(errno),
        Ok(stat) if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) => Ok(0),
        Ok(stat) => Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn it_counts_as_du_does() {
        let folder = tempfile::tempdir().unwrap();
        let script = "head -c 100000 /dev/urandom > a; ln a b; mkdir -p d/e/f; head -c 5000 /dev/urandom > d/e/f/c; ln -s /usr g";
        assert!(Command::new("sh").args(["-c", script]).current_dir(folder.path()).status().unwrap().success());
        let du = Command::new("du").args(["-s", "--block-size=1"]).arg(folder.path()).output().unwrap().stdout;
        let du: u64 = String::from_utf8(du).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(usage(folder.path()), Ok(du));
        assert_eq!(usage(&folder.path().join("none")), Ok(0));
        assert!(usage(&folder.path().join("a")).unwrap() >= 100_000);
    }
}
