//! What the machine's control groups can do, by making one.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::{Layout, devices, open, remove_folder, write};
use crate::sys::probe;

/// Controllers that limits need, and the same by the names of v2.
const CONTROLLERS: [(&str, &str); 5] =
    [("memory", "memory"), ("cpu", "cpu"), ("pids", "pids"), ("cpuset", "cpuset"), ("blkio", "io")];

/// What [`survey`] found.
#[derive(Debug)]
pub struct Survey {
    /// `v1`, `v2`, `hybrid` or `none`.
    pub version: &'static str,
    /// Whether a group can be made at all, and why not.
    pub usable: Result<(), String>,
    /// Per controller, by its v2 name: whether a group can get its limits, and why not.
    pub controllers: Vec<(&'static str, Result<(), String>)>,
    /// Whether devices can be limited: by the v1 controller or a program.
    pub devices: Result<&'static str, String>,
    /// Whether a process can be born into a group (a v2 tree); without, it moves there itself.
    pub birth: bool,
    /// Whether a group can be killed at once (Linux 5.14); without, process by process.
    pub kill: bool,
    /// Whether swap can be limited.
    pub swap: bool,
}

/// Looks. Makes a group in each hierarchy, and removes it. The caller must have one thread only.
pub fn survey() -> io::Result<Survey> {
    let layout = Layout::detect()?;
    let name = format!("stack-doctor-{}", std::process::id());
    let made: Vec<PathBuf> = layout.mounts().map(|mount| mount.join(&name)).collect();
    let results: Vec<io::Result<()>> = made.iter().map(fs_err::create_dir).collect();
    let found = look(&layout, &name, results);
    for folder in made {
        remove_folder(&folder);
    }
    Ok(found)
}

fn look(layout: &Layout, name: &str, made: Vec<io::Result<()>>) -> Survey {
    let version = match (layout.v1.is_empty(), &layout.unified) {
        (true, None) => "none",
        (true, Some(_)) => "v2",
        (false, None) => "v1",
        (false, Some(_)) => "hybrid",
    };
    let usable = match (version, made.into_iter().find_map(Result::err)) {
        ("none", _) => Err("no hierarchy of control groups is mounted that can be written to".to_owned()),
        (_, Some(e)) => Err(e.to_string()),
        _ => Ok(()),
    };
    let group = layout.unified.as_ref().map(|unified| unified.mount.join(name));
    let opened = group.as_deref().and_then(|folder| open(folder).ok());
    let controllers = CONTROLLERS.map(|(v1, v2)| (v2, holder(layout, v1, v2)));
    Survey {
        version,
        usable,
        controllers: controllers.into(),
        devices: match (layout.with("devices"), &opened) {
            (Some(_), _) => Ok("by the `devices` controller"),
            (None, Some(group)) => devices::filter(group.as_fd(), &devices::allowed(&[], &[]))
                .map(|()| "by a program of the control group")
                .map_err(|e| format!("the kernel takes no program for devices: {e}")),
            (None, None) => Err("no control group can hold a rule for devices".to_owned()),
        },
        birth: opened.as_ref().is_some_and(|group| probe::clone(0, Some(group.as_fd())).is_ok()),
        kill: group.as_deref().is_some_and(|folder| folder.join("cgroup.kill").exists()),
        swap: limits_swap(layout),
    }
}

/// Whether a group of ours can have a controller's limits.
fn holder(layout: &Layout, v1: &str, v2: &str) -> Result<(), String> {
    if layout.with(v1).is_some() {
        return Ok(());
    }
    let Some(unified) = layout.unified.as_ref().filter(|_| layout.unified_has(v2)) else {
        return Err("the kernel offers no such control group".to_owned());
    };
    let file = unified.mount.join("cgroup.subtree_control");
    if fs_err::read_to_string(&file).unwrap_or_default().split_whitespace().any(|name| name == v2) {
        return Ok(());
    }
    // Nothing stays changed: the first container that needs it hands it down again.
    let handed = write(&file, &format!("+{v2}"));
    let _ = handed.as_ref().is_ok_and(|()| write(&file, &format!("-{v2}")).is_ok());
    handed.map_err(|e| format!("{} hands it to no group below: {e}", unified.mount.display()))
}

fn limits_swap(layout: &Layout) -> bool {
    match (layout.with("memory"), &layout.unified) {
        (Some(memory), _) => memory.mount.join("memory.memsw.limit_in_bytes").exists(),
        // The root of v2 has no limits, but counts swap where it can be limited below.
        (None, Some(unified)) => {
            layout.unified_has("memory")
                && (Path::new("/proc/swaps").exists() || unified.mount.join("memory.swap.max").exists())
        }
        (None, None) => false,
    }
}
