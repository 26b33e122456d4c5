//! Which hierarchies are mounted where.

use std::io;
use std::path::{Path, PathBuf};

/// A v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    pub(crate) controllers: Vec<String>,
}

impl Hierarchy {
    /// Its folder's name, e.g. `cpu,cpuacct`.
    pub(crate) fn name(&self) -> String {
        self.mount.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// The unified hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unified {
    pub(crate) mount: PathBuf,
    pub(crate) controllers: Vec<String>,
}

/// Every hierarchy that is of use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) v1: Vec<Hierarchy>,
    /// Also where it is mounted beside v1, with few controllers or none: it kills and freezes without.
    pub(crate) unified: Option<Unified>,
}

/// Controllers that a container may need.
const USED: [&str; 9] = ["memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer", "blkio", "io"];

/// Controllers that only bundles ask for.
const RARE: [&str; 6] = ["hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"];

impl Layout {
    /// Reads the machine's mount table.
    pub(crate) fn detect() -> io::Result<Self> {
        let table = fs_err::read_to_string("/proc/self/mountinfo")?;
        let controllers = |mount: &Path| fs_err::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Ok(Self::parse(&table, &USED, controllers))
    }

    /// The same with hierarchies of controllers that only bundles ask for.
    pub(crate) fn every() -> io::Result<Self> {
        let table = fs_err::read_to_string("/proc/self/mountinfo")?;
        let controllers = |mount: &Path| fs_err::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Ok(Self::parse(&table, &[&USED[..], &RARE].concat(), controllers))
    }

    fn parse(table: &str, used: &[&str], controllers_of: impl Fn(&Path) -> String) -> Self {
        let mut layout = Self::default();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fields = right.split(' ');
            let (kind, options) = (fields.next(), fields.nth(1).unwrap_or_default());
            // A container without rights may see one that it can't change.
            let writable = left.split(' ').nth(5).is_some_and(|flags| flags.split(',').any(|flag| flag == "rw"));
            if kind == Some("cgroup2") && layout.unified.is_none() && writable {
                let controllers = controllers_of(&mount).split_whitespace().map(str::to_owned).collect();
                layout.unified = Some(Unified { mount, controllers });
            } else if kind == Some("cgroup") {
                let known = |name: &&str| used.contains(name);
                let controllers: Vec<String> = options.split(',').filter(known).map(str::to_owned).collect();
                if !controllers.is_empty() && !layout.v1.iter().any(|other| other.controllers == controllers) {
                    layout.v1.push(Hierarchy { mount, controllers });
                }
            }
        }
        layout
    }

    /// The v1 hierarchy of a controller.
    pub(crate) fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// Whether the unified hierarchy has a controller.
    pub(crate) fn unified_has(&self, controller: &str) -> bool {
        self.unified.as_ref().is_some_and(|unified| unified.controllers.iter().any(|name| name == controller))
    }

    /// Where all of them are mounted.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|hierarchy| hierarchy.mount.as_path()).chain(self.unified.iter().map(|u| u.mount.as_path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 20 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
32 20 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 20 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
34 20 0:26 / /other/memory rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn hybrid_with_an_empty_unified_tree_uses_both() {
        let layout = Layout::parse(V1, &USED, |_| "hugetlb\n".to_owned());
        assert_eq!(layout.v1.len(), 2);
        assert_eq!(layout.with("cpuacct").unwrap().name(), "cpu,cpuacct");
        assert!(layout.unified.is_some() && !layout.unified_has("memory"));
    }

    #[test]
    fn a_unified_tree_that_cannot_be_changed_is_left_alone() {
        let layout = Layout::parse(&V1.replace("unified rw", "unified ro,relatime"), &USED, |_| String::new());
        assert_eq!((layout.v1.len(), layout.unified), (2, None));
    }

    #[test]
    fn hybrid_with_split_controllers_uses_both() {
        let layout = Layout::parse(V1, &USED, |_| "pids io\n".to_owned());
        assert!(layout.unified_has("pids") && !layout.unified_has("memory"));
    }

    #[test]
    fn unified_alone() {
        let table = "25 20 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::parse(table, &USED, |_| String::new());
        assert!(layout.v1.is_empty() && layout.unified.is_some());
    }
}
