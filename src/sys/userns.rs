//! User namespaces: made by a process that only waits, held by descriptor, and acted for by a thread.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use fs_err as fs;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::process;

/// A run of ids: from `inside` on in the namespace, from `outside` on around it, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The users and groups of a user namespace: 0 and those that follow are `base` and those that follow outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// What 0 is outside.
    pub base: u32,
    /// How many there are.
    pub count: u32,
}

impl Ids {
    /// As the kernel takes it.
    pub fn extent(self) -> Extent {
        Extent { inside: 0, outside: self.base, count: self.count }
    }

    /// What an id is outside; none if it has no such id.
    pub fn outside(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.base + id)
    }

    /// What an id of outside is inside; itself if it is none of these.
    pub fn inside(self, id: u32) -> u32 {
        id.checked_sub(self.base).filter(|inside| *inside < self.count).unwrap_or(id)
    }
}

/// Says which ids a process's new user namespace has, once and for all.
pub fn write_maps(pid: i32, users: &[Extent], groups: &[Extent]) -> io::Result<()> {
    let line = |extent: &Extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count);
    for (file, extents) in [("uid_map", users), ("gid_map", groups)] {
        fs::write(format!("/proc/{pid}/{file}"), extents.iter().map(line).collect::<String>())?;
    }
    Ok(())
}

/// The users of a process's user namespace, as this process numbers them.
pub fn read_map(pid: i32) -> io::Result<Vec<Extent>> {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let extent = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        Some(Extent { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
    };
    text.lines().map(|line| extent(line).ok_or(io::ErrorKind::InvalidData.into())).collect()
}

/// A new user namespace with these ids, which nothing but the descriptor keeps.
pub fn make(users: &[Extent], groups: &[Extent]) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    write_maps(holder.pid, users, groups)?;
    open(Path::new(&format!("/proc/{}/ns/user", holder.pid)))
}

/// A process's user namespace, if it isn't the caller's.
pub fn of_process(pid: i32) -> io::Result<Option<OwnedFd>> {
    unless_own(open(Path::new(&format!("/proc/{pid}/ns/user")))?)
}

/// The user namespace that another namespace belongs to, if it isn't the caller's.
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the descriptor is open while borrowed; the request takes no argument and returns a new descriptor.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else owns it. It is marked to be closed at an exec.
    unless_own(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn unless_own(namespace: OwnedFd) -> io::Result<Option<OwnedFd>> {
    let own = rustix::fs::stat("/proc/self/ns/user")?;
    let other = rustix::fs::fstat(&namespace)?;
    Ok(((own.st_dev, own.st_ino) != (other.st_dev, other.st_ino)).then_some(namespace))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes the caller the root of the user namespace that it is in, with no other group.
pub fn become_root() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT)?;
    Ok(())
}

/// Runs `f` on a thread whose files belong to this user and group, and which keeps all its rights.
pub fn acting_as<T: Send>(user: u32, group: u32, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("files".to_owned()).spawn_scoped(scope, || {
            let held = rustix::thread::capabilities(None)?;
            // SAFETY: plain numbers; the calls concern this thread alone.
            unsafe {
                libc::syscall(libc::SYS_setfsgid, group);
                libc::syscall(libc::SYS_setfsuid, user);
            }
            // Leaving user 0 took the rights over files.
            rustix::thread::set_capabilities(None, held)?;
            f()
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A process in a user namespace of its own that waits for its end.
struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    fn start() -> io::Result<Self> {
        let mut pidfd: RawFd = -1;
        // SAFETY: all-zero is a valid `clone_args`: no flags, no stack, no pointers, and no signal at the child's end,
        // so that nobody but this file waits for it.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = u64::from((libc::CLONE_NEWUSER | libc::CLONE_PIDFD).cast_unsigned());
        args.pidfd = (&raw mut pidfd) as u64;
        // SAFETY: without CLONE_VM this is a fork. The caller may have other threads, whose locks the child must not
        // touch: it does nothing but two system calls that take none.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => loop {
                // SAFETY: see above; the process ends by its parent's signal, or with its parent.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            },
            // SAFETY: on success the kernel stored a new descriptor that nobody else owns.
            pid => Ok(Self { pid: i32::try_from(pid).unwrap_or(-1), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = process::signal(self.pidfd.as_fd(), libc::SIGKILL);
        // SAFETY: all-zero is a valid `siginfo_t`, which outlives the call; the child is named by its own descriptor.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let id = self.pidfd.as_raw_fd().cast_unsigned();
            libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::__WALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount;

    const IDS: [Extent; 1] = [Extent { inside: 0, outside: 1_900_000_000, count: 1 << 16 }];

    #[test]
    fn a_namespace_lives_by_its_descriptor_and_maps_a_mount() {
        let namespace = make(&IDS, &IDS).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let tree = mount::clone_tree(folder.path(), false).unwrap();
        mount::map_ids(tree.as_fd(), namespace.as_fd(), false).unwrap();
        let stat = rustix::fs::statat(&tree, "file", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (1_900_000_000, 1_900_000_000));
        // What is made belongs to whoever makes it, if there is such an id; else it can't be made.
        let make = || {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&tree, "new", flags, Mode::RUSR).map(drop).map_err(io::Error::from)
        };
        assert_eq!(make().unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
        acting_as(1_900_000_000, 1_900_000_007, make).unwrap();
        let stat = rustix::fs::stat(folder.path().join("new")).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (0, 7));
    }

    #[test]
    fn the_own_namespace_is_told_from_others() {
        let own = open(Path::new("/proc/self/ns/net")).unwrap();
        assert!(owner(own.as_fd()).unwrap().is_none());
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(of_process(pid).unwrap().is_none());
        assert_eq!(read_map(pid).unwrap()[0].inside, 0);
    }
}
