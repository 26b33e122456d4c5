//! Copying a directory of an image into an empty volume.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::copy::{self, Owner};
use super::error::{Doing as _, Error};
use super::{Image, Store, snapshot};

impl Store {
    /// Copies the content of directory `path` of an image (owners, modes, times, attributes) into the empty directory `into`.
    /// Whether there was such a directory.
    pub fn copy_up(&self, image: &Image, path: &str, into: &Path) -> Result<bool, Error> {
        let rootfs = self.rootfs(image, None)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let from = match rustix::fs::openat2(&rootfs.mount, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => other.doing(|| format!("opening {path} of the image"))?,
        };
        let to = snapshot::open(into)?;
        copy::copy_content(from.as_fd(), to.as_fd(), Owner::Same)?;
        copy::attributes(&from, &to, Owner::Same).doing(|| format!("copying the attributes of {path} of the image"))?;
        Ok(true)
    }
}
