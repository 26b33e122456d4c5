//! What is bound into the made tree: `/usr`, and nothing in the place of `/usr/local`.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use fs_err as fs;

use crate::images::Guest;
use crate::images::error::{Doing as _, Error};
use crate::sys::mount::{self, NODEV, NOSUID, READ_ONLY};

/// Detached mounts with their targets: this machine's `/usr` without what is mounted below it, and an empty `/usr/local`,
/// for what an administrator put there is nobody else's business. For a user namespace the first shows its ids, and the
/// second, on a file system that maps none before Linux 6.3, is its root's.
pub(in crate::images) fn binds(guest: Option<Guest<'_>>) -> Result<Vec<(OwnedFd, String)>, Error> {
    let usr = mount::clone_tree(Path::new("/usr"), false).doing(|| "taking this machine's /usr".to_owned())?;
    mount::restrict(usr.as_fd(), READ_ONLY | NOSUID | NODEV, false).doing(|| "making /usr read-only".to_owned())?;
    if let Some(guest) = guest {
        let mapping = || "showing this machine's /usr to a user namespace".to_owned();
        mount::map_ids(usr.as_fd(), guest.namespace, false).doing(mapping)?;
    }
    let mut binds = vec![(usr, "/usr".to_owned())];
    if fs::symlink_metadata("/usr/local").is_ok_and(|local| local.is_dir()) {
        let hiding = || "hiding /usr/local".to_owned();
        let root = guest.map_or(0, |guest| guest.root).to_string();
        let owner = [("uid", Some(&*root)), ("gid", Some(&*root)), ("mode", Some("755")), ("size", Some("4096"))];
        let empty = mount::new("tmpfs", &owner, NOSUID | NODEV).doing(hiding)?;
        mount::restrict(empty.as_fd(), READ_ONLY, false).doing(hiding)?;
        binds.push((empty, "/usr/local".to_owned()));
    }
    Ok(binds)
}
