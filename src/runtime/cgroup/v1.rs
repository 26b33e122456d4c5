//! Limits in v1 hierarchies, written by the container's own clone while it still sees them.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::layout::{Hierarchy, Layout};
use super::{make_folder, missing, set, write};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Resources;

/// Makes the groups, sets the limits and moves the caller. Without `rules` all devices are allowed.
pub(super) fn enter(
    layout: &Layout,
    path: &str,
    resources: &Resources,
    rules: Option<&[String]>,
) -> Result<(), LaunchError> {
    refuse_unholdable(layout, resources)?;
    for hierarchy in &layout.v1 {
        if !is_needed(hierarchy, resources) {
            continue;
        }
        let step = || format!("make control group {path} in {}", hierarchy.mount.display());
        let folder = make_folder(&hierarchy.mount, path).map_err(|e| LaunchError::new(step(), e))?;
        limit(hierarchy, &folder, path, resources)?;
        if let (true, Some(rules)) = (hierarchy.has("devices"), rules) {
            allow_devices(&folder, rules)?;
        }
        join(&folder).map_err(|e| LaunchError::new(step(), e))?;
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
        "blkio" => resources.blkio_weight.is_some(),
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
    }
    if hierarchy.has("pids")
        && let Some(pids) = resources.pids
    {
        set(folder, "pids.max", &if pids < 0 { "max".to_owned() } else { pids.to_string() })?;
    }
    if hierarchy.has("cpuset") {
        limit_processors(hierarchy, folder, path, resources)?;
    }
    if hierarchy.has("blkio")
        && let Some(weight) = resources.blkio_weight
    {
        let weight = weight.to_string();
        return write(&folder.join("blkio.bfq.weight"), &weight).or_else(|_| set(folder, "blkio.weight", &weight));
    }
    Ok(())
}

fn limit_memory(folder: &Path, resources: &Resources) -> Result<(), LaunchError> {
    if let Some(memory) = resources.memory {
        set(folder, "memory.limit_in_bytes", &memory.to_string())?;
        let asked = resources.memory_swap;
        let total = asked.map_or_else(|| memory.saturating_mul(2).to_string(), |total| total.to_string());
        // Kernels may lack swap accounting; that is no reason to refuse who didn't ask for a limit of it.
        if folder.join("memory.memsw.limit_in_bytes").exists() || asked.is_some() {
            set(folder, "memory.memsw.limit_in_bytes", &total)?;
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
fn limit_processors(
    hierarchy: &Hierarchy,
    folder: &Path,
    path: &str,
    resources: &Resources,
) -> Result<(), LaunchError> {
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
        if wanted && layout.with(controller).is_none() && !layout.unified_has(controller) {
            return Err(missing(controller, limit));
        }
    }
    Ok(())
}
