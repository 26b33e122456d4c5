//! Control groups of bundles: made in every hierarchy, joined by the container's own process, limited file by file.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use super::{Group, devices, v1, v2};
use crate::runtime::device::DeviceRule;
use crate::runtime::error::LaunchError;

/// Controllers of the unified hierarchy that are handed down to bundles.
const CONTROLLERS: [&str; 8] = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma", "misc"];

impl Group {
    /// Makes the groups in every hierarchy; gives the unified one, for a clone to be born into.
    pub(crate) fn make(&self) -> Result<Option<OwnedFd>, LaunchError> {
        for hierarchy in &self.layout.v1 {
            v1::make_group(hierarchy, &self.path)?;
            if hierarchy.has("cpuset") {
                v1::fill_processors(hierarchy, &self.path)?;
            }
        }
        let step = |e| LaunchError::new(format!("make control group {}", self.path), e);
        if let Some(unified) = &self.layout.unified {
            super::make_folder(&unified.mount, &self.path).map_err(step)?;
            v2::delegate(unified, &self.path, &CONTROLLERS);
        }
        self.unified().map_err(step)
    }

    /// A group inside, which is there in some hierarchy.
    pub(crate) fn below(&self, inner: &str) -> Result<Self, LaunchError> {
        Self::new(&self.layout, &format!("{}/{}", self.path, inner.trim_matches('/')))
    }

    /// The folder of the v1 hierarchy that has a controller.
    pub(crate) fn folder_of(&self, controller: &str) -> Option<PathBuf> {
        self.layout.with(controller).map(|hierarchy| hierarchy.mount.join(&self.path))
    }

    /// Whether the unified hierarchy has a controller.
    pub(crate) fn unified_has(&self, controller: &str) -> bool {
        self.layout.unified_has(controller)
    }

    /// Whether it is stopped.
    pub(crate) fn is_frozen(&self) -> bool {
        let reads = |file: PathBuf, word: &str| fs_err::read_to_string(file).is_ok_and(|text| text.contains(word));
        let v1 = || self.folder_of("freezer").is_some_and(|folder| reads(folder.join("freezer.state"), "FROZEN"));
        self.unified_folder().is_some_and(|folder| reads(folder.join("cgroup.freeze"), "1")) || v1()
    }

    /// Filters the devices of the unified group by rules, of which the last that fits decides.
    pub(crate) fn filter_devices(&self, rules: &[(bool, DeviceRule)]) -> Result<(), LaunchError> {
        let step = |e| LaunchError::new("filter the devices of the control group", e);
        match self.unified().map_err(step)? {
            Some(group) => devices::filter_ordered(group.as_fd(), rules).map_err(step),
            None => Err(LaunchError::refused("filter devices", "the kernel offers no control group for them")),
        }
    }
}
