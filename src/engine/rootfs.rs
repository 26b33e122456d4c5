//! A container's files, seen from outside: its root as a descriptor, and any place below it.
//!
//! No path of a container is ever resolved but inside its root. A running container's root is its process's own, with
//! every volume and memory file system in it. A stopped container's is put together in a mount namespace that lives as
//! long as the descriptors; its supervisor does that, as it may hold the file systems already.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::bundle;
use super::control::{Failure, Reply};
use super::paths::Paths;
use super::serve::{reply_to, reply_with};
use super::state::{Container, MountRecord, Status};
use super::supervisor::{Supervisor, blocking};
use crate::images::{Rootfs, Store, Writable};
use crate::sys::frame::AsyncFrames;
use crate::sys::mntns::Original;
use crate::sys::path::{self, Missing};
use crate::sys::userns::{self, Ids};
use crate::sys::{mntns, mount, netns, process};

/// Links followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// The root of a tree of files.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// The user namespace that it is seen outside of.
    ids: Option<Ids>,
    /// Keeps what is mounted below.
    _namespace: Option<OwnedFd>,
}

/// A place in a tree: there, or where something could be made.
#[derive(Debug)]
pub struct Place {
    /// The folder that it lies in, through all links.
    pub folder: OwnedFd,
    /// Its name there; `.` is the folder itself.
    pub name: OsString,
    /// What is there, if anything.
    pub stat: Option<Stat>,
}

impl Place {
    /// Whether a folder is there.
    pub fn is_folder(&self) -> bool {
        self.stat.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

impl Root {
    /// This machine's own.
    pub fn of_host() -> io::Result<Self> {
        open(CWD, "/").map(|fd| Self { fd, ids: None, _namespace: None })
    }

    /// A running container's, as its process 1 sees it.
    pub fn of_running(container: &Container) -> io::Result<Self> {
        let _process = running(container)?;
        let fd = open(CWD, format!("/proc/{}/root", container.state.pid))?;
        // The number may have passed to another process in between.
        running(container)?;
        Ok(Self { fd, ids: container.record.user_namespace.ids, _namespace: None })
    }

    /// A running container's root without what is mounted below it: only what its image and its processes wrote there.
    pub fn of_running_alone(container: &Container) -> io::Result<Self> {
        let process = running(container)?;
        let tree = mntns::with_mounts_of(process.as_fd(), || mount::clone_tree(Path::new("/"), false))?;
        Ok(Self { fd: tree, ids: container.record.user_namespace.ids, _namespace: None })
    }

    /// From the descriptors with which a supervisor answered.
    pub fn received(reply: &Reply, fds: Vec<OwnedFd>) -> Option<Self> {
        let Reply::Root { ids } = reply else { return None };
        let mut fds = fds.into_iter();
        Some(Self { fd: fds.next()?, ids: *ids, _namespace: fds.next() })
    }

    /// The user namespace that its files are seen outside of: their owners are what its own are outside.
    pub fn ids(&self) -> Option<Ids> {
        self.ids
    }

    /// Runs `f` as somebody who can make files here: in what a user namespace sees, nobody else has a number to be
    /// stored.
    pub fn writing<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        match self.ids {
            None => Ok(f()),
            Some(ids) => userns::acting_as(ids.base, ids.base, || Ok(f())),
        }
    }

    /// Finds a place. Links on the way are followed inside the root, one at its end only if `follow`. The folder that it
    /// lies in must be there.
    pub fn find(&self, path: &Path, follow: bool) -> io::Result<Place> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let Some(Component::Normal(name)) = path.components().next_back() else {
                let folder = path::open_in_root(self.fd.as_fd(), &path, OFlags::PATH | OFlags::DIRECTORY)?;
                let stat = rustix::fs::fstat(&folder)?;
                return Ok(Place { folder, name: OsString::from("."), stat: Some(stat) });
            };
            let above = path.parent().unwrap_or(Path::new(""));
            let folder = path::open_in_root(self.fd.as_fd(), above, OFlags::PATH | OFlags::DIRECTORY)?;
            let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno.into()),
            };
            let link = stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            if !(link && follow) {
                return Ok(Place { folder, name: name.to_owned(), stat });
            }
            let target = rustix::fs::readlinkat(&folder, name, Vec::new())?.into_bytes();
            // An absolute target replaces the path, as it shall.
            path = above.join(PathBuf::from(OsString::from_vec(target)));
        }
        Err(Errno::LOOP.into())
    }

    /// User and group id of `user[:group]` by the passwd and group files in this tree.
    pub fn user(&self, user: &str) -> io::Result<(u32, u32)> {
        let user = crate::runtime::resolve_user(self.as_fd(), user, &[]).map_err(io::Error::other)?;
        Ok((user.uid, user.gid))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A running container's network namespace.
pub(crate) fn netns_of_running(container: &Container) -> io::Result<OwnedFd> {
    let netns = netns::open(Path::new(&format!("/proc/{}/ns/net", container.state.pid)))?;
    // The number may have passed to another process.
    running(container).map(|_| netns)
}

/// A descriptor of the container's process 1, sure to be this one.
fn running(container: &Container) -> io::Result<OwnedFd> {
    let state = &container.state;
    let pidfd = process::pidfd_open(state.pid)?;
    if process::start_time(state.pid)? == state.start_time { Ok(pidfd) } else { Err(Errno::SRCH.into()) }
}

fn open(folder: BorrowedFd<'_>, path: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, path.as_ref().as_bytes(), flags, Mode::empty())?)
}

impl Supervisor {
    /// Answers a request for a container's root, `alone` or with its volumes.
    pub(crate) async fn send_root(
        self: &Rc<Self>,
        frames: &AsyncFrames,
        container: &str,
        alone: bool,
    ) -> io::Result<()> {
        match self.open_root(container, alone).await {
            Ok((ids, fds)) => reply_with(frames, &Reply::Root { ids }, &fds).await,
            Err(failure) => reply_to(frames, &Reply::Failed(failure)).await,
        }
    }

    /// Answers a request to keep a container frozen: thaws it when the connection is closed.
    pub(crate) async fn hold(self: &Rc<Self>, frames: &AsyncFrames, container: &str) -> io::Result<()> {
        let running = self.container(container).map(|container| container.state.status == Status::Running);
        let frozen = match (running, self.shim()) {
            (Ok(true), Ok(shim)) => shim.freeze(container, true).await.map(|()| Some(shim)),
            // A paused one is frozen already.
            (Ok(false), _) => Ok(None),
            (Err(failure), _) | (_, Err(failure)) => return reply_to(frames, &Reply::Failed(failure)).await,
        };
        let shim = match frozen {
            Ok(shim) => shim,
            Err(e) => return reply_to(frames, &Reply::Failed(Failure::new(e.to_string()))).await,
        };
        let told = reply_to(frames, &Reply::Done).await;
        while let Ok(Some(_)) = frames.recv().await {}
        if let Some(shim) = shim {
            shim.freeze(container, false).await.map_err(io::Error::other)?;
        }
        told
    }

    async fn open_root(self: &Rc<Self>, id: &str, alone: bool) -> Result<(Option<Ids>, Vec<OwnedFd>), Failure> {
        let lock = self.container_lock(id);
        let _held = lock.lock().await;
        let container = self.container(id)?;
        let name = container.record.name.clone();
        let failed = move |e: &dyn std::fmt::Display| Failure::new(format!("container {name}: opening its files: {e}"));
        if matches!(container.state.status, Status::Running | Status::Paused) {
            let root = if alone { Root::of_running_alone(&container) } else { Root::of_running(&container) };
            let root = root.map_err(|e| failed(&e))?;
            return Ok((root.ids, vec![root.fd]));
        }
        let mounted = if alone { BTreeMap::new() } else { self.mounted_volumes(&container.record).await? };
        // That of one with a user namespace shows ids as they are outside.
        let guest = container.record.user_namespace.ids.is_some();
        let kept = self.roots.borrow_mut().remove(id).filter(|_| !guest);
        let (paths, store, record) = (self.paths.clone(), self.store.clone(), container.record.clone());
        let opened = blocking(move || {
            let rootfs = if let Some(mount) = kept {
                Rootfs { mount, binds: Vec::new() }
            } else {
                let image = store.find(&record.image_id).map_err(|e| failed(&e))?;
                let image = image.ok_or_else(|| failed(&"its image is gone"))?;
                let home = paths.container(&record.id);
                let writable = Writable { upper: &home.join("upper"), work: &home.join("work"), volatile: false };
                store.rootfs(&image, Some(writable)).map_err(|e| failed(&e))?
            };
            let copy = mount::clone_tree_at(rootfs.mount.as_fd(), Path::new(""), false);
            let (root, kept) = match copy {
                Ok(copy) => (copy, Some(rootfs.mount).filter(|_| rootfs.binds.is_empty())),
                // Before Linux 6.15 there is only one: the next who wants it mounts it anew.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (rootfs.mount, None),
                Err(e) => return Err(failed(&e)),
            };
            if alone {
                return Ok((kept, vec![root]));
            }
            let mut trees = rootfs.binds;
            trees.extend(volume_trees(&paths, &store, &mounted, &record.mounts)?);
            let fds = assemble(&root, trees, &paths.container(&record.id)).map_err(|e| failed(&e))?;
            Ok::<_, Failure>((kept, fds))
        });
        let (kept, fds) = opened.await??;
        self.roots.borrow_mut().extend(kept.filter(|_| !guest).map(|root| (id.to_owned(), root)));
        Ok((None, fds))
    }
}

/// What is mounted in a container, but for file systems in memory, which a stopped container does not have.
fn volume_trees(
    paths: &Paths,
    store: &Store,
    mounted: &BTreeMap<String, Original>,
    mounts: &[MountRecord],
) -> Result<Vec<(OwnedFd, String)>, Failure> {
    let mut trees = Vec::new();
    for record in mounts {
        if let Some(tree) = bundle::mount_tree(paths, store, None, mounted, record)? {
            if record.read_only {
                let restricted = mount::restrict(tree.as_fd(), mount::READ_ONLY, true);
                restricted.map_err(|e| Failure::new(format!("mount at {}: {e}", record.target)))?;
            }
            trees.push((tree, record.target.clone()));
        }
    }
    Ok(trees)
}

/// Puts a root and what is mounted in it together in a new mount namespace; `at` is a folder to begin with. Gives the
/// root and the namespace.
fn assemble(root: &OwnedFd, trees: Vec<(OwnedFd, String)>, at: &Path) -> io::Result<Vec<OwnedFd>> {
    mntns::with_new(|| {
        mount::attach_at(root.as_fd(), at)?;
        let root = open(CWD, at)?;
        for (tree, target) in trees {
            let folder = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) == FileType::Directory;
            let missing = if folder { Missing::Folder } else { Missing::File };
            let target = path::ensure_in_root(root.as_fd(), Path::new(&target), missing)?;
            mount::attach(tree.as_fd(), target.as_fd())?;
        }
        Ok(vec![root, mntns::own()?])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn places_are_found_inside_only() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(folder.path().join("etc")).unwrap();
        fs_err::write(folder.path().join("etc/passwd"), "inside").unwrap();
        for (target, link) in
            [("/etc/passwd", "out"), ("../../../../etc", "up"), ("b", "a"), ("a", "b"), ("/new", "dangling")]
        {
            symlink(target, folder.path().join(link)).unwrap();
        }
        let root = Root { fd: open(CWD, folder.path()).unwrap(), ids: None, _namespace: None };
        let size = |path: &str| root.find(Path::new(path), true).unwrap().stat.unwrap().st_size;
        assert_eq!((size("out"), size("/up/passwd"), size("../../etc/passwd")), (6, 6, 6));
        assert!(root.find(Path::new("out"), false).unwrap().stat.unwrap().st_size == 11);
        assert!(root.find(Path::new("a"), true).is_err());
        let missing = root.find(Path::new("dangling"), true).unwrap();
        assert!(missing.stat.is_none() && missing.name == "new");
        assert!(root.find(Path::new("/up/."), true).unwrap().is_folder());
        assert_eq!(root.find(Path::new("/"), true).unwrap().name, ".");
        assert!(root.find(Path::new("/none/x"), true).is_err());
    }
}
