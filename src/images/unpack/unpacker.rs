//! One entry after the other.

use std::collections::{BTreeMap, HashSet};
use std::io::BufRead;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, makedev};
use rustix::io::Errno;

use super::limits::Budget;
use super::metadata::Metadata;
use super::names::{self, Meaning};
use super::{Below, Form};
use crate::images::cursor::{Blocked, Cursor, Missing, set_opaque};
use crate::images::error::{Error, printable};
use crate::images::tar::{Entry, Kind, Reader, Segment};
use crate::images::tree;

/// Data of an archive that is read only to say how much there is.
const MAX_COUNTED: u64 = 4 << 30;

/// A layer being unpacked.
pub(super) struct Unpacker<'a> {
    pub(super) form: Form,
    parents: &'a dyn Below,
    pub(super) root: BorrowedFd<'a>,
    /// Where entries go.
    pub(super) here: Cursor<'a>,
    /// Where targets of hard links are.
    pub(super) there: Cursor<'a>,
    budget: Budget,
    /// Directories to finish, by path.
    directories: BTreeMap<Vec<u8>, Option<Metadata>>,
    /// What this layer brought, where whiteouts are applied at once.
    pub(super) own: HashSet<Vec<u8>>,
}

/// What is wrong with an entry.
#[derive(Debug)]
pub(super) enum Fault {
    Why(&'static str),
    Kernel(Errno),
    Other(Error),
}

impl From<&'static str> for Fault {
    fn from(why: &'static str) -> Fault {
        Fault::Why(why)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::Kernel(errno)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Other(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        match Errno::from_io_error(&error) {
            Some(errno) => Fault::Kernel(errno),
            None => Fault::Other(Error::Io { what: "writing a layer".to_owned(), source: error }),
        }
    }
}

impl From<Blocked> for Fault {
    fn from(blocked: Blocked) -> Fault {
        match blocked {
            Blocked::Missing => Fault::Why("its directory is missing"),
            Blocked::NoDirectory(why) => Fault::Why(why),
            Blocked::Kernel(errno) => Fault::Kernel(errno),
        }
    }
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, form: Form, parents: &'a dyn Below) -> Result<Unpacker<'a>, Error> {
        let mut directories = BTreeMap::new();
        if form == Form::Overlay {
            directories.insert(Vec::new(), None);
        }
        Ok(Unpacker {
            form,
            parents,
            root,
            here: Cursor::new(root),
            there: Cursor::new(root),
            budget: Budget::of(root)?,
            directories,
            own: HashSet::new(),
        })
    }

    /// Unpacks one entry, reading its body.
    pub(super) fn entry(&mut self, entry: &Entry, body: &mut Reader<impl BufRead>) -> Result<(), Error> {
        self.place(entry, body).map_err(|fault| match fault {
            Fault::Kernel(Errno::NOSPC | Errno::DQUOT) | Fault::Other(Error::NoSpace { .. }) => {
                self.full(data_of(entry), body)
            }
            fault => explain(fault, &entry.name),
        })
    }

    /// Gives directories their final attributes, deepest first.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.finish_directory(&path, metadata).map_err(|fault| explain(fault, &path))?;
        }
        Ok(())
    }

    /// The error for a full disk, at an entry with so much data. How much more the rest takes is read from the archive, as far as
    /// that doesn't take too long.
    fn full(&self, data: u64, body: &mut Reader<impl BufRead>) -> Error {
        let place = fs_err::read_link(format!("/proc/self/fd/{}", self.root.as_raw_fd())).unwrap_or_default();
        let Ok(disk) = rustix::fs::fstatvfs(self.root) else { return Error::TooLarge("the disk is full".to_owned()) };
        if disk.f_files > 0 && disk.f_favail == 0 {
            let why = format!("{} takes no more files: its inodes are used up", place.display());
            return Error::TooLarge(why);
        }
        let rounded = |data: u64| data.next_multiple_of(disk.f_frsize.max(1));
        let (mut needed, mut to_skip) = (rounded(data), data);
        while to_skip <= MAX_COUNTED
            && let Ok(Some(entry)) = body.next()
        {
            to_skip += data_of(&entry);
            needed += rounded(data_of(&entry));
        }
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Error::NoSpace { place: place.display().to_string(), needed, free }
    }

    fn place(&mut self, entry: &Entry, body: &mut Reader<impl BufRead>) -> Result<(), Fault> {
        let parts = names::parts(&entry.name)?;
        self.budget.take(data_of(entry), entry.size)?;
        match names::meaning(&parts)? {
            Meaning::Skip => return Ok(()),
            Meaning::Opaque => return self.opaque(&parts[..parts.len() - 1]),
            Meaning::Whiteout(name) => return self.whiteout(&parts[..parts.len() - 1], name),
            Meaning::Member => {}
        }
        let Some((name, directory)) = parts.split_last() else { return self.set_root(entry) };
        let path = parts.join(&b'/');
        self.enter(directory)?;
        match &entry.kind {
            Kind::Directory => self.directory(&parts, name)?,
            Kind::File => self.file(directory, name, &path, entry, body)?,
            Kind::Symlink(target) => {
                self.make(directory, name, &path, |parent| rustix::fs::symlinkat(target.as_slice(), parent, *name))?;
                Metadata::of(entry).apply_at(self.enter(directory)?, name, true)?;
            }
            Kind::Hardlink(target) => self.hardlink(directory, name, &path, target)?,
            Kind::Fifo => self.node(directory, name, &path, entry, FileType::Fifo, 0)?,
            Kind::Char { major: 0, minor: 0 } => return Err("a device 0:0 is overlay's mark for a removed file".into()),
            Kind::Char { major, minor } => {
                self.node(directory, name, &path, entry, FileType::CharacterDevice, makedev(*major, *minor))?;
            }
            Kind::Block { major, minor } => {
                self.node(directory, name, &path, entry, FileType::BlockDevice, makedev(*major, *minor))?;
            }
        }
        if entry.kind == Kind::Directory {
            self.directories.insert(path.clone(), Some(Metadata::of(entry)));
        }
        if self.form == Form::Plain {
            // A directory that was there before is this layer's as well once it holds something of it.
            let mut depth = parts.len();
            while depth > 0 && self.own.insert(parts[..depth].join(&b'/')) {
                depth -= 1;
            }
        }
        Ok(())
    }

    /// The entry for the root itself: attributes only, and it stays usable.
    fn set_root(&mut self, entry: &Entry) -> Result<(), Fault> {
        if entry.kind != Kind::Directory {
            return Err("the layer's root must be a directory".into());
        }
        self.directories.insert(Vec::new(), Some(Metadata::of(entry).usable()));
        Ok(())
    }

    /// Enters a directory of the layer, making what is missing on the way.
    pub(super) fn enter(&mut self, path: &[&[u8]]) -> Result<BorrowedFd<'_>, Blocked> {
        let directories = &mut self.directories;
        self.here.enter(path, Missing::Make, |depth| {
            directories.entry(path[..=depth].join(&b'/')).or_insert(None);
        })
    }

    fn directory(&mut self, parts: &[&[u8]], name: &[u8]) -> Result<(), Fault> {
        let (directory, path) = (&parts[..parts.len() - 1], parts.join(&b'/'));
        let parent = self.enter(directory)?;
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.make(directory, name, &path, |parent| rustix::fs::mkdirat(parent, name, Mode::RWXU))?;
        if self.form == Form::Overlay && tree::is_whiteout(&stat) {
            set_opaque(self.enter(directory)?, name)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        directory: &[&[u8]],
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        body: &mut Reader<impl BufRead>,
    ) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.make(directory, name, path, |parent| rustix::fs::openat(parent, name, flags, mode))?;
        let whole = [Segment { offset: 0, len: entry.size }];
        let mut written = 0;
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            let mut at = segment.offset;
            let end = at + segment.len;
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX);
                let bytes = body.data()?;
                let bytes = &bytes[..bytes.len().min(most)];
                if !is_hole(bytes) {
                    write_at(&file, bytes, at)?;
                    written = at + bytes.len() as u64;
                }
                let n = bytes.len();
                at += n as u64;
                body.consume(n);
            }
        }
        if written < entry.size {
            rustix::fs::ftruncate(&file, entry.size)?;
        }
        Ok(Metadata::of(entry).apply(file.as_fd())?)
    }

    fn hardlink(&mut self, directory: &[&[u8]], name: &[u8], path: &[u8], target: &[u8]) -> Result<(), Fault> {
        let parts = names::parts(target).map_err(|_| "its target leads out of the layer")?;
        let Some((old, old_directory)) = parts.split_last() else { return Err("its target is a directory".into()) };
        if parts.join(&b'/') == path {
            return Err("it is a hard link to itself".into());
        }
        let found = match self.there.enter(old_directory, Missing::Fail, |_| {}) {
            Ok(parent) => match rustix::fs::statat(parent, *old, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if tree::is_whiteout(&stat) && self.form == Form::Overlay => None,
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno.into()),
            },
            Err(Blocked::Missing) => None,
            Err(blocked) => return Err(blocked.into()),
        };
        let Some(stat) = found else { return self.copy_from_parents(directory, name, path, &parts) };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err("its target is a directory".into());
        }
        let parent = self.enter(directory)?;
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) => return Ok(()),
            Ok(_) => self.clear(directory, name, path)?,
            Err(_) => {}
        }
        // Clearing may have moved `there` from its place.
        let from = self.there.enter(old_directory, Missing::Fail, |_| {})?;
        let to = self.here.enter(directory, Missing::Fail, |_| {})?;
        Ok(rustix::fs::linkat(from, *old, to, name, AtFlags::empty())?)
    }

    /// The target of a hard link is in a lower layer only, which can't be linked to: its content becomes this layer's own.
    fn copy_from_parents(
        &mut self,
        directory: &[&[u8]],
        name: &[u8],
        path: &[u8],
        target: &[&[u8]],
    ) -> Result<(), Fault> {
        const MISSING: &str =
            "the target of the hard link is missing: neither an earlier entry nor a lower layer has it";
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let target = target.join(&b'/');
        let open = |parent: &OwnedFd| rustix::fs::openat2(parent, target.as_slice(), flags, Mode::empty(), resolve);
        let from = self.parents.layers()?.iter().find_map(|parent| open(parent).ok()).ok_or(MISSING)?;
        let stat = rustix::fs::fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MISSING.into());
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.budget.take(size, size)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = self.make(directory, name, path, |parent| rustix::fs::openat(parent, name, flags, Mode::RUSR))?;
        let (mut from, mut to) = (fs_err::File::from_parts(from.into(), "lower layer"), std::fs::File::from(to));
        std::io::copy(&mut from, &mut to)?;
        Ok(Metadata::like(&stat).apply(to.as_fd())?)
    }

    fn node(
        &mut self,
        directory: &[&[u8]],
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<(), Fault> {
        if self.form == Form::Plain && kind != FileType::Fifo {
            return Ok(());
        }
        self.make(directory, name, path, |parent| {
            rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        })?;
        Ok(Metadata::of(entry).apply_at(self.enter(directory)?, name, false)?)
    }

    /// Makes something new at a name, in the place of what is there.
    fn make<T>(
        &mut self,
        directory: &[&[u8]],
        name: &[u8],
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Fault> {
        match make(self.enter(directory)?) {
            Err(Errno::EXIST) => {
                self.clear(directory, name, path)?;
                Ok(make(self.enter(directory)?)?)
            }
            other => Ok(other?),
        }
    }

    /// Removes what is at a name, with everything below it.
    fn clear(&mut self, directory: &[&[u8]], name: &[u8], path: &[u8]) -> Result<(), Fault> {
        tree::remove(self.enter(directory)?, name)?;
        self.there.reset();
        self.directories.remove(path);
        let below = [path, b"/"].concat();
        let inside: Vec<_> = self
            .directories
            .range(below.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&below))
            .cloned()
            .collect();
        for path in inside {
            self.directories.remove(&path);
        }
        Ok(())
    }

    fn finish_directory(&mut self, path: &[u8], metadata: Option<Metadata>) -> Result<(), Fault> {
        let parts = names::parts(path)?;
        let directory = match parts.split_last() {
            None => tree::open(self.root, b"."),
            Some((name, above)) => match self.here.enter(above, Missing::Fail, |_| {}) {
                Ok(parent) => tree::open(parent, name),
                // A link took the place of one of its parents since.
                Err(Blocked::Missing | Blocked::NoDirectory(_)) => return Ok(()),
                Err(blocked) => return Err(blocked.into()),
            },
        };
        let directory = match directory {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let metadata = match metadata {
            Some(metadata) => metadata,
            None => self.metadata_below(&parts)?.unwrap_or_else(Metadata::unknown),
        };
        Ok(metadata.apply(directory.as_fd())?)
    }

    /// What the lower layers say of a directory that this one doesn't describe.
    fn metadata_below(&self, parts: &[&[u8]]) -> Result<Option<Metadata>, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
        let mut parents = self.parents.layers()?.iter();
        Ok(parents.find_map(|parent| {
            let directory = rustix::fs::openat2(parent, path.as_slice(), flags, Mode::empty(), resolve).ok()?;
            rustix::fs::fstat(directory).ok().map(|stat| Metadata::like(&stat))
        }))
    }
}

/// Bytes of an entry's data.
fn data_of(entry: &Entry) -> u64 {
    entry.sparse.as_ref().map_or(entry.size, |map| map.iter().map(|segment| segment.len).sum())
}

/// Whether it pays to leave a hole for these bytes.
fn is_hole(bytes: &[u8]) -> bool {
    bytes.len() >= 4096 && bytes[0] == 0 && bytes.iter().all(|&b| b == 0)
}

fn write_at(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                at += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn explain(fault: Fault, name: &[u8]) -> Error {
    match fault {
        Fault::Why(why) => Error::Entry { entry: printable(name), why: why.to_owned() },
        Fault::Kernel(errno) => Error::Entry { entry: printable(name), why: std::io::Error::from(errno).to_string() },
        Fault::Other(error) => error,
    }
}
