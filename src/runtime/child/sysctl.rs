//! Kernel parameters that belong to a container's own namespaces, and only those.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::Step;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Launch, Net, Share};
use crate::sys::path;

/// Which groups may ping: in a new network namespace all.
const PING: &str = "net.ipv4.ping_group_range";
/// The first port that everyone may listen on: 0 in a new network namespace, as in Docker.
const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// Writes the defaults and those asked for, below the descriptor of a fresh procfs.
pub(super) fn write(proc: BorrowedFd<'_>, launch: &Launch) -> Result<(), LaunchError> {
    if matches!(launch.namespaces.net, Net::New | Net::None) {
        // Only groups that there are can be named.
        let last = launch.ids.map_or(2_147_483_647, |ids| ids.count - 1);
        let network = [(PING, format!("0 {last}")), (PORTS, "0".to_owned())];
        for (name, value) in network.iter().filter(|(name, _)| !launch.sysctls.contains_key(*name)) {
            set(proc, name, value)?;
        }
    }
    for (name, value) in &launch.sysctls {
        if !belongs_to_container(name, launch) {
            let reason = "it isn't a parameter of the container's own namespaces";
            return Err(LaunchError::refused(format!("set sysctl {name}"), reason));
        }
        set(proc, name, value)?;
    }
    Ok(())
}

fn set(proc: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), LaunchError> {
    let step = || format!("set sysctl {name} to {value:?}");
    // With slashes in a name, its dots are part of interface names.
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let file = path::open_plain(proc, &Path::new("sys").join(relative), OFlags::WRONLY).step(step)?;
    rustix::io::write(file.as_fd(), value.as_bytes()).step(step)?;
    Ok(())
}

fn belongs_to_container(name: &str, launch: &Launch) -> bool {
    let dotted = name.replace('/', ".");
    let namespaces = &launch.namespaces;
    let own_ipc = namespaces.ipc != Share::Host;
    match dotted.as_str() {
        "kernel.domainname" => namespaces.uts != Share::Host,
        "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced" => own_ipc,
        other if other.starts_with("fs.mqueue.") => own_ipc,
        other if other.starts_with("net.") => namespaces.net != Net::Host,
        _ => false,
    }
}
