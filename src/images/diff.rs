//! What a container's processes changed: its upper directory against the layers below.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};

use super::error::{Doing as _, Error, printable};
use super::{Image, Store, pack, snapshot, tree};

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The image has no such path.
    Added,
    /// The image has it, with other content or attributes.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// A path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// How.
    pub change: Change,
    /// From the root, with the leading `/`.
    pub path: Vec<u8>,
}

impl Store {
    /// What an overlay mount on top of `image` changed, sorted by path.
    pub fn diff(&self, image: &Image, upper: &Path) -> Result<Vec<Changed>, Error> {
        let _lease = self.lease()?;
        let below = self.rootfs(image, None)?.mount;
        let upper = snapshot::open(upper)?;
        let mut changes = Vec::new();
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            let comparing = || format!("comparing `/{}`", printable(&path));
            let folder = if path.is_empty() {
                upper.try_clone().doing(comparing)?
            } else {
                open(upper.as_fd(), &path).doing(comparing)?
            };
            for (name, kind) in tree::list(folder.as_fd()).doing(comparing)? {
                let whole = if path.is_empty() { name.clone() } else { [&path, &b"/"[..], &name].concat() };
                let stat = rustix::fs::statat(&folder, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).doing(comparing)?;
                let old = look(below.as_fd(), &whole);
                let change = match &old {
                    _ if tree::is_whiteout(&stat) => Change::Deleted,
                    Some(_) => Change::Changed,
                    None => Change::Added,
                };
                changes.push(Changed { change, path: [b"/", whole.as_slice()].concat() });
                if kind == FileType::Directory {
                    let inner = open(upper.as_fd(), &whole).doing(comparing)?;
                    if old.as_ref().is_some_and(is_directory) && is_opaque(inner.as_fd()).doing(comparing)? {
                        let hidden = hidden(below.as_fd(), &whole, inner.as_fd()).doing(comparing)?;
                        changes.extend(hidden.into_iter().map(|path| Changed { change: Change::Deleted, path }));
                    }
                    waiting.push(whole);
                }
            }
        }
        changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn open(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<std::os::fd::OwnedFd> {
    rustix::fs::openat2(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), RESOLVE)
}

/// What the layers below have at a path.
fn look(below: BorrowedFd<'_>, path: &[u8]) -> Option<Stat> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(below, path, flags, Mode::empty(), RESOLVE).and_then(rustix::fs::fstat).ok()
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_opaque(directory: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    Ok(pack::xattrs(directory)?.iter().any(|(name, value)| name == tree::OPAQUE.as_bytes() && value == b"y"))
}

/// What an opaque directory hides of the one below and does not have itself.
fn hidden(below: BorrowedFd<'_>, path: &[u8], own: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let own: Vec<Vec<u8>> = tree::list(own)?.into_iter().map(|(name, _)| name).collect();
    let old = tree::list(open(below, path)?.as_fd())?.into_iter().map(|(name, _)| name);
    Ok(old.filter(|name| !own.contains(name)).map(|name| [b"/", path, b"/", &name].concat()).collect())
}
