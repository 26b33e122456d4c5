//! Walking into directories by descriptors, staying below a root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use crate::images::tree;

/// A place below a root: the directory entered last, and some on the way to it.
///
/// Archives list neighbours together, so each step starts from what the last entry shares with the next: unpacking
/// costs as many steps as there are new names, however deep they lie. Only some descriptors are kept on a deep path.
#[derive(Debug)]
pub(in crate::images) struct Cursor<'a> {
    root: BorrowedFd<'a>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    name: Vec<u8>,
    fd: Option<OwnedFd>,
    /// Reached through a symbolic link, so not by one step from the level above.
    linked: bool,
}

/// What to do where a directory is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::images) enum Missing {
    Fail,
    Make,
}

/// Why a directory can't be entered.
#[derive(Debug)]
pub(in crate::images) enum Blocked {
    /// Nothing is there.
    Missing,
    /// Something else is there.
    NoDirectory(&'static str),
    /// The kernel says so.
    Kernel(Errno),
}

impl From<Errno> for Blocked {
    fn from(errno: Errno) -> Blocked {
        Blocked::Kernel(errno)
    }
}

/// Every level down to here keeps its descriptor; below, one in as many levels does.
const KEPT: usize = 32;

/// As in the kernel.
const MAX_LINKS: usize = 40;

const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<'a> Cursor<'a> {
    pub(in crate::images) fn new(root: BorrowedFd<'a>) -> Cursor<'a> {
        Cursor { root, levels: Vec::new() }
    }

    /// Forgets where it is: something on the way may have been replaced.
    pub(in crate::images) fn reset(&mut self) {
        self.levels.clear();
    }

    /// Enters a directory given by its names from the root. Links among them are followed, but never out of the root.
    /// `made` hears of each directory that was missing, by its depth in `path`.
    pub(in crate::images) fn enter(
        &mut self,
        path: &[&[u8]],
        missing: Missing,
        mut made: impl FnMut(usize),
    ) -> Result<BorrowedFd<'_>, Blocked> {
        let shared = self.levels.iter().zip(path).take_while(|(level, name)| level.name == **name).count();
        self.levels.truncate(shared);
        self.reopen()?;
        for depth in shared..path.len() {
            let name = path[depth];
            let (fd, linked) = match rustix::fs::openat(self.here(), name, STEP, Mode::empty()) {
                Ok(fd) => (fd, false),
                Err(Errno::NOENT) if missing == Missing::Make => {
                    rustix::fs::mkdirat(self.here(), name, Mode::RWXU)?;
                    made(depth);
                    (rustix::fs::openat(self.here(), name, STEP, Mode::empty())?, false)
                }
                Err(Errno::NOENT) => return Err(Blocked::Missing),
                Err(Errno::NOTDIR | Errno::LOOP) => self.other(path, depth, missing, &mut made)?,
                Err(errno) => return Err(errno.into()),
            };
            self.push(name, fd, linked);
        }
        Ok(self.here())
    }

    /// The name is there but is no directory: a link into the root, or one of our own whiteouts, or a mistake.
    fn other(
        &mut self,
        path: &[&[u8]],
        depth: usize,
        missing: Missing,
        made: &mut impl FnMut(usize),
    ) -> Result<(OwnedFd, bool), Blocked> {
        let (here, name) = (self.here(), path[depth]);
        let stat = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if tree::is_whiteout(&stat) {
            if missing == Missing::Fail {
                return Err(Blocked::Missing);
            }
            rustix::fs::unlinkat(here, name, AtFlags::empty())?;
            rustix::fs::mkdirat(here, name, Mode::RWXU)?;
            set_opaque(here, name)?;
            made(depth);
            return Ok((rustix::fs::openat(here, name, STEP, Mode::empty())?, false));
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(Blocked::NoDirectory("its parent is no directory"));
        }
        if self.levels.iter().filter(|level| level.linked).count() >= MAX_LINKS {
            return Err(Blocked::NoDirectory("its path goes through too many symbolic links"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(self.root, path[..=depth].join(&b'/'), flags, Mode::empty(), resolve) {
            Ok(fd) => Ok((fd, true)),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Blocked::NoDirectory(
                "its path goes through a symbolic link that leads to no directory inside the layer",
            )),
            Err(Errno::LOOP) => Err(Blocked::NoDirectory("its path goes through a loop of symbolic links")),
            Err(errno) => Err(errno.into()),
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        // `push` and `reopen` leave the last level with a descriptor.
        self.levels.last().and_then(|level| level.fd.as_ref()).map_or(self.root, AsFd::as_fd)
    }

    fn push(&mut self, name: &[u8], fd: OwnedFd, linked: bool) {
        let above = self.levels.len().wrapping_sub(1);
        if let Some(level) = self.levels.last_mut()
            && above >= KEPT
            && above % KEPT != 0
            && !level.linked
        {
            level.fd = None;
        }
        self.levels.push(Level { name: name.to_vec(), fd: Some(fd), linked });
    }

    /// Opens the last level again if its descriptor wasn't kept.
    fn reopen(&mut self) -> Result<(), Errno> {
        let Some(kept) = self.levels.iter().rposition(|level| level.fd.is_some()) else {
            return if self.levels.is_empty() { Ok(()) } else { Err(Errno::STALE) };
        };
        for depth in kept + 1..self.levels.len() {
            let above = self.levels[depth - 1].fd.as_ref().map_or(self.root, AsFd::as_fd);
            let fd = rustix::fs::openat(above, self.levels[depth].name.as_slice(), STEP, Mode::empty())?;
            if depth - 1 > kept {
                self.levels[depth - 1].fd = None;
            }
            self.levels[depth].fd = Some(fd);
        }
        Ok(())
    }
}

/// Makes a directory hide what lower layers have in its place.
pub(in crate::images) fn set_opaque(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::fsetxattr(directory, tree::OPAQUE, b"y", XattrFlags::empty())
}
