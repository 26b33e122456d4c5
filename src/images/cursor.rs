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

/// Levels down to here may keep their descriptors; below, one in as many levels does. Names of so many levels usually fit
/// into one path.
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
        let (mut depth, mut quick) = (shared, true);
        while depth < path.len() {
            let end = path.len().min((depth / KEPT + 1) * KEPT);
            quick = quick && end - depth > 1;
            if quick && let Ok(fd) = below(self.here(), &path[depth..end]) {
                for name in &path[depth..end - 1] {
                    self.push(name, None, false);
                }
                self.push(path[end - 1], Some(fd), false);
                depth = end;
                continue;
            }
            quick = false;
            let (fd, linked) = self.step(path, depth, missing, &mut made)?;
            self.push(path[depth], Some(fd), linked);
            depth += 1;
        }
        Ok(self.here())
    }

    /// One level down: into a directory, making it where it is missing, or through a link.
    fn step(
        &self,
        path: &[&[u8]],
        depth: usize,
        missing: Missing,
        made: &mut impl FnMut(usize),
    ) -> Result<(OwnedFd, bool), Blocked> {
        let (here, name) = (self.here(), path[depth]);
        match rustix::fs::openat(here, name, STEP, Mode::empty()) {
            Ok(fd) => Ok((fd, false)),
            Err(Errno::NOENT) if missing == Missing::Make => {
                rustix::fs::mkdirat(here, name, Mode::RWXU)?;
                made(depth);
                Ok((rustix::fs::openat(here, name, STEP, Mode::empty())?, false))
            }
            Err(Errno::NOENT) => Err(Blocked::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) => self.other(path, depth, missing, made),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The name is there but is no directory: a link into the root, or one of our own whiteouts, or a mistake.
    fn other(
        &self,
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

    fn push(&mut self, name: &[u8], fd: Option<OwnedFd>, linked: bool) {
        let depth = self.levels.len();
        if let Some(above) = self.levels.last_mut()
            && depth > KEPT
            && !depth.is_multiple_of(KEPT)
            && !above.linked
        {
            above.fd = None;
        }
        self.levels.push(Level { name: name.to_vec(), fd, linked });
    }

    /// Opens the last level again if its descriptor wasn't kept.
    fn reopen(&mut self) -> Result<(), Errno> {
        let kept = self.levels.iter().rposition(|level| level.fd.is_some());
        let start = kept.map_or(0, |kept| kept + 1);
        if start == self.levels.len() {
            return Ok(());
        }
        let from = kept.and_then(|kept| self.levels[kept].fd.as_ref()).map_or(self.root, AsFd::as_fd);
        let names: Vec<&[u8]> = self.levels[start..].iter().map(|level| level.name.as_slice()).collect();
        let fd = below(from, &names)?;
        if let Some(level) = self.levels.last_mut() {
            level.fd = Some(fd);
        }
        Ok(())
    }
}

/// Goes down several directories in one call; fails where one of them is missing or is no directory.
fn below(from: BorrowedFd<'_>, names: &[&[u8]]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(from, names.join(&b'/'), STEP, Mode::empty(), resolve) {
        Err(Errno::NAMETOOLONG) if names.len() > 1 => {
            let (first, second) = names.split_at(names.len() / 2);
            below(below(from, first)?.as_fd(), second)
        }
        other => other,
    }
}

/// Makes a directory hide what lower layers have in its place.
pub(in crate::images) fn set_opaque(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::fsetxattr(directory, tree::OPAQUE, b"y", XattrFlags::empty())
}
