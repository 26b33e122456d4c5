//! Limits in the unified hierarchy, written by the shim before the clone.

use std::path::Path;

use super::layout::Unified;
use super::{make_folder, set, write};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Resources;

const CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "cpuset", "io"];
const DEFAULT_PERIOD: u64 = 100_000;

/// Makes the group and sets its limits.
pub(super) fn make(unified: &Unified, path: &str, resources: &Resources) -> Result<(), LaunchError> {
    let step = || format!("make control group {path} in {}", unified.mount.display());
    let folder = make_folder(&unified.mount, path).map_err(|e| LaunchError::new(step(), e))?;
    let has = |controller: &str| unified.controllers.iter().any(|name| name == controller);
    delegate(unified, path);
    // What isn't handed down here, because the group above holds processes itself, can't hold a limit.
    let handed = fs_err::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let lacks = |controller: &str| has(controller) && !handed.split_whitespace().any(|name| name == controller);
    for (controller, limit, wanted) in resources.by_controller() {
        if wanted && lacks(controller) {
            let reason = format!(
                "{} holds processes itself and hands `{controller}` to no group below; move them into a group of their own",
                unified.mount.display()
            );
            return Err(LaunchError::refused(format!("set {limit}"), reason));
        }
    }
    if has("memory") {
        limit_memory(&folder, resources)?;
    }
    if has("cpu") {
        if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
            let quota = resources.cpu_quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |q| q.to_string());
            set(&folder, "cpu.max", &format!("{quota} {}", resources.cpu_period.unwrap_or(DEFAULT_PERIOD)))?;
        }
        if let Some(shares) = resources.cpu_shares {
            set(&folder, "cpu.weight", &weight(shares).to_string())?;
        }
    }
    if has("pids")
        && let Some(pids) = resources.pids
    {
        set(&folder, "pids.max", &if pids < 0 { "max".to_owned() } else { pids.to_string() })?;
    }
    if has("cpuset") {
        if let Some(processors) = &resources.cpuset_cpus {
            set(&folder, "cpuset.cpus", processors)?;
        }
        if let Some(nodes) = &resources.cpuset_mems {
            set(&folder, "cpuset.mems", nodes)?;
        }
    }
    if let (true, Some(weight)) = (has("io"), resources.blkio_weight) {
        set(&folder, "io.weight", &format!("default {weight}"))?;
    }
    Ok(())
}

/// Hands the controllers down every level above the group. One that can't be handed down shows when its limit is set.
fn delegate(unified: &Unified, path: &str) {
    let mut level = unified.mount.clone();
    for part in path.split('/') {
        let handed = fs_err::read_to_string(level.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in CONTROLLERS.iter().filter(|name| unified.controllers.iter().any(|own| own == *name)) {
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
