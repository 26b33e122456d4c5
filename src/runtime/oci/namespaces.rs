//! Namespaces of a container: which are entered, which are made, and by whom.
//!
//! An intermediate process does what must be over before the container's own process exists: it joins the control
//! groups, enters the namespaces that have a path, sets the clocks, and clones the container as its own sibling.

use std::os::fd::{AsFd as _, OwnedFd};

use fs_err as fs;

use super::config::Config;
use super::error::{Doing as _, Error};
use super::linux::{KINDS, Kind};
use crate::runtime::error::LaunchError;
use crate::sys::{netns, process, userns};

/// What to enter before the clone, and what the clone makes.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// In the order of entering.
    enter: Vec<(OwnedFd, Kind)>,
    /// `CLONE_NEW*`
    new: i32,
    /// `/proc/self/timens_offsets` of new clocks.
    clocks: Option<String>,
}

impl Namespaces {
    /// Opens what the configuration names.
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let linux = &config.linux;
        let mut enter = Vec::new();
        for kind in KINDS {
            let Some(path) = linux.namespace(kind).and_then(|namespace| namespace.path.as_deref()) else { continue };
            let fd = netns::open(path).doing(|| format!("open the namespace {}", path.display()))?;
            if namespace_type(&fd).doing(|| format!("look at {}", path.display()))? != kind.flag() {
                let message = format!("{} is no namespace of type {}", path.display(), kind.file());
                return Err(Error::Config(message));
            }
            enter.push((fd, kind));
        }
        let made = KINDS.into_iter().filter(|kind| linux.has_new(*kind) && *kind != Kind::Time);
        let new = made.fold(0, |flags, kind| flags | kind.flag());
        let clocks = linux.has_new(Kind::Time).then(|| {
            let line = |(clock, offset): (&String, &super::linux::TimeOffset)| {
                format!("{clock} {} {}\n", offset.secs, offset.nanosecs)
            };
            linux.time_offsets.iter().map(line).collect()
        });
        Ok(Self { enter, new, clocks })
    }

    /// Enters what is there and sets new clocks; for a process that is about to clone.
    pub(super) fn enter(&self) -> Result<(), LaunchError> {
        if let Some(clocks) = &self.clocks {
            let step = |e| LaunchError::new("set the clocks of a time namespace", e);
            process::unshare(Kind::Time.flag()).map_err(step)?;
            if !clocks.is_empty() {
                fs::write("/proc/self/timens_offsets", clocks).map_err(step)?;
            }
        }
        for (fd, kind) in &self.enter {
            process::enter(fd.as_fd(), kind.flag())
                .map_err(|e| LaunchError::new(format!("enter the {} namespace", kind.file()), e))?;
        }
        Ok(())
    }

    /// The flags of the clone, which becomes the caller's sibling.
    pub(super) fn flags(&self) -> i32 {
        self.new | libc::CLONE_PARENT
    }
}

fn namespace_type(fd: &OwnedFd) -> std::io::Result<i32> {
    process::namespace_kind(fd.as_fd())
}

/// The id maps of a new user namespace.
pub(super) fn maps(config: &Config) -> (Vec<userns::Extent>, Vec<userns::Extent>) {
    (extents(&config.linux.uid_mappings), extents(&config.linux.gid_mappings))
}

/// Id maps in the form that the kernel takes.
pub(super) fn extents(mappings: &[super::config::IdMapping]) -> Vec<userns::Extent> {
    let extent = |map: &super::config::IdMapping| userns::Extent {
        inside: map.container_id,
        outside: map.host_id,
        count: map.size,
    };
    mappings.iter().map(extent).collect()
}
