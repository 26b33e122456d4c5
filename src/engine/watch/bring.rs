//! Makes one name in a container's root what it is on the host, by descriptors: no link of the container leads out of
//! its root, and no program of its image is needed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::batch::Change;
use crate::sys::userns::Ids;
use crate::sys::{path, tree};

/// What bringing a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// Made, or written anew.
    Written,
    /// Removed.
    Removed,
    /// It was the same already, or is nothing that can be copied.
    Nothing,
}

/// Makes the change's name below `target` in `root` what `change.from` is now, with its owner, mode and time.
///
/// `ids` are those of a user namespace that `root` is seen outside of.
///
/// A file that is all of its rule goes into `target` where that is a folder.
///
/// A file that exists is rewritten in place, so that whoever watches or has mounted just that file sees it; only a
/// program that runs gets a new file in its place.
pub fn bring(root: BorrowedFd<'_>, ids: Option<Ids>, change: &Change) -> io::Result<Brought> {
    let stat = match rustix::fs::lstat(&change.from) {
        Ok(stat) => Some(seen(stat, ids)),
        Err(Errno::NOENT | Errno::NOTDIR) => None,
        Err(e) => return Err(e.into()),
    };
    let kind = stat.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode));
    let whole = change.below.as_os_str().is_empty();
    let mut to = if whole { change.target.clone() } else { change.target.join(&change.below) };
    if whole
        && kind != Some(FileType::Directory)
        && path::open_in_root(root, &to, OFlags::PATH | OFlags::DIRECTORY).is_ok()
        && let Some(name) = change.from.file_name()
    {
        to.push(name);
    }
    let (Some(folder), Some(name)) = (to.parent(), to.file_name()) else { return Ok(Brought::Nothing) };
    let Some(stat) = stat else { return remove(root, folder, name) };
    if !matches!(kind, Some(FileType::Directory | FileType::RegularFile | FileType::Symlink)) {
        return Ok(Brought::Nothing);
    }
    let place = Place { folder: path::ensure_in_root(root, folder, path::Missing::Folder)?, name };
    let brought = match kind {
        Some(FileType::Directory) => place.directory(&stat)?,
        Some(FileType::Symlink) => place.link(&change.from, &stat)?,
        _ => place.file(&change.from, ids)?,
    };
    Ok(if brought { Brought::Written } else { Brought::Nothing })
}

fn remove(root: BorrowedFd<'_>, folder: &Path, name: &OsStr) -> io::Result<Brought> {
    let folder = match path::open_in_root(root, folder, OFlags::PATH | OFlags::DIRECTORY) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Brought::Nothing);
        }
        other => other?,
    };
    if rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
        return Ok(Brought::Nothing);
    }
    tree::remove(folder.as_fd(), name.as_bytes())?;
    Ok(Brought::Removed)
}

/// A name in a folder of the container.
struct Place<'a> {
    folder: OwnedFd,
    name: &'a OsStr,
}

impl Place<'_> {
    fn present(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether a folder was made, or changed its owner or mode.
    fn directory(&self, wanted: &Stat) -> io::Result<bool> {
        let present = self.present()?;
        let is_folder =
            present.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_folder {
            if present.is_some() {
                tree::remove(self.folder.as_fd(), self.name.as_bytes())?;
            }
            rustix::fs::mkdirat(&self.folder, self.name, Mode::RWXU)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.folder, self.name, flags, Mode::empty())?;
        Ok(own(folder.as_fd(), wanted)? || !is_folder)
    }

    fn link(&self, from: &Path, wanted: &Stat) -> io::Result<bool> {
        let target = rustix::fs::readlink(from, Vec::new())?;
        if let Some(stat) = self.present()? {
            let same = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
                && rustix::fs::readlinkat(&self.folder, self.name, Vec::new())? == target;
            if same {
                return Ok(false);
            }
            tree::remove(self.folder.as_fd(), self.name.as_bytes())?;
        }
        rustix::fs::symlinkat(target, &self.folder, self.name)?;
        let (uid, gid) = owner(wanted);
        rustix::fs::chownat(&self.folder, self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(true)
    }

    /// Whether a file's content, owner or mode is new.
    fn file(&self, from: &Path, ids: Option<Ids>) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::open(from, flags, Mode::empty())?);
        let wanted = seen(rustix::fs::fstat(&source)?, ids);
        if FileType::from_raw_mode(wanted.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let (mut target, fresh) = self.open()?;
        let rewrite = fresh || !same(&mut source, &mut target)?;
        if rewrite {
            overwrite(&mut source, &mut target)?;
        }
        let owned = own(target.as_fd(), &wanted)?;
        if rewrite {
            rustix::fs::futimens(&target, &times(&wanted))?;
        }
        Ok(rewrite || owned)
    }

    /// The file to write to, and whether it is a new one.
    fn open(&self) -> io::Result<(File, bool)> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Some(stat) = self.present()? {
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                match rustix::fs::openat(&self.folder, self.name, flags, Mode::empty()) {
                    Ok(file) => return Ok((file.into(), false)),
                    // A program that runs cannot be written to.
                    Err(Errno::TXTBSY) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            tree::remove(self.folder.as_fd(), self.name.as_bytes())?;
        }
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        Ok((rustix::fs::openat(&self.folder, self.name, flags, Mode::RUSR | Mode::WUSR)?.into(), true))
    }
}

/// Whether two files have the same content. Leaves both at some place.
fn same(a: &mut File, b: &mut File) -> io::Result<bool> {
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = a.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        match b.read_exact(&mut right[..length]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

/// Writes all of `source` over `target`, which is cut only afterwards: a reader in between never finds it empty.
fn overwrite(source: &mut File, target: &mut File) -> io::Result<()> {
    source.rewind()?;
    target.rewind()?;
    let mut length = 0;
    loop {
        // Shares the blocks where both are on one file system that can.
        match rustix::fs::copy_file_range(&*source, None, &*target, None, 1 << 30) {
            Ok(0) => break,
            Ok(copied) => length += copied as u64,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) if length == 0 => {
                length = io::copy(source, target)?;
                break;
            }
            Err(e) => return Err(e.into()),
        }
    }
    target.flush()?;
    if target.metadata()?.len() > length {
        target.set_len(length)?;
    }
    Ok(())
}

/// Gives a file owner and mode of another; whether that changed anything. Owner first: it takes set-id bits away.
fn own(file: BorrowedFd<'_>, wanted: &Stat) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    let (uid, gid) = owner(wanted);
    let other_owner = (stat.st_uid, stat.st_gid) != (wanted.st_uid, wanted.st_gid);
    if other_owner {
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    let other_mode = (stat.st_mode ^ wanted.st_mode) & 0o7777 != 0;
    if other_owner || other_mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(wanted.st_mode))?;
    }
    Ok(other_owner || other_mode)
}

/// The same with the owner as it is seen from outside of a user namespace; its root for who isn't there.
fn seen(mut stat: Stat, ids: Option<Ids>) -> Stat {
    if let Some(ids) = ids {
        let outside = |id| ids.outside(id).unwrap_or(ids.base);
        (stat.st_uid, stat.st_gid) = (outside(stat.st_uid), outside(stat.st_gid));
    }
    stat
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

fn times(stat: &Stat) -> Timestamps {
    let nanos = |nanos| i64::try_from(nanos).unwrap_or_default();
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    struct Bed {
        host: tempfile::TempDir,
        root: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Self {
            Self { host: tempfile::tempdir().unwrap(), root: tempfile::tempdir().unwrap() }
        }

        fn bring(&self, name: &str, to: &str, whole: bool) -> io::Result<Brought> {
            let root = rustix::fs::open(self.root.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let (target, below) = if whole { (to, "") } else { to.rsplit_once('/').unwrap() };
            let target = if target.is_empty() { "/" } else { target };
            bring(
                root.as_fd(),
                None,
                &Change { from: self.host.path().join(name), target: target.into(), below: below.into() },
            )
        }

        fn write(&self, name: &str, text: &str) {
            fs_err::write(self.host.path().join(name), text).unwrap();
        }

        fn inside(&self, path: &str) -> std::path::PathBuf {
            self.root.path().join(path)
        }
    }

    #[test]
    fn a_file_is_made_rewritten_in_place_and_removed() {
        let bed = Bed::new();
        bed.write("a", "one two three");
        assert_eq!(bed.bring("a", "/new/folder/a", false).unwrap(), Brought::Written);
        let inode = fs_err::metadata(bed.inside("new/folder/a")).unwrap().ino();
        bed.write("a", "one");
        assert_eq!(bed.bring("a", "/new/folder/a", false).unwrap(), Brought::Written);
        assert_eq!(fs_err::read_to_string(bed.inside("new/folder/a")).unwrap(), "one");
        assert_eq!(fs_err::metadata(bed.inside("new/folder/a")).unwrap().ino(), inode);
        assert_eq!(bed.bring("a", "/new/folder/a", false).unwrap(), Brought::Nothing, "the same content");
        let path = bed.host.path().join("a");
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(bed.bring("a", "/new/folder/a", false).unwrap(), Brought::Written, "another mode");
        assert_eq!(fs_err::metadata(bed.inside("new/folder/a")).unwrap().mode() & 0o7777, 0o755);
        fs_err::remove_file(path).unwrap();
        assert_eq!(bed.bring("a", "/new/folder/a", false).unwrap(), Brought::Removed);
        assert_eq!(bed.bring("a", "/new/folder/a", false).unwrap(), Brought::Nothing);
        assert_eq!(bed.bring("a", "/nowhere/a", false).unwrap(), Brought::Nothing);
    }

    #[test]
    fn links_of_the_container_lead_nowhere_outside() {
        let bed = Bed::new();
        let outside = tempfile::tempdir().unwrap();
        fs_err::write(outside.path().join("kept"), "kept").unwrap();
        symlink(outside.path(), bed.inside("up")).unwrap();
        symlink(outside.path().join("kept"), bed.inside("file")).unwrap();
        bed.write("a", "new");
        bed.bring("a", "/up/a", false).unwrap();
        assert!(!outside.path().join("a").exists());
        assert_eq!(bed.bring("a", "/file", false).unwrap(), Brought::Written);
        assert_eq!(fs_err::read_to_string(outside.path().join("kept")).unwrap(), "kept");
        assert!(fs_err::symlink_metadata(bed.inside("file")).unwrap().is_file());
        fs_err::create_dir(bed.inside("folder")).unwrap();
        symlink(outside.path(), bed.inside("folder/link")).unwrap();
        assert_eq!(bed.bring("gone", "/folder", false).unwrap(), Brought::Removed);
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn kinds_replace_each_other() {
        let bed = Bed::new();
        fs_err::create_dir(bed.host.path().join("x")).unwrap();
        assert_eq!(bed.bring("x", "/x", false).unwrap(), Brought::Written);
        fs_err::write(bed.inside("x/inside"), "").unwrap();
        assert_eq!(bed.bring("x", "/x", false).unwrap(), Brought::Nothing);
        fs_err::remove_dir(bed.host.path().join("x")).unwrap();
        symlink("/etc/passwd", bed.host.path().join("x")).unwrap();
        assert_eq!(bed.bring("x", "/x", false).unwrap(), Brought::Written);
        assert_eq!(fs_err::read_link(bed.inside("x")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(bed.bring("x", "/x", false).unwrap(), Brought::Nothing);
        fs_err::remove_file(bed.host.path().join("x")).unwrap();
        bed.write("x", "text");
        assert_eq!(bed.bring("x", "/x", false).unwrap(), Brought::Written);
        assert!(fs_err::symlink_metadata(bed.inside("x")).unwrap().is_file());
    }

    #[test]
    fn a_single_file_goes_into_a_folder_that_is_its_target() {
        let bed = Bed::new();
        fs_err::create_dir(bed.inside("etc")).unwrap();
        bed.write("nginx.conf", "x");
        bed.bring("nginx.conf", "/etc", true).unwrap();
        assert!(bed.inside("etc/nginx.conf").is_file());
        bed.bring("nginx.conf", "/etc/other.conf", true).unwrap();
        assert!(bed.inside("etc/other.conf").is_file());
    }
}
