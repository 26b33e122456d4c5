//! A container's terminal.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Uid;

use super::config::ConsoleSize;
use crate::runtime::child::process::redirect;
use crate::runtime::child::{Step, exec, mounts};
use crate::runtime::error::LaunchError;
use crate::sys::{mount, terminal};

/// The terminals of the container.
pub(super) fn devpts(root: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    exec::open_devpts(&root.try_clone_to_owned().step(|| "open the root")?)
}

/// Opens a terminal of the container for a user; its master goes elsewhere.
pub(super) fn open(
    devpts: BorrowedFd<'_>,
    size: Option<ConsoleSize>,
    user: u32,
    hand_over: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<OwnedFd, LaunchError> {
    let step = || "open a terminal";
    let (master, peer) = terminal::open(devpts).step(step)?;
    if let Some(size) = size {
        terminal::resize(&master, size.height, size.width).step(step)?;
    }
    rustix::fs::fchown(&peer, Some(Uid::from_raw(user)), None).step(step)?;
    hand_over(master.as_fd()).step(step)?;
    Ok(peer)
}

/// Shows it as `/dev/console`.
pub(super) fn show(root: BorrowedFd<'_>, peer: BorrowedFd<'_>) -> Result<(), LaunchError> {
    let tree = mount::clone_tree_at(peer, Path::new(""), false).step(|| "mount /dev/console")?;
    mounts::place(root, tree.as_fd(), "/dev/console")
}

/// Makes it the process's own.
pub(super) fn connect(peer: &OwnedFd) -> Result<(), LaunchError> {
    terminal::control(peer).step(|| "take the terminal")?;
    redirect([peer.as_fd(); 3])
}
