//! Whether processes still are where they were started.

use std::io;

use super::layout::Layout;

/// Controllers in whose v1 hierarchies every container has a group.
const ALWAYS: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "devices", "freezer"];

/// Tells of processes whether they are in their container's control groups.
#[derive(Debug)]
pub struct Membership {
    layout: Layout,
}

impl Membership {
    /// Reads the machine's mount table.
    pub fn detect() -> io::Result<Self> {
        Ok(Self { layout: Layout::detect()? })
    }

    /// Whether process `pid` is in the groups at `path`, or in one below, of every hierarchy that containers are put
    /// into. One that has ended is nowhere else.
    pub fn holds(&self, path: &str, pid: i32) -> bool {
        fs_err::read_to_string(format!("/proc/{pid}/cgroup")).map_or(true, |groups| self.is_in(path, &groups))
    }

    fn is_in(&self, path: &str, groups: &str) -> bool {
        let counts = |controllers: &str| match controllers {
            "" => self.layout.unified.is_some(),
            some => some.split(',').any(|name| ALWAYS.contains(&name) && self.layout.with(name).is_some()),
        };
        let inside = |at: &str| format!("{at}/").contains(&format!("/{path}/"));
        let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines.all(|(controllers, at)| !counts(controllers) || inside(at))
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Hierarchy, Unified};
    use super::*;

    #[test]
    fn only_hierarchies_with_groups_of_containers_count() {
        let v1 = ["memory", "cpuset"].map(|name| Hierarchy { mount: "/m".into(), controllers: vec![name.to_owned()] });
        let unified = Some(Unified { mount: "/u".into(), controllers: Vec::new() });
        let membership = Membership { layout: Layout { v1: v1.to_vec(), unified } };
        let holds = |memory: &str, unified: &str| {
            membership.is_in("stack/app/1", &format!("9:memory:{memory}\n8:cpuset:/\n7:name=systemd:/\n0::{unified}\n"))
        };
        assert!(holds("/stack/app/1", "/stack/app/1"));
        assert!(holds("/outer/stack/app/1", "/outer/stack/app/1/inner"), "below another one, and with one below");
        assert!(!holds("/", "/stack/app/1"));
        assert!(!holds("/stack/app/1", "/stack/app/12"));
    }
}
