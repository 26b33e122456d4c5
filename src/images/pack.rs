//! Packing a directory into a layer's archive: sorted, without names of users, times in whole seconds, so that the same
//! content gives the same digest.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, major, minor};
use rustix::io::Errno;

use super::cursor::{Blocked, Cursor, Missing};
use super::error::{Error, printable};
use super::tar::{Entry, Kind, Time, Writer, Xattrs};
use super::tree;
use super::unpack::is_kept;
use crate::sys::userns::Ids;

/// What the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The upper directory of an overlay: its marks for what is gone become whiteouts.
    Upper,
    /// A plain directory.
    Plain,
}

/// Marks by which overlay would keep a part of a file or directory elsewhere. Our mounts never make them.
const ELSEWHERE: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];

/// Writes all that is below `root` as an archive, or `only` that member with all below it. What is
/// seen from outside of a user namespace has its ids there. The number of members.
pub(super) fn pack(
    root: BorrowedFd<'_>,
    source: Source,
    only: Option<&[u8]>,
    ids: Option<Ids>,
    into: impl Write,
) -> Result<u64, Error> {
    let mut packer =
        Packer { source, ids, here: Cursor::new(root), out: Writer::new(into), links: HashMap::new(), count: 0 };
    let fail = |path: &[Vec<u8>], e: io::Error| Error::Io {
        what: format!("archiving `/{}`", printable(&path.join(&b'/'))),
        source: e,
    };

    let mut waiting = vec![only.unwrap_or_default().to_vec()];
    let mut path: Vec<Vec<u8>> = Vec::new();
    // Depth first with names in descending order on the stack, so that they come off ascending.
    let mut depths = vec![usize::from(only.is_some())];
    while let Some(name) = waiting.pop() {
        let depth = depths.pop().unwrap_or_default();
        path.truncate(depth.max(1) - 1);
        if depth > 0 {
            path.push(name);
        }
        let inside = packer.member(&path).map_err(|e| fail(&path, e))?;
        for name in inside.into_iter().rev() {
            waiting.push(name);
            depths.push(depth + 1);
        }
    }
    let count = packer.count;
    packer.out.finish().map_err(|e| fail(&[], e))?;
    Ok(count)
}

#[derive(Debug)]
struct Packer<'a, W> {
    source: Source,
    ids: Option<Ids>,
    here: Cursor<'a>,
    out: Writer<W>,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    count: u64,
}

impl<W: Write> Packer<'_, W> {
    /// Writes one member; for a directory, gives what is in it.
    fn member(&mut self, path: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        let parts: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let Some((name, above)) = parts.split_last() else {
            let root = tree::open(enter(&mut self.here, &[])?, b".")?;
            return self.directory(&root, b"");
        };
        let parent = enter(&mut self.here, above)?;
        let stat = rustix::fs::statat(parent, *name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut full = parts.join(&b'/');
        let mut entry = describe(&stat);
        if let Some(ids) = self.ids {
            (entry.uid, entry.gid) = (ids.inside(entry.uid), ids.inside(entry.gid));
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.source == Source::Upper && tree::is_whiteout(&stat) {
            entry = removed();
            entry.name = [above, &[&[b".wh.", *name].concat()]].concat().join(&b'/');
            self.write(&entry)?;
            return Ok(Vec::new());
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                entry.kind = Kind::Hardlink(first.clone());
                entry.name = full;
                self.write(&entry)?;
                return Ok(Vec::new());
            }
            self.links.insert((stat.st_dev, stat.st_ino), full.clone());
        }
        match kind {
            FileType::Directory => {
                let directory = tree::open(parent, name)?;
                let xattrs = xattrs(directory.as_fd())?;
                self.refuse_elsewhere(&xattrs)?;
                full.push(b'/');
                entry.kind = Kind::Directory;
                entry.name.clone_from(&full);
                entry.xattrs = kept(&xattrs);
                self.write(&entry)?;
                return self.directory(&directory, &full);
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, *name, flags, Mode::empty())?;
                let xattrs = xattrs(file.as_fd())?;
                self.refuse_elsewhere(&xattrs)?;
                entry.name = full;
                entry.xattrs = kept(&xattrs);
                self.write(&entry)?;
                let size = entry.size;
                io::copy(&mut std::fs::File::from(file).take(size), &mut self.out)?;
                return Ok(Vec::new());
            }
            FileType::Symlink => {
                entry.kind = Kind::Symlink(rustix::fs::readlinkat(parent, *name, Vec::new())?.into_bytes());
            }
            FileType::Fifo => entry.kind = Kind::Fifo,
            FileType::CharacterDevice => {
                entry.kind = Kind::Char { major: major(stat.st_rdev), minor: minor(stat.st_rdev) };
            }
            FileType::BlockDevice => {
                entry.kind = Kind::Block { major: major(stat.st_rdev), minor: minor(stat.st_rdev) };
            }
            // Sockets mean nothing without the process that listens.
            _ => return Ok(Vec::new()),
        }
        entry.name = full;
        self.write(&entry)?;
        Ok(Vec::new())
    }

    /// What is in a directory; an opaque one first says so.
    fn directory(&mut self, directory: &OwnedFd, full: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        if self.source == Source::Upper && is_opaque(directory.as_fd()) {
            let mut entry = removed();
            entry.name = [full, b".wh..wh..opq"].concat();
            self.write(&entry)?;
        }
        Ok(tree::list(directory.as_fd())?.into_iter().map(|(name, _)| name).collect())
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.count += 1;
        self.out.entry(entry)
    }

    fn refuse_elsewhere(&self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let elsewhere = xattrs.iter().any(|(name, _)| ELSEWHERE.contains(&name.as_slice()));
        if self.source == Source::Upper && elsewhere {
            return Err(io::Error::other("overlay keeps a part of it elsewhere (redirect_dir or metacopy is on)"));
        }
        Ok(())
    }
}

fn enter<'a>(cursor: &'a mut Cursor<'_>, path: &[&[u8]]) -> io::Result<BorrowedFd<'a>> {
    cursor.enter(path, Missing::Fail, |_| {}).map_err(|blocked| match blocked {
        Blocked::Missing | Blocked::NoDirectory(_) => io::Error::other("the directory changed while it was archived"),
        Blocked::Kernel(errno) => errno.into(),
    })
}

fn describe(stat: &Stat) -> Entry {
    let size = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or_default(),
        _ => 0,
    };
    Entry {
        name: Vec::new(),
        kind: Kind::File,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: 0 },
        xattrs: Vec::new(),
        size,
        sparse: None,
    }
}

/// The empty file that a whiteout is.
fn removed() -> Entry {
    Entry {
        name: Vec::new(),
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
        size: 0,
        sparse: None,
    }
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 2];
    matches!(rustix::fs::fgetxattr(directory, tree::OPAQUE, &mut value), Ok(1) if value[0] == b'y')
}

fn kept(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Xattrs {
    xattrs.iter().filter(|(name, _)| is_kept(name)).cloned().collect()
}

/// All extended attributes, sorted by name.
pub(super) fn xattrs(of: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let len = match rustix::fs::flistxattr_query(of) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = vec![0_u8; len];
    let len = rustix::fs::flistxattr(of, names.as_mut_slice())?;
    let mut found = Vec::new();
    for name in names[..len].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let len = rustix::fs::fgetxattr_query(of, name)?;
        let mut value = vec![0_u8; len];
        let len = rustix::fs::fgetxattr(of, name, value.as_mut_slice())?;
        value.truncate(len);
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}
