//! What this kernel can do, asked of the kernel itself and not of its version number.

use std::os::fd::AsFd as _;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsOpenFlags, fsconfig_set_fd, fsconfig_set_string, fsopen};

/// Whether overlay takes its layers as descriptors (Linux 6.13), be they attached or not.
pub fn overlay_takes_descriptors() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(folder) = rustix::fs::open("/", flags, Mode::empty()) else { return false };
        fsconfig_set_fd(context.as_fd(), "lowerdir+", folder.as_fd()).is_ok()
    })
}

/// Whether overlay takes its layers one by one (Linux 6.5); before, all of them fit in one value of 255 bytes.
///
/// Only then does overlay look at an option when it is set: before, it takes any, and refuses it at the mount.
pub fn overlay_takes_layers_singly() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        fsconfig_set_string(context.as_fd(), "no-such-option", "1").is_err()
    })
}
