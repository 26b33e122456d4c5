//! What only an attempt tells of a kernel. No attempt leaves anything behind.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsOpenFlags, fsconfig_set_fd, fsopen};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::process;

/// Clones the caller, which must have one thread only, into new namespaces or a control group, and reaps the clone.
pub fn clone(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let child = process::clone(flags, cgroup, || 0)?;
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(())
}

/// Whether a pidfd still tells how a process ended that somebody else reaped (Linux 6.15). One thread only.
pub fn tells_end_of_reaped() -> io::Result<bool> {
    let child = process::clone(0, None, || 7)?;
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(process::reaped_status(child.pidfd.as_fd()).map(process::decode) == Some((7, None)))
}

/// Whether overlay takes a layer by descriptor (Linux 6.13).
pub fn overlay_takes_descriptors(folder: &Path) -> io::Result<bool> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let folder = rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fsconfig_set_fd(context.as_fd(), "lowerdir+", folder.as_fd()).is_ok())
}

/// Whether a filter may put system calls before somebody else.
pub fn seccomp_notifies() -> bool {
    const GET_ACTION_AVAIL: libc::c_uint = 2;
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the call reads one number, which outlives it.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Whether the kernel filters system calls at all.
pub fn seccomp_filters() -> bool {
    seccomp_knows(0)
}

/// Whether a call that waits for an answer can be kept from being interrupted by signals (Linux 5.19).
pub fn seccomp_waits_killable() -> bool {
    seccomp_knows(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
}

fn seccomp_knows(flags: libc::c_ulong) -> bool {
    // SAFETY: the kernel looks at the flags, then fails to read a filter at address 0.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<libc::sock_fprog>())
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_agree_with_what_works_here() {
        let own = process::pidfd_open(i32::try_from(std::process::id()).unwrap()).unwrap();
        // Asked of a living process, the kernel that knows the question has no answer yet.
        assert_eq!(process::reaped_status(own.as_fd()), None);
        assert!(seccomp_filters() && seccomp_notifies());
    }
}
