//! Hiding and write-protecting parts of `/proc` and `/sys`.
//!
//! Paths are opened below the descriptors of our own fresh procfs and sysfs, through no link and across no mount, so
//! nothing that an image contains can turn a mask elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};

use super::Step;
use crate::runtime::error::LaunchError;
use crate::sys::{mount, path};

/// The places that masks may lie in.
pub(crate) struct Places<'a> {
    pub(crate) root: BorrowedFd<'a>,
    /// Our own procfs, if there is one.
    pub(crate) proc: Option<BorrowedFd<'a>>,
    /// Our own sysfs, if there is one.
    pub(crate) sys: Option<BorrowedFd<'a>>,
    /// Where the null device is.
    pub(crate) dev: BorrowedFd<'a>,
}

impl Places<'_> {
    /// Covers files by the null device and folders by an empty read-only file system.
    pub(crate) fn hide(&self, masked: &[String]) -> Result<(), LaunchError> {
        for name in masked {
            let step = || format!("hide {name}");
            let Some(target) = self.open(name).step(step)? else { continue };
            let folder = FileType::from_raw_mode(fstat(&target).step(step)?.st_mode) == FileType::Directory;
            let cover = if folder {
                let options = [("mode", Some("755")), ("size", Some("4k"))];
                mount::new("tmpfs", &options, mount::READ_ONLY | mount::NOSUID | mount::NODEV | mount::NOEXEC)
            } else {
                mount::clone_tree_at(self.dev, Path::new("null"), false)
            };
            mount::attach(cover.step(step)?.as_fd(), target.as_fd()).step(step)?;
        }
        Ok(())
    }

    /// Covers paths by a read-only view of themselves.
    pub(crate) fn protect(&self, read_only: &[String]) -> Result<(), LaunchError> {
        for name in read_only {
            let step = || format!("protect {name}");
            let Some(target) = self.open(name).step(step)? else { continue };
            let view = mount::clone_tree_at(target.as_fd(), Path::new(""), true).step(step)?;
            mount::restrict(view.as_fd(), mount::READ_ONLY, true).step(step)?;
            mount::attach(view.as_fd(), target.as_fd()).step(step)?;
        }
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let own = [(self.proc, "/proc/"), (self.sys, "/sys/")];
        let opened = match own.into_iter().find_map(|(own, mount)| Some((own?, name.strip_prefix(mount)?))) {
            Some((own, rest)) => path::open_plain(own, Path::new(rest), OFlags::PATH),
            None => path::open_in_root(self.root, Path::new(name), OFlags::PATH),
        };
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
