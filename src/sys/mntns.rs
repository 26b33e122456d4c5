//! Mount namespaces: work done on a thread of its own in a new one, or in another process's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};

use super::{mount, path};

/// Runs `f` in a copy of the caller's mounts that nothing propagates to or from. The copy lives as long as the thread
/// or a descriptor of it ([`own`]).
pub fn with_new<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount::make_all_private()?;
        f()
    })
}

/// Runs `f` among the mounts of the process behind a pidfd, or of a namespace, `/` being the root there.
pub fn with_mounts_of<T: Send>(whose: BorrowedFd<'_>, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        // The kernel changes the mounts only of a thread that shares its root folder with no other.
        unshare(CloneFlags::CLONE_FS)?;
        setns(whose, CloneFlags::CLONE_NEWNS)?;
        f()
    })
}

/// A mount of which copies can be made. Before Linux 6.15 the kernel copies only what is attached to the namespace of who
/// asks, so that it is the root of a namespace that holds nothing else.
#[derive(Debug)]
pub struct Original {
    tree: OwnedFd,
    namespace: OwnedFd,
}

impl Original {
    /// Attaches a detached mount of a folder.
    pub fn new(tree: OwnedFd) -> io::Result<Self> {
        let namespace = with_new(|| {
            let namespace = own()?;
            mount::attach_at(tree.as_fd(), Path::new("/dev"))?;
            mount::pivot(tree.as_fd())?;
            Ok(namespace)
        })?;
        Ok(Self { tree, namespace })
    }

    /// From the descriptors of an earlier one.
    pub fn from_descriptors(fds: Vec<OwnedFd>) -> Option<Self> {
        let [tree, namespace] = <[OwnedFd; 2]>::try_from(fds).ok()?;
        Some(Self { tree, namespace })
    }

    /// Copies of its descriptors.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(vec![self.tree.try_clone()?, self.namespace.try_clone()?])
    }

    /// A detached copy of the folder or file at `path` in it, of all of it if empty. No link leads out.
    pub fn copy(&self, path: &Path) -> io::Result<OwnedFd> {
        let place = path::open_beneath(self.tree.as_fd(), path, OFlags::PATH)?;
        with_mounts_of(self.namespace.as_fd(), || mount::clone_tree_at(place.as_fd(), Path::new(""), true))
    }
}

/// The calling thread's mount namespace.
pub fn own() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mounts".to_owned()).spawn_scoped(scope, f)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_what_the_original_holds() {
        let original = Original::new(mount::new("tmpfs", &[], 0).unwrap()).unwrap();
        let read = |tree: &OwnedFd, name: &str| {
            let file = path::open_beneath(tree.as_fd(), Path::new(name), OFlags::RDONLY)?;
            std::io::read_to_string(std::fs::File::from(file))
        };
        let first = original.copy(Path::new("")).unwrap();
        rustix::fs::mkdirat(&first, "sub", Mode::RWXU).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::openat(&first, "sub/file", flags, Mode::RUSR).unwrap();
        rustix::io::write(&file, b"once").unwrap();
        rustix::fs::symlinkat("/etc", &first, "out").unwrap();
        drop((file, first));
        // Another one later, by others: from copies of the descriptors, with the first holder gone.
        let descriptors = original.descriptors().unwrap();
        drop(original);
        let later = Original::from_descriptors(descriptors).unwrap();
        assert_eq!(read(&later.copy(Path::new("")).unwrap(), "sub/file").unwrap(), "once");
        assert_eq!(read(&later.copy(Path::new("sub")).unwrap(), "file").unwrap(), "once");
        assert!(later.copy(Path::new("out/hostname")).is_err());
    }
}
