//! Directory trees by descriptors: listing, and removal at any depth. No link is ever followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory for listing, never through a link.
pub fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, LIST, Mode::empty())
}

/// Names and kinds of a directory's members, sorted by bytes.
pub fn list(directory: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut members = Vec::new();
    for member in Dir::read_from(directory)? {
        let member = member?;
        let name = member.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match member.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        members.push((name.to_vec(), kind));
    }
    members.sort_unstable_by(|a: &(Vec<u8>, FileType), b| a.0.cmp(&b.0));
    Ok(members)
}

/// Removes a directory tree or anything else. That it is gone already is no error.
///
/// Directories inside are emptied one by one after being moved up beside the tree's root, so depth costs neither stack
/// nor descriptors.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let top = open(parent, name)?;
    empty(top.as_fd())?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Removes all that is in a directory.
pub fn empty(top: BorrowedFd<'_>) -> Result<(), Errno> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let mut waiting = clear(top, top, &SERIAL)?;
    while let Some(name) = waiting.pop() {
        let directory = open(top, &name)?;
        waiting.extend(clear(directory.as_fd(), top, &SERIAL)?);
        drop(directory);
        rustix::fs::unlinkat(top, name.as_slice(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Removes a directory's members but moves its non-empty directories to `top`; gives back their names there.
fn clear(directory: BorrowedFd<'_>, top: BorrowedFd<'_>, serial: &AtomicU64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut moved = Vec::new();
    for (name, kind) in list(directory)? {
        let name = name.as_slice();
        if kind != FileType::Directory {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        loop {
            let aside = format!(".removed-{}", serial.fetch_add(1, Ordering::Relaxed)).into_bytes();
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(directory, name, top, aside.as_slice(), flags) {
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
                Ok(()) => {
                    moved.push(aside);
                    break;
                }
            }
        }
    }
    Ok(moved)
}

/// Copies what a directory holds into another: files, directories and links with their owners and modes, and the
/// directory's own. Other kinds are left out.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    let mut waiting = vec![(from.try_clone_to_owned()?, to.try_clone_to_owned()?)];
    while let Some((from, to)) = waiting.pop() {
        for (name, kind) in list(from.as_fd())? {
            let name = name.as_slice();
            match kind {
                FileType::Directory => {
                    rustix::fs::mkdirat(&to, name, Mode::RWXU)?;
                    waiting.push((open(from.as_fd(), name)?, open(to.as_fd(), name)?));
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&from, name, Vec::new())?;
                    rustix::fs::symlinkat(target.as_c_str(), &to, name)?;
                }
                FileType::RegularFile => {
                    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    let mut source = std::fs::File::from(rustix::fs::openat(&from, name, read, Mode::empty())?);
                    let mut target =
                        std::fs::File::from(rustix::fs::openat(&to, name, write, Mode::RUSR | Mode::WUSR)?);
                    std::io::copy(&mut source, &mut target)?;
                    own_alike(source.as_fd(), target.as_fd())?;
                }
                _ => {}
            }
        }
        own_alike(from.as_fd(), to.as_fd())?;
    }
    Ok(())
}

fn own_alike(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    let (user, group) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    // The mode last: a new owner takes its special bits.
    let to = rustix::fs::openat(to, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(to, 0))?;
    rustix::fs::fchown(&to, Some(user), Some(group))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = open(rustix::fs::CWD, directory.path().as_os_str().as_encoded_bytes()).unwrap();
        let mut here = rustix::io::dup(&root).unwrap();
        for _ in 0..2_000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            rustix::fs::openat(&here, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
            here = open(here.as_fd(), b"d").unwrap();
        }
        remove(root.as_fd(), b"d").unwrap();
        assert_eq!(list(root.as_fd()).unwrap(), [(b"f".to_vec(), FileType::RegularFile)]);
        remove(root.as_fd(), b"d").unwrap();
    }
}
