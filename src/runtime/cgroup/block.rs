//! Limits and weights of block devices: `blkio` of v1, `io` of v2.

use std::path::Path;

use super::set;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{BlockLimitKind, Resources};

/// Where v1 keeps weights, by the scheduler that obeys them: the newer first.
const V1_WEIGHTS: [&str; 2] = ["blkio.bfq.weight", "blkio.weight"];

/// Whether anything is asked for.
pub(super) fn is_limited(resources: &Resources) -> bool {
    resources.blkio_weight.is_some() || !resources.block_limits.is_empty()
}

/// Limits in a folder of v1; says what can't be held.
pub(super) fn limit_v1(folder: &Path, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    let mut losses = Vec::new();
    let weights = V1_WEIGHTS.into_iter().find(|file| folder.join(file).exists());
    match (resources.blkio_weight, weights) {
        (Some(weight), Some(file)) => set(folder, file, &weight.to_string())?,
        (Some(_), None) => losses.push(no_weights("blkio_config.weight")),
        (None, _) => {}
    }
    for limit in &resources.block_limits {
        let file = match (limit.kind, weights) {
            (BlockLimitKind::Weight, Some(file)) => format!("{file}_device"),
            (BlockLimitKind::Weight, None) => {
                losses.push(no_weights("blkio_config.weight_device"));
                continue;
            }
            (BlockLimitKind::ReadBytes, _) => "blkio.throttle.read_bps_device".to_owned(),
            (BlockLimitKind::WriteBytes, _) => "blkio.throttle.write_bps_device".to_owned(),
            (BlockLimitKind::Reads, _) => "blkio.throttle.read_iops_device".to_owned(),
            (BlockLimitKind::Writes, _) => "blkio.throttle.write_iops_device".to_owned(),
        };
        set(folder, &file, &format!("{}:{} {}", limit.major, limit.minor, limit.value))?;
    }
    Ok(losses)
}

/// Limits in a folder of v2; says what can't be held.
pub(super) fn limit_v2(folder: &Path, resources: &Resources) -> Result<Vec<String>, LaunchError> {
    let mut losses = Vec::new();
    // The scheduler BFQ takes the numbers of v1, the cost model weights of 1 to 10,000.
    let bfq = folder.join("io.bfq.weight").exists();
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let number = |weight: u64| if bfq { weight } else { converted(weight) };
    let there = folder.join(file).exists();
    match resources.blkio_weight {
        Some(weight) if there => set(folder, file, &format!("default {}", number(u64::from(weight))))?,
        Some(_) => losses.push(no_weights("blkio_config.weight")),
        None => {}
    }
    for limit in &resources.block_limits {
        let key = match limit.kind {
            BlockLimitKind::Weight if there => {
                set(folder, file, &format!("{}:{} {}", limit.major, limit.minor, number(limit.value)))?;
                continue;
            }
            BlockLimitKind::Weight => {
                losses.push(no_weights("blkio_config.weight_device"));
                continue;
            }
            BlockLimitKind::ReadBytes => "rbps",
            BlockLimitKind::WriteBytes => "wbps",
            BlockLimitKind::Reads => "riops",
            BlockLimitKind::Writes => "wiops",
        };
        set(folder, "io.max", &format!("{}:{} {key}={}", limit.major, limit.minor, limit.value))?;
    }
    Ok(losses)
}

fn no_weights(attribute: &str) -> String {
    format!("{attribute} has no effect: this kernel weighs no block input and output (it needs the scheduler BFQ)")
}

/// From 10…1,000 to 1…10,000, as every other runtime converts them.
fn converted(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1_000) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    #[test]
    fn weights_are_converted() {
        assert_eq!([10, 500, 1_000].map(super::converted), [1, 4_950, 10_000]);
    }
}
