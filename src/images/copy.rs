//! Copying files and trees between folders, by descriptors: into an empty volume, and in and out of containers.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::cursor::{Blocked, Cursor, Missing};
use super::error::{Doing as _, Error, printable};
use super::unpack::is_kept;
use super::{pack, tree};
use crate::sys::userns::Ids;

/// Something in a folder by its name; `.` is the folder itself. Nothing is reached through a link.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The folder.
    pub folder: BorrowedFd<'a>,
    /// The name in it.
    pub name: &'a [u8],
}

/// Who the copies belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whom the originals belong to.
    Same,
    /// The same in this user namespace, which the target is seen outside of; its root instead of who isn't there.
    Into(Ids),
    /// The same in this user namespace, which the originals are seen outside of.
    OutOf(Ids),
    /// This user and group. Rights that come with an owner (set-id bits, capabilities) are not copied.
    Id(u32, u32),
}

/// Copies a file or a tree to a spot. Folders that are there are filled, and keep their attributes; other things are
/// replaced, but never a folder by something else or the other way round. Links are copied, not followed; hard links
/// stay together; sockets are left out.
pub fn copy(from: Spot<'_>, to: Spot<'_>, owner: Owner) -> Result<(), Error> {
    let copying = |name: &[u8]| format!("copying `{}`", printable(name));
    let stat = rustix::fs::statat(from.folder, from.name, AtFlags::SYMLINK_NOFOLLOW).doing(|| copying(from.name))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return member(from, to, &stat, owner).doing(|| copying(from.name));
    }
    let made = folder(to).doing(|| copying(from.name))?;
    let source = tree::open(from.folder, from.name).doing(|| copying(from.name))?;
    let target = tree::open(to.folder, to.name).doing(|| copying(from.name))?;
    copy_content(source.as_fd(), target.as_fd(), owner)?;
    if made { attributes(&source, &target, owner).doing(|| copying(from.name)) } else { Ok(()) }
}

/// Copies all that is in a folder into another, as [`copy`] does. The folder's own attributes are not copied.
pub(super) fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owner: Owner) -> Result<(), Error> {
    let stat = rustix::fs::fstat(to).doing(|| "looking at the target".to_owned())?;
    let (links, target) = (HashMap::new(), (stat.st_dev, stat.st_ino));
    let mut copier =
        Copier { from: Cursor::new(from), to: Cursor::new(to), owner, links, made: BTreeSet::new(), target };
    let mut waiting: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let copying = || format!("copying `/{}`", printable(&path.join(&b'/')));
        for name in copier.directory(&path).doing(copying)? {
            waiting.push([path.as_slice(), &[name]].concat());
        }
    }
    // Deepest first: nothing changes a folder's time after it is set.
    for path in std::mem::take(&mut copier.made).iter().rev() {
        let copying = || format!("copying the attributes of `/{}`", printable(&path.join(&b'/')));
        copier.finish(path).doing(copying)?;
    }
    Ok(())
}

struct Copier<'a> {
    from: Cursor<'a>,
    to: Cursor<'a>,
    owner: Owner,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
    /// Folders that were not there before.
    made: BTreeSet<Vec<Vec<u8>>>,
    /// The target's device and inode: it may lie in what is copied.
    target: (u64, u64),
}

impl Copier<'_> {
    /// Copies a folder's members; gives its folders, made but still empty.
    fn directory(&mut self, path: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let parts: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let mut inside = Vec::new();
        let members = tree::list(tree::open(enter(&mut self.from, &parts)?, b".")?.as_fd())?;
        for (name, _) in members {
            let from = Spot { folder: enter(&mut self.from, &parts)?, name: &name };
            let stat = rustix::fs::statat(from.folder, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let key = (stat.st_dev, stat.st_ino);
            if key == self.target {
                continue;
            }
            if kind != FileType::Directory && stat.st_nlink > 1 {
                if let Some((old, above)) = self.links.get(&key).and_then(|first| first.split_last()) {
                    let above: Vec<&[u8]> = above.iter().map(Vec::as_slice).collect();
                    let first = tree::open(enter(&mut self.to, &above)?, b".")?;
                    let to = Spot { folder: enter(&mut self.to, &parts)?, name: &name };
                    make(to, || rustix::fs::linkat(&first, old.as_slice(), to.folder, to.name, AtFlags::empty()))?;
                    continue;
                }
                self.links.insert(key, [path, std::slice::from_ref(&name)].concat());
            }
            let to = Spot { folder: enter(&mut self.to, &parts)?, name: &name };
            if kind == FileType::Directory {
                if folder(to)? {
                    self.made.insert([path, std::slice::from_ref(&name)].concat());
                }
                inside.push(name);
            } else {
                member(from, to, &stat, self.owner)?;
            }
        }
        Ok(inside)
    }

    fn finish(&mut self, path: &[Vec<u8>]) -> io::Result<()> {
        let parts: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let from = tree::open(enter(&mut self.from, &parts)?, b".")?;
        let to = tree::open(enter(&mut self.to, &parts)?, b".")?;
        attributes(&from, &to, self.owner)
    }
}

/// Makes a folder unless it is there; whether it was made.
fn folder(to: Spot<'_>) -> io::Result<bool> {
    match rustix::fs::mkdirat(to.folder, to.name, Mode::RWXU) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stat = rustix::fs::statat(to.folder, to.name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(false);
    }
    Err(io::Error::new(io::ErrorKind::NotADirectory, "cannot overwrite a non-directory with a directory"))
}

/// Copies what is no folder.
fn member(from: Spot<'_>, to: Spot<'_>, stat: &Stat, owner: Owner) -> io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => return file(from, to, owner),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from.folder, from.name, Vec::new())?;
            make(to, || rustix::fs::symlinkat(&target, to.folder, to.name))?;
        }
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            let mode = Mode::RUSR | Mode::WUSR;
            make(to, || rustix::fs::mknodat(to.folder, to.name, kind, mode, stat.st_rdev))?;
        }
        _ => return Ok(()),
    }
    let (uid, gid) = ids(stat, owner);
    rustix::fs::chownat(to.folder, to.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to.folder, to.name, mode(stat, owner), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(to.folder, to.name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes something at a spot, in the place of what is there.
fn make<T>(to: Spot<'_>, make: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    match rustix::fs::unlinkat(to.folder, to.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(make()?),
        Err(Errno::ISDIR) => {
            Err(io::Error::new(io::ErrorKind::IsADirectory, "cannot overwrite a directory with a non-directory"))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn file(from: Spot<'_>, to: Spot<'_>, owner: Owner) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from.folder, from.name, read, Mode::empty())?;
    let create = || {
        let flags = write | OFlags::CREATE | OFlags::EXCL;
        rustix::fs::openat(to.folder, to.name, flags, Mode::RUSR | Mode::WUSR)
    };
    let target = match make(to, create) {
        // A file that something is mounted on can't be replaced, but written.
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            rustix::fs::openat(to.folder, to.name, write | OFlags::TRUNC, Mode::empty())?
        }
        other => other?,
    };
    content(&std::fs::File::from(rustix::io::dup(&source)?), &std::fs::File::from(rustix::io::dup(&target)?))?;
    attributes(&source, &target, owner)
}

/// Copies what a file holds; where it has holes, so has the copy.
fn content(mut source: &std::fs::File, mut target: &std::fs::File) -> io::Result<()> {
    let mut at = 0;
    loop {
        let data = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // Not a file system that knows of holes, or not a plain file any more.
            Err(Errno::INVAL) => return io::copy(&mut source, &mut target).map(drop),
            Err(errno) => return Err(errno.into()),
        };
        at = rustix::fs::seek(source, SeekFrom::Hole(data))?;
        rustix::fs::seek(source, SeekFrom::Start(data))?;
        rustix::fs::seek(target, SeekFrom::Start(data))?;
        io::copy(&mut source.take(at - data), &mut target)?;
    }
    let length = rustix::fs::fstat(source)?.st_size;
    if length > rustix::fs::fstat(target)?.st_size {
        rustix::fs::ftruncate(target, u64::try_from(length).unwrap_or_default())?;
    }
    Ok(())
}

/// Owner first: a change of owner takes set-id bits and capabilities away.
pub(super) fn attributes(from: &OwnedFd, to: &OwnedFd, owner: Owner) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = ids(&stat, owner);
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, mode(&stat, owner))?;
    for (name, value) in pack::xattrs(from.as_fd())? {
        let right = name == b"security.capability" && is_other(owner);
        if is_kept(&name) && !right {
            match rustix::fs::fsetxattr(to, name.as_slice(), &value, XattrFlags::empty()) {
                // The file system there has no such thing.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(rustix::fs::futimens(to, &times(&stat))?)
}

fn enter<'a>(cursor: &'a mut Cursor<'_>, path: &[&[u8]]) -> io::Result<BorrowedFd<'a>> {
    cursor.enter(path, Missing::Fail, |_| {}).map_err(|blocked| match blocked {
        Blocked::Kernel(errno) => errno.into(),
        Blocked::Missing | Blocked::NoDirectory(_) => io::Error::other("a folder changed while it was copied"),
    })
}

fn ids(stat: &Stat, owner: Owner) -> (Uid, Gid) {
    match owner {
        Owner::Same => (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)),
        Owner::Into(ids) => {
            let outside = |id| ids.outside(id).unwrap_or(ids.base);
            (Uid::from_raw(outside(stat.st_uid)), Gid::from_raw(outside(stat.st_gid)))
        }
        Owner::OutOf(ids) => (Uid::from_raw(ids.inside(stat.st_uid)), Gid::from_raw(ids.inside(stat.st_gid))),
        Owner::Id(uid, gid) => (Uid::from_raw(uid), Gid::from_raw(gid)),
    }
}

fn is_other(owner: Owner) -> bool {
    matches!(owner, Owner::Id(..))
}

fn mode(stat: &Stat, owner: Owner) -> Mode {
    Mode::from_raw_mode(if is_other(owner) { stat.st_mode & 0o1777 } else { stat.st_mode })
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
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn trees_are_merged_and_kinds_never_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for dir in ["a/sub", "b/a/sub", "b/out"] {
            fs_err::create_dir_all(path(dir)).unwrap();
        }
        fs_err::write(path("a/sub/new"), "new").unwrap();
        fs_err::write(path("a/old"), "changed").unwrap();
        fs_err::write(path("b/a/old"), "old").unwrap();
        fs_err::write(path("b/a/sub/kept"), "kept").unwrap();
        fs_err::os::unix::fs::symlink("/etc/passwd", path("a/link")).unwrap();
        let (from, to) = (open(folder.path()), open(&path("b")));
        let spot = |folder: &'static str| folder.as_bytes();
        let run = |name, to_name| {
            let (from, to) = (Spot { folder: from.as_fd(), name }, Spot { folder: to.as_fd(), name: to_name });
            copy(from, to, Owner::Same)
        };
        run(spot("a"), spot("a")).unwrap();
        assert_eq!(fs_err::read_to_string(path("b/a/old")).unwrap(), "changed");
        assert_eq!(fs_err::read_to_string(path("b/a/sub/new")).unwrap(), "new");
        assert_eq!(fs_err::read_to_string(path("b/a/sub/kept")).unwrap(), "kept");
        assert_eq!(fs_err::read_link(path("b/a/link")).unwrap(), Path::new("/etc/passwd"));
        // Again, over what is there, the link among it.
        run(spot("a"), spot("a")).unwrap();
        let error = run(spot("a"), spot("a/old")).unwrap_err().to_string();
        assert!(error.contains("non-directory with a directory"), "{error}");
        fs_err::write(path("plain"), "x").unwrap();
        let error = run(spot("plain"), spot("a")).unwrap_err().to_string();
        assert!(error.contains("directory with a non-directory"), "{error}");
    }

    #[test]
    fn holes_stay_holes() {
        use std::os::unix::fs::{FileExt as _, MetadataExt as _};
        let folder = tempfile::tempdir().unwrap();
        let file = fs_err::File::create(folder.path().join("sparse")).unwrap();
        file.file().write_all_at(b"begin", 0).unwrap();
        file.file().write_all_at(b"middle", 8 << 20).unwrap();
        file.set_len(16 << 20).unwrap();
        let fd = open(folder.path());
        let spot = |name| Spot { folder: fd.as_fd(), name };
        copy(spot(b"sparse"), spot(b"copy"), Owner::Same).unwrap();
        let of = |name: &str| fs_err::metadata(folder.path().join(name)).unwrap();
        assert_eq!(of("copy").len(), 16 << 20);
        assert!(of("copy").blocks() <= of("sparse").blocks() + 8, "{} blocks", of("copy").blocks());
        let same =
            fs_err::read(folder.path().join("copy")).unwrap() == fs_err::read(folder.path().join("sparse")).unwrap();
        assert!(same);
    }

    #[test]
    fn another_owner_gets_no_rights_of_the_first() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("program"), "").unwrap();
        fs_err::set_permissions(folder.path().join("program"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        let fd = open(folder.path());
        let spot = |name| Spot { folder: fd.as_fd(), name };
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        copy(spot(b"program"), spot(b"copy"), Owner::Id(uid, gid)).unwrap();
        let mode = fs_err::metadata(folder.path().join("copy")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}
