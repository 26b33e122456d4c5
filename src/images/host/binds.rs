//! What is bound into the made tree: `/usr`, and nothing in the place of `/usr/local`.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use fs_err as fs;

use crate::images::error::{Doing as _, Error};
use crate::sys::mount::{self, NODEV, NOSUID, READ_ONLY};

/// Detached mounts with their targets: this machine's `/usr` without what is mounted below it, and an empty `/usr/local`,
/// for what an administrator put there is nobody else's business.
pub(in crate::images) fn binds() -> Result<Vec<(OwnedFd, String)>, Error> {
    let usr = mount::clone_tree(Path::new("/usr"), false).doing(|| "taking this machine's /usr".to_owned())?;
    mount::restrict(usr.as_fd(), READ_ONLY | NOSUID | NODEV, false).doing(|| "making /usr read-only".to_owned())?;
    let mut binds = vec![(usr, "/usr".to_owned())];
    if fs::symlink_metadata("/usr/local").is_ok_and(|local| local.is_dir()) {
        let hiding = || "hiding /usr/local".to_owned();
        let empty = mount::tmpfs(Some(4096), 0o755).doing(hiding)?;
        mount::restrict(empty.as_fd(), READ_ONLY, false).doing(hiding)?;
        binds.push((empty, "/usr/local".to_owned()));
    }
    Ok(binds)
}
