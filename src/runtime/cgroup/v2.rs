//! Limits in the unified hierarchy, written by the shim before the clone.

use std::path::Path;

use super::layout::Unified;
use super::{block, make_folder, set, write};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Resources;

const CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "cpuset", "io"];
const DEFAULT_PERIOD: u64 = 100_000;

/// Makes the group, if it is not there, and sets its limits; says what of them can't be held.
pub(super) fn make(unified: &Unified, path: &str, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    let step = || format!("make control group {path} in {}", unified.mount.display());
    let folder = make_folder(&unified.mount, path).map_err(|e| LaunchError::new(step(), e))?;
    let has = |controller: &str| unified.controllers.iter().any(|name| name == controller);
    delegate(unified, path, &CONTROLLERS);
    // What isn't handed down here, because the group above holds processes itself, can't hold a limit.
    let handed = fs_err::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let lacks = |controller: &str| has(controller) && !handed.split_whitespace().any(|name| name == controller);
    let reason = |controller: &str| {
        format!(
            "{} holds processes itself and hands `{controller}` to no group below; move them into a group of their own",
            unified.mount.display()
        )
    };
    for (controller, limit, wanted) in resources.by_controller() {
        if wanted && lacks(controller) {
            return Err(LaunchError::refused(format!("set {limit}"), reason(controller)));
        }
    }
    let mut losses = Vec::new();
    if has("memory") {
        limit_memory(&folder, resources)?;
        for (attribute, asked) in
            [("mem_swappiness", resources.swappiness.is_some()), ("oom_kill_disable", resources.oom_kill_disable)]
        {
            losses.extend(asked.then(|| unknown(attribute)));
        }
    }
    if has("cpu") {
        limit_processor_time(&folder, resources)?;
        let asked = resources.cpu_rt_runtime.is_some() || resources.cpu_rt_period.is_some();
        losses.extend(asked.then(|| unknown("cpu_rt_runtime")));
    }
    match resources.processes() {
        Some(_) if lacks("pids") => losses.push(format!("processes are not limited: {}", reason("pids"))),
        Some(pids) if has("pids") => {
            set(&folder, "pids.max", &if pids < 0 { "max".to_owned() } else { pids.to_string() })?;
        }
        _ => {}
    }
    if has("cpuset") {
        if let Some(processors) = &resources.cpuset_cpus {
            set(&folder, "cpuset.cpus", processors)?;
        }
        if let Some(nodes) = &resources.cpuset_mems {
            set(&folder, "cpuset.mems", nodes)?;
        }
    }
    if has("io") && block::is_limited(resources) {
        losses.extend(block::limit_v2(&folder, resources)?);
    }
    Ok(losses)
}

/// A setting that only v1 has.
fn unknown(attribute: &str) -> String {
    format!("{attribute} has no effect: control groups of version 2 know no such setting")
}

fn limit_processor_time(folder: &Path, resources: &Resources) -> Result<(), LaunchError> {
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        let quota = resources.cpu_quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |q| q.to_string());
        set(folder, "cpu.max", &format!("{quota} {}", resources.cpu_period.unwrap_or(DEFAULT_PERIOD)))?;
    }
    match resources.cpu_shares {
        Some(shares) => set(folder, "cpu.weight", &weight(shares).to_string()),
        None => Ok(()),
    }
}

/// Hands the controllers down every level above the group. One that can't be handed down shows when its limit is set.
pub(super) fn delegate(unified: &Unified, path: &str, controllers: &[&str]) {
    let mut level = unified.mount.clone();
    for part in path.split('/') {
        let handed = fs_err::read_to_string(level.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in controllers.iter().filter(|name| unified.controllers.iter().any(|own| own == *name)) {
            if !handed.split_whitespace().any(|name| name == *controller) {
                let _ = write(&level.join("cgroup.subtree_control"), &format!("+{controller}"));
            }
        }
        level.push(part);
    }
}

fn limit_memory(folder: &Path, resources: &Resources) -> Result<(), LaunchError> {
    if let Some(memory) = resources.memory {
        set(folder, "memory.max", &memory.to_string())?;
        let swap = match resources.memory_swap {
            Some(-1) => "max".to_owned(),
            Some(total) => u64::try_from(total).unwrap_or(0).saturating_sub(memory).to_string(),
            None => memory.to_string(),
        };
        if folder.join("memory.swap.max").exists() || resources.memory_swap.is_some() {
            set(folder, "memory.swap.max", &swap)?;
        }
    }
    match resources.memory_reservation {
        Some(reservation) => set(folder, "memory.low", &reservation.to_string()),
        None => Ok(()),
    }
}

/// From shares of 2…262,144 to a weight of 1…10,000, as every other runtime converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(super::weight), [1, 39, 10_000]);
    }
}
