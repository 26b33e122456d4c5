//! Owner, mode, time and attributes of what is unpacked.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::images::tar::{Entry, Time, Xattrs};

/// What a directory gets when all is unpacked, so that nothing inside changes its time or needs rights it lacks.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    xattrs: Xattrs,
}

impl Metadata {
    /// As an entry describes it.
    pub(super) fn of(entry: &Entry) -> Metadata {
        let xattrs = entry.xattrs.iter().filter(|(name, _)| is_kept(name)).cloned().collect();
        Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs }
    }

    /// As a directory of a lower layer has it.
    pub(super) fn like(stat: &Stat) -> Metadata {
        let mtime = Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() };
        Metadata { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: Vec::new() }
    }

    /// Of a directory that nothing describes.
    pub(super) fn unknown() -> Metadata {
        Metadata { mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
    }

    /// The same, but its owner may enter and change it.
    pub(super) fn usable(mut self) -> Metadata {
        self.mode |= 0o700;
        self
    }

    /// Gives it to an open file or directory. The order matters: a change of owner takes set-id bits and capabilities away.
    pub(super) fn apply(&self, to: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.uid != 0 || self.gid != 0 || !rustix::process::geteuid().is_root() {
            rustix::fs::fchown(to, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        rustix::fs::fchmod(to, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            rustix::fs::fsetxattr(to, name.as_slice(), value, XattrFlags::empty())?;
        }
        rustix::fs::futimens(to, &times(self.mtime))
    }

    /// Gives it to something that is never opened: a link, a pipe or a device. Their attributes are none.
    pub(super) fn apply_at(&self, parent: BorrowedFd<'_>, name: &[u8], link: bool) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !link {
            // It was made a moment ago in a directory that only this process knows, so it is no link.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(parent, name, &times(self.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Attributes that a layer may bring; all others steer the kernel or this program.
pub(in crate::images) fn is_kept(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}
