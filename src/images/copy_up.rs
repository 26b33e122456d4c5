//! Copying a directory of an image into an empty volume.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::cursor::{Blocked, Cursor, Missing};
use super::error::{Doing as _, Error, printable};
use super::unpack::is_kept;
use super::{Image, Store, pack, snapshot, tree};

impl Store {
    /// Copies the content of directory `path` of an image (owners, modes, times, attributes) into the empty directory `into`.
    /// Whether there was such a directory.
    pub fn copy_up(&self, image: &Image, path: &str, into: &Path) -> Result<bool, Error> {
        let rootfs = self.rootfs(image, None)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let from = match rustix::fs::openat2(&rootfs.mount, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other.doing(|| format!("opening {path} of the image"))?,
        };
        let to = snapshot::open(into)?;
        copy(from.as_fd(), to.as_fd()).map(|()| true)
    }
}

/// Copies a tree. Links are copied, never followed; hard links stay together; sockets are left out.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Error> {
    let mut copier = Copier { from: Cursor::new(from), to: Cursor::new(to), links: HashMap::new() };
    let mut waiting: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    let mut directories = Vec::new();
    while let Some(path) = waiting.pop() {
        let copying = || format!("copying `/{}` of the image into a volume", printable(&path.join(&b'/')));
        for name in copier.directory(&path).doing(copying)? {
            waiting.push([path.as_slice(), &[name]].concat());
        }
        directories.push(path);
    }
    // Deepest last, so from the end: nothing changes a directory's time after it is set.
    for path in directories.iter().rev() {
        let copying = || format!("copying the attributes of `/{}` into a volume", printable(&path.join(&b'/')));
        copier.finish(path).doing(copying)?;
    }
    Ok(())
}

struct Copier<'a> {
    from: Cursor<'a>,
    to: Cursor<'a>,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Copier<'_> {
    /// Copies a directory's members; gives its directories, made but still empty.
    fn directory(&mut self, path: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let parts: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let from = enter(&mut self.from, &parts)?;
        let mut inside = Vec::new();
        for (name, _) in tree::list(tree::open(from, b".")?.as_fd())? {
            let name = name.as_slice();
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let key = (stat.st_dev, stat.st_ino);
            if kind != FileType::Directory && stat.st_nlink > 1 {
                if let Some((old, above)) = self.links.get(&key).and_then(|first| first.split_last()) {
                    let above: Vec<&[u8]> = above.iter().map(Vec::as_slice).collect();
                    let target = rustix::io::dup(tree::open(enter(&mut self.to, &above)?, b".")?)?;
                    let to = enter(&mut self.to, &parts)?;
                    rustix::fs::linkat(target, old.as_slice(), to, name, AtFlags::empty())?;
                    continue;
                }
                self.links.insert(key, [path, &[name.to_vec()]].concat());
            }
            let to = enter(&mut self.to, &parts)?;
            match kind {
                FileType::Directory => {
                    rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                    inside.push(name.to_vec());
                    continue;
                }
                FileType::RegularFile => {
                    file(from, to, name, &stat)?;
                    continue;
                }
                FileType::Symlink => rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, to, name)?,
                FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                    rustix::fs::mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
                }
                _ => continue,
            }
            rustix::fs::chownat(to, name, Some(uid(&stat)), Some(gid(&stat)), AtFlags::SYMLINK_NOFOLLOW)?;
            if kind != FileType::Symlink {
                rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
            }
            rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(inside)
    }

    fn finish(&mut self, path: &[Vec<u8>]) -> io::Result<()> {
        let parts: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let from = tree::open(enter(&mut self.from, &parts)?, b".")?;
        let to = tree::open(enter(&mut self.to, &parts)?, b".")?;
        Ok(attributes(&from, &to)?)
    }
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, read, Mode::empty())?;
    let target = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
    if stat.st_size > 0 {
        io::copy(
            &mut std::fs::File::from(rustix::io::dup(&source)?),
            &mut std::fs::File::from(rustix::io::dup(&target)?),
        )?;
    }
    Ok(attributes(&source, &target)?)
}

/// Owner first: a change of owner takes set-id bits and capabilities away.
fn attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(uid(&stat)), Some(gid(&stat)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for (name, value) in pack::xattrs(from.as_fd())? {
        if is_kept(&name) {
            rustix::fs::fsetxattr(to, name.as_slice(), &value, XattrFlags::empty())?;
        }
    }
    rustix::fs::futimens(to, &times(&stat))
}

fn enter<'a>(cursor: &'a mut Cursor<'_>, path: &[&[u8]]) -> io::Result<BorrowedFd<'a>> {
    cursor.enter(path, Missing::Fail, |_| {}).map_err(|blocked| match blocked {
        Blocked::Kernel(errno) => errno.into(),
        Blocked::Missing | Blocked::NoDirectory(_) => io::Error::other("a directory changed while it was copied"),
    })
}

fn uid(stat: &Stat) -> Uid {
    Uid::from_raw(stat.st_uid)
}

fn gid(stat: &Stat) -> Gid {
    Gid::from_raw(stat.st_gid)
}

fn times(stat: &Stat) -> Timestamps {
    let nanos = |nanos| i64::try_from(nanos).unwrap_or_default();
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
    }
}
