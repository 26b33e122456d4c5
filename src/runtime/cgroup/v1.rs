//! Limits in v1 hierarchies, written by the container's own clone while it still sees them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::layout::{Hierarchy, Layout};
use super::{block, make_folder, members, missing, set, write};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Resources;

/// The limit of memory and swap together; not there where the kernel counts no swap.
const MEMORY_AND_SWAP: &str = "memory.memsw.limit_in_bytes";

/// Time for real-time processes; not there where the kernel doesn't share it out.
const REAL_TIME: &str = "cpu.rt_runtime_us";

/// Makes the groups and sets the limits. Without `rules` all devices are allowed.
pub(super) fn make(
    layout: &Layout,
    path: &str,
    resources: &Resources,
    rules: Option<&[String]>,
) -> Result<(), LaunchError> {
    with_each(layout, path, resources, rules, |_| Ok(()))
}

/// Makes the groups, sets the limits and moves the caller. Without `rules` all devices are allowed.
pub(super) fn enter(
    layout: &Layout,
    path: &str,
    resources: &Resources,
    rules: Option<&[String]>,
) -> Result<(), LaunchError> {
    with_each(layout, path, resources, rules, |folder| {
        join(folder).map_err(|e| LaunchError::new(format!("join control group {}", folder.display()), e))
    })
}

fn with_each(
    layout: &Layout,
    path: &str,
    resources: &Resources,
    rules: Option<&[String]>,
    last: impl Fn(&Path) -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    refuse_unholdable(layout, resources)?;
    for hierarchy in layout.v1.iter().filter(|hierarchy| is_needed(hierarchy, resources)) {
        let folder = make_group(hierarchy, path)?;
        limit(hierarchy, &folder, path, resources)?;
        if let (true, Some(rules)) = (hierarchy.has("devices"), rules) {
            allow_devices(&folder, rules)?;
        }
        last(&folder)?;
    }
    Ok(())
}

/// Sets the limits of block devices in a group that is made for it, and says what of all limits can't be held here.
pub(super) fn losses(layout: &Layout, path: &str, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    let mut losses = Vec::new();
    if let Some(memory) = layout.with("memory")
        && resources.memory_swap.is_some()
        && !memory.mount.join(MEMORY_AND_SWAP).exists()
    {
        losses
            .push("memswap_limit has no effect: this kernel counts no swap (start it with `swapaccount=1`)".to_owned());
    }
    if let Some(cpu) = layout.with("cpu")
        && (resources.cpu_rt_runtime.is_some() || resources.cpu_rt_period.is_some())
        && !cpu.mount.join(REAL_TIME).exists()
    {
        losses.push("cpu_rt_runtime has no effect: this kernel shares out no time for real-time processes".to_owned());
    }
    if let Some(hierarchy) = layout.with("blkio").filter(|_| block::is_limited(resources)) {
        losses.extend(block::limit_v1(&make_group(hierarchy, path)?, resources)?);
    }
    Ok(losses)
}

/// Sets limits of groups that processes are in, and moves them where they had no group yet; says what can't be held.
pub(super) fn update(layout: &Layout, path: &str, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    refuse_unholdable(layout, resources)?;
    let needed: Vec<&Hierarchy> = layout.v1.iter().filter(|hierarchy| is_needed(hierarchy, resources)).collect();
    let missing: Vec<_> = needed.iter().map(|hierarchy| !hierarchy.mount.join(path).exists()).collect();
    let losses = losses(layout, path, resources)?;
    for (hierarchy, missing) in needed.into_iter().zip(missing) {
        let folder = make_group(hierarchy, path)?;
        limit(hierarchy, &folder, path, resources)?;
        if missing {
            let step = || format!("move the container into control group {}", folder.display());
            adopt(layout, path, &folder).map_err(|e| LaunchError::new(step(), e))?;
        }
    }
    Ok(losses)
}

pub(super) fn make_group(hierarchy: &Hierarchy, path: &str) -> Result<PathBuf, LaunchError> {
    let step = || format!("make control group {path} in {}", hierarchy.mount.display());
    make_folder(&hierarchy.mount, path).map_err(|e| LaunchError::new(step(), e))
}

/// Moves the container's processes into one more group.
fn adopt(layout: &Layout, path: &str, folder: &Path) -> io::Result<()> {
    let others = layout.mounts().map(|mount| mount.join(path)).find(|other| other != folder && other.exists());
    for pid in others.map(|other| members(&other)).unwrap_or_default() {
        match write(&folder.join("cgroup.procs"), &pid.to_string()) {
            // It ended meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Moves the caller, which has one thread.
///
/// A thread that moves itself needs no lock of all processes. Through `cgroup.procs`, or for another process, the
/// kernel takes it, and waits for a grace period of some 10 ms first.
pub(super) fn join(folder: &Path) -> io::Result<()> {
    write(&folder.join("tasks"), "0")
}

/// Controllers that only matter when limits are asked for are left out otherwise: each costs a folder and a move.
fn is_needed(hierarchy: &Hierarchy, resources: &Resources) -> bool {
    hierarchy.controllers.iter().any(|controller| match controller.as_str() {
        "cpuset" => resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some(),
        "blkio" => block::is_limited(resources),
        _ => true,
    })
}

fn limit(hierarchy: &Hierarchy, folder: &Path, path: &str, resources: &Resources) -> Result<(), LaunchError> {
    if hierarchy.has("memory") {
        limit_memory(folder, resources)?;
    }
    if hierarchy.has("cpu") {
        if let Some(period) = resources.cpu_period {
            set(folder, "cpu.cfs_period_us", &period.to_string())?;
        }
        if let Some(quota) = resources.cpu_quota {
            set(folder, "cpu.cfs_quota_us", &quota.to_string())?;
        }
        if let Some(shares) = resources.cpu_shares {
            set(folder, "cpu.shares", &shares.to_string())?;
        }
        limit_real_time(hierarchy, path, resources)?;
    }
    if hierarchy.has("pids")
        && let Some(pids) = resources.processes()
    {
        set(folder, "pids.max", &if pids < 0 { "max".to_owned() } else { pids.to_string() })?;
    }
    if hierarchy.has("cpuset") {
        limit_processors(hierarchy, folder, path, resources)?;
    }
    Ok(())
}

/// Time for real-time processes is handed down: every level above needs as much.
fn limit_real_time(hierarchy: &Hierarchy, path: &str, resources: &Resources) -> Result<(), LaunchError> {
    if resources.cpu_rt_runtime.is_none() && resources.cpu_rt_period.is_none() {
        return Ok(());
    }
    let mut level = hierarchy.mount.clone();
    for part in path.split('/') {
        level.push(part);
        if !level.join(REAL_TIME).exists() {
            return Ok(());
        }
        if let Some(period) = resources.cpu_rt_period {
            set(&level, "cpu.rt_period_us", &period.to_string())?;
        }
        let Some(runtime) = resources.cpu_rt_runtime else { continue };
        let has = fs_err::read_to_string(level.join(REAL_TIME)).ok().and_then(|text| text.trim().parse().ok());
        let own = level == hierarchy.mount.join(path);
        if own || has.is_none_or(|has: i64| has < runtime) {
            set(&level, REAL_TIME, &runtime.to_string())?;
        }
    }
    Ok(())
}

fn limit_memory(folder: &Path, resources: &Resources) -> Result<(), LaunchError> {
    if let Some(memory) = resources.memory {
        let memory_alone = || set(folder, "memory.limit_in_bytes", &memory.to_string());
        let total =
            resources.memory_swap.map_or_else(|| memory.saturating_mul(2).to_string(), |total| total.to_string());
        let both = || set(folder, MEMORY_AND_SWAP, &total);
        if folder.join(MEMORY_AND_SWAP).exists() {
            // Both together are never less than memory alone: what grows goes first.
            if memory_alone().is_err() {
                both()?;
                memory_alone()?;
            }
            both()?;
        } else {
            memory_alone()?;
        }
    }
    if let Some(reservation) = resources.memory_reservation {
        set(folder, "memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(swappiness) = resources.swappiness {
        set(folder, "memory.swappiness", &swappiness.to_string())?;
    }
    if resources.oom_kill_disable {
        set(folder, "memory.oom_control", "1")?;
    }
    Ok(())
}

/// A new cpuset is empty, and nobody can be moved into it: every level starts with what the one above has.
pub(super) fn fill_processors(hierarchy: &Hierarchy, path: &str) -> Result<(), LaunchError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut above = hierarchy.mount.clone();
        for part in path.split('/') {
            let here = above.join(part);
            if fs_err::read_to_string(here.join(file)).is_ok_and(|value| value.trim().is_empty()) {
                let inherited = fs_err::read_to_string(above.join(file)).unwrap_or_default();
                set(&here, file, inherited.trim())?;
            }
            above = here;
        }
    }
    Ok(())
}

fn limit_processors(
    hierarchy: &Hierarchy,
    folder: &Path,
    path: &str,
    resources: &Resources,
) -> Result<(), LaunchError> {
    fill_processors(hierarchy, path)?;
    if let Some(processors) = &resources.cpuset_cpus {
        set(folder, "cpuset.cpus", processors)?;
    }
    if let Some(nodes) = &resources.cpuset_mems {
        set(folder, "cpuset.mems", nodes)?;
    }
    Ok(())
}

fn allow_devices(folder: &Path, rules: &[String]) -> Result<(), LaunchError> {
    set(folder, "devices.deny", "a")?;
    let step = |rule: &str| format!("allow device `{rule}`");
    let file = rustix::fs::open(folder.join("devices.allow"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LaunchError::new(step("*"), e))?;
    for rule in rules {
        rustix::io::write(&file, rule.as_bytes()).map_err(|e| LaunchError::new(step(rule), e))?;
    }
    Ok(())
}

fn refuse_unholdable(layout: &Layout, resources: &Resources) -> Result<(), LaunchError> {
    for (controller, limit, wanted) in resources.by_controller() {
        let older = if controller == "io" { "blkio" } else { controller };
        if wanted && layout.with(older).is_none() && !layout.unified_has(controller) {
            return Err(missing(controller, limit));
        }
    }
    Ok(())
}
