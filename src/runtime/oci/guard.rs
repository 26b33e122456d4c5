//! Parts of the kernel's interface: parameters to set, paths to hide or to protect.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::config::Config;
use super::devices;
use super::linux::Kind;
use crate::runtime::child::Step;
use crate::runtime::child::mask::Places;
use crate::runtime::error::LaunchError;
use crate::sys::path;

/// File system numbers.
const PROC: i64 = 0x9fa0;
const SYSFS: i64 = 0x6265_6572;

/// Sets kernel parameters of the container's own namespaces, by way of the host's `/proc`.
pub(super) fn write_sysctls(config: &Config) -> Result<(), LaunchError> {
    for (name, value) in &config.linux.sysctl {
        let step = || format!("set sysctl {name}");
        if !belongs_to_container(name, config) {
            let reason = "it isn't a parameter of the container's own namespaces";
            return Err(LaunchError::refused(step(), reason));
        }
        // With slashes in a name, its dots are part of interface names.
        let relative = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if Path::new(&relative).components().any(|part| part.as_os_str() == "..") {
            return Err(LaunchError::refused(step(), "not a plain name"));
        }
        fs_err::OpenOptions::new()
            .write(true)
            .open(Path::new("/proc/sys").join(relative))
            .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()))
            .step(step)?;
    }
    Ok(())
}

fn belongs_to_container(name: &str, config: &Config) -> bool {
    let dotted = name.replace('/', ".");
    let own = |kind| config.linux.namespace(kind).is_some();
    match dotted.as_str() {
        "kernel.domainname" | "kernel.hostname" => own(Kind::Uts),
        "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced"
        | "kernel.msg_next_id"
        | "kernel.sem_next_id"
        | "kernel.shm_next_id" => own(Kind::Ipc),
        other if other.starts_with("fs.mqueue.") => own(Kind::Ipc),
        other if other.starts_with("net.") => own(Kind::Network),
        other if other.starts_with("user.") => own(Kind::User),
        _ => false,
    }
}

/// Hides and protects what the configuration names.
pub(super) fn cover(root: BorrowedFd<'_>, config: &Config) -> Result<(), LaunchError> {
    let linux = &config.linux;
    if linux.masked_paths.is_empty() && linux.readonly_paths.is_empty() {
        return Ok(());
    }
    let (proc, sys) = (of_kind(root, "/proc", PROC), of_kind(root, "/sys", SYSFS));
    let null = if linux.masked_paths.is_empty() { None } else { Some(devices::null(root)?) };
    let places = Places {
        root,
        proc: proc.as_ref().map(OwnedFd::as_fd),
        sys: sys.as_ref().map(OwnedFd::as_fd),
        dev: null.as_ref().map_or(root, |null| null.as_fd()),
    };
    places.protect(&linux.readonly_paths)?;
    places.hide(&linux.masked_paths)
}

/// The folder, if it is the root of such a file system.
fn of_kind(root: BorrowedFd<'_>, name: &str, kind: i64) -> Option<OwnedFd> {
    let folder = path::open_in_root(root, Path::new(name), OFlags::PATH | OFlags::DIRECTORY).ok()?;
    let found = rustix::fs::fstatfs(&folder).ok()?;
    (found.f_type == kind).then_some(folder)
}
