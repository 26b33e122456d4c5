//! What COPY, ADD and WORKDIR write: files placed into a mounted root, by descriptors, never through a link out of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::chmod::Chmod;
use super::error::{Error, Problem};
use super::tree::{Node, Selected};
use crate::sys::path::{Missing, ensure_in_root, open_beneath, open_in_root};

/// Extended attributes that are part of a file's content: capabilities and what users set.
const ATTRIBUTES: [&str; 2] = ["security.capability", "user."];

/// Places files into a root.
#[derive(Debug)]
pub(crate) struct Placer<'a> {
    root: BorrowedFd<'a>,
    /// Owner of everything placed; None keeps that of the source.
    owner: Option<(u32, u32)>,
    /// Owner of folders that are made on the way.
    maker: (u32, u32),
    chmod: Option<Chmod>,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, owner: Option<(u32, u32)>, chmod: Option<Chmod>) -> Self {
        Self { root, owner, maker: owner.unwrap_or((0, 0)), chmod }
    }

    /// True if there is a folder, perhaps behind a link.
    pub(crate) fn is_folder(&self, path: &str) -> bool {
        open_in_root(self.root, Path::new(path), OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// Opens a folder, made with those above it if missing. True if it was made.
    pub(crate) fn folder(&self, path: &str) -> Result<(OwnedFd, bool), Error> {
        let mut made = false;
        let mut handle = None;
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        for depth in 0..=names.len() {
            let path = PathBuf::from(names[..depth].join("/"));
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = match open_in_root(self.root, &path, flags) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    made = true;
                    ensure_in_root(self.root, &path, Missing::Folder).and_then(|folder| {
                        set_owner(&folder, self.maker)?;
                        Ok(folder)
                    })
                }
                other => other,
            };
            let opened = opened.map_err(|e| refused("make the folder", &path, e))?;
            handle = Some(opened);
        }
        let handle = handle.ok_or_else(|| Problem::new(format!("`{path}` is not a folder")))?;
        Ok((handle, made))
    }

    /// Places a file under a path whose last name is replaced if it exists.
    pub(crate) fn file(&self, selected: &Selected, node: &Node, path: &str) -> Result<(), Error> {
        let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        let (folder, _) = self.folder(parent)?;
        self.entry(selected, node, folder.as_fd(), Path::new(name), &mut HashMap::new())
            .map_err(|e| refused("write", Path::new(path), e))
    }

    /// Places the nodes of a selected folder into a folder.
    pub(crate) fn content(&self, selected: &Selected, nodes: &[Node], path: &str) -> Result<(), Error> {
        let (folder, made) = self.folder(path)?;
        let failed = |node: &Path, e: io::Error| refused("write", &Path::new(path).join(node), e);
        let mut links = HashMap::new();
        for node in nodes {
            self.entry(selected, node, folder.as_fd(), &node.path, &mut links).map_err(|e| failed(&node.path, e))?;
        }
        // Times of folders last: writing into them has changed them.
        for node in nodes.iter().rev().filter(|node| node.kind() == FileType::Directory) {
            set_times(folder.as_fd(), &node.path, node).map_err(|e| failed(&node.path, e))?;
        }
        if made {
            let own = Node { path: PathBuf::new(), stat: selected.stat, link: None };
            let finish = || -> io::Result<()> {
                self.dress(selected, &own, &folder)?;
                set_times(folder.as_fd(), Path::new("."), &own)
            };
            finish().map_err(|e| failed(Path::new(""), e))?;
        }
        Ok(())
    }

    /// Writes a file that is in no tree: a heredoc.
    pub(crate) fn text(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (folder, _) = self.folder(parent)?;
        let write = || -> io::Result<()> {
            clear(folder.as_fd(), Path::new(name))?;
            let file = create(folder.as_fd(), Path::new(name))?;
            io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), content)?;
            set_owner(&file, self.maker)?;
            let mode = self.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
            Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
        };
        write().map_err(|e| refused("write", Path::new(path), e))
    }

    fn entry(
        &self,
        selected: &Selected,
        node: &Node,
        folder: BorrowedFd<'_>,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> io::Result<()> {
        let (parent, name) = parent_of(folder, path)?;
        let (parent, name) = (parent.as_fd(), Path::new(name));
        let kind = node.kind();
        if kind == FileType::Directory {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let made = open_beneath(parent, name, flags)?;
            return self.dress(selected, node, &made);
        }
        clear(parent, name)?;
        let inode = (node.stat.st_dev, node.stat.st_ino);
        if node.stat.st_nlink > 1 && kind == FileType::RegularFile {
            if let Some(first) = links.get(&inode) {
                let (first_parent, first_name) = parent_of(folder, first)?;
                return Ok(rustix::fs::linkat(first_parent, first_name, parent, name, AtFlags::empty())?);
            }
            links.insert(inode, path.to_owned());
        }
        match (kind, &node.link) {
            (FileType::RegularFile, _) => {
                let file = create(parent, name)?;
                let mut from = std::fs::File::from(selected.open(&node.path)?);
                io::copy(&mut from, &mut std::fs::File::from(file.try_clone()?))?;
                self.dress(selected, node, &file)?;
            }
            (_, Some(target)) => {
                rustix::fs::symlinkat(target.as_os_str(), parent, name)?;
                let (uid, gid) = self.owner_of(node);
                let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(parent, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(parent, name, kind, mode, node.stat.st_rdev)?;
                let (uid, gid) = self.owner_of(node);
                let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(parent, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode_of(node)), AtFlags::empty())?;
            }
        }
        set_times(parent, name, node)
    }

    /// Owner, mode and attributes of something just made.
    fn dress(&self, selected: &Selected, node: &Node, made: &OwnedFd) -> io::Result<()> {
        // A folder that was made on the way is only held by an O_PATH descriptor.
        let made = open_beneath(made.as_fd(), Path::new("."), OFlags::RDONLY).or_else(|_| made.try_clone())?;
        set_owner(&made, self.owner_of(node))?;
        copy_attributes(selected, node, &made)?;
        Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(self.mode_of(node)))?)
    }

    fn owner_of(&self, node: &Node) -> (u32, u32) {
        self.owner_or((node.stat.st_uid, node.stat.st_gid))
    }

    fn mode_of(&self, node: &Node) -> u32 {
        self.mode_or(node.stat.st_mode & 0o7777, node.kind() == FileType::Directory)
    }

    /// The owner asked for, or else this one.
    pub(crate) fn owner_or(&self, owner: (u32, u32)) -> (u32, u32) {
        self.owner.unwrap_or(owner)
    }

    /// This mode, changed as asked for.
    pub(crate) fn mode_or(&self, mode: u32, folder: bool) -> u32 {
        self.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, folder))
    }
}

/// The error of a path that could not be written.
fn refused(action: &'static str, path: &Path, e: io::Error) -> Error {
    let shown = path.display();
    match Errno::from_io_error(&e) {
        Some(Errno::ISDIR | Errno::EXIST) => {
            let hint = "choose another target, or remove the folder first";
            Problem::new(format!("can't put a file over the folder `/{shown}`")).hint(hint).into()
        }
        Some(Errno::NOTDIR | Errno::LOOP) => {
            let hint = "there is a file or link of that name in the image; name the folder that it leads to";
            Problem::new(format!("can't put a folder over `/{shown}`")).hint(hint).into()
        }
        _ => Error::Io { action, path: Path::new("/").join(path), source: e },
    }
}

/// The folder that holds a path, reached through no link, and the last name.
fn parent_of<'p>(folder: BorrowedFd<'_>, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => Ok((crate::sys::path::open_plain(folder, parent, flags)?, name)),
        None => Ok((folder.try_clone_to_owned()?, name)),
    }
}

fn create(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?)
}

/// Removes what is in the way, unless it is a folder.
fn clear(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn set_owner(file: &OwnedFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(rustix::fs::chownat(file, "", ids.0, ids.1, AtFlags::EMPTY_PATH)?)
}

fn set_times(parent: BorrowedFd<'_>, name: &Path, node: &Node) -> io::Result<()> {
    let nanoseconds = node.stat.st_mtime_nsec.cast_signed();
    let time = Timespec { tv_sec: node.stat.st_mtime, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    let (parent, name) =
        if name == Path::new(".") { (parent.try_clone_to_owned()?, OsStr::new(".")) } else { parent_of(parent, name)? };
    Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes(selected: &Selected, node: &Node, to: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let handle = selected.handle(&node.path)?;
    let from = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::listxattr(&from, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let names = &names[..length];
    for name in names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if name.is_empty() || !ATTRIBUTES.iter().any(|wanted| name == *wanted || name.starts_with("user.")) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(&from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty()) {
            // Not every file system takes every attribute; Docker drops them too.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
