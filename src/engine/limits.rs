//! A service's limits in numbers, and the control group that holds them.

use std::os::linux::fs::MetadataExt as _;

use fs_err as fs;
use serde_json::Value;

use super::control::Failure;
use super::paths::Paths;
use super::state::Record;
use crate::runtime::launch::{BlockLimit, BlockLimitKind, Resources};
use crate::spec::model::Service;
use crate::spec::units::ByteSize;

/// Processes and threads of a container that asks for no other limit.
const PROCESSES: i64 = 4096;
/// Microseconds that a quota of processor time counts for, unless a service says otherwise.
const PERIOD: u64 = 100_000;

/// Entries of `blkio_config` with limits of single devices: name, key of the number, meaning.
const BLOCK: [(&str, &str, BlockLimitKind); 5] = [
    ("weight_device", "weight", BlockLimitKind::Weight),
    ("device_read_bps", "rate", BlockLimitKind::ReadBytes),
    ("device_write_bps", "rate", BlockLimitKind::WriteBytes),
    ("device_read_iops", "rate", BlockLimitKind::Reads),
    ("device_write_iops", "rate", BlockLimitKind::Writes),
];

/// A container's control group below each hierarchy. With a `cgroup_parent`, below that: a plain path, or the name of
/// a slice, which stands for the path that systemd gives it.
pub(crate) fn group(paths: &Paths, record: &Record) -> String {
    match parent(&record.config) {
        None => paths.cgroup(&record.project, &record.id),
        Some(parent) => format!("{}/{}", expanded(parent), record.id),
    }
}

/// Whether the groups above a service's own are somebody else's.
pub(crate) fn is_borrowed(service: &Service) -> bool {
    parent(service).is_some()
}

fn parent(service: &Service) -> Option<&str> {
    service.cgroup_parent.as_deref().map(|parent| parent.trim_matches('/')).filter(|parent| !parent.is_empty())
}

/// `a-b.slice` lies in `a.slice`.
fn expanded(parent: &str) -> String {
    let Some(name) = parent.strip_suffix(".slice").filter(|name| !name.contains('/')) else {
        return parent.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    };
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| format!("{}.slice", &name[..end])).collect::<Vec<_>>().join("/")
}

/// What a service asks for. Blocking: devices are looked up.
pub(crate) fn resources(service: &Service) -> Result<Resources, Failure> {
    let deploy = service.deploy.as_ref().and_then(|deploy| deploy.resources.as_ref());
    let limits = deploy.and_then(|resources| resources.limits.clone()).unwrap_or_default();
    let reservations = deploy.and_then(|resources| resources.reservations.clone()).unwrap_or_default();
    let positive = |size: Option<ByteSize>| size.and_then(|size| u64::try_from(size.0).ok()).filter(|size| *size > 0);
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    let memory = positive(service.mem_limit.or(limits.memory));
    let memory_swap = service.memswap_limit.map(|ByteSize(swap)| swap).filter(|swap| *swap != 0);
    let memory_reservation = positive(service.mem_reservation.or(reservations.memory));
    match (memory_swap, memory) {
        (Some(1..), None) => {
            return Err(Failure::new("memswap_limit without mem_limit limits nothing")
                .hint("`memswap_limit` is memory and swap together: set `mem_limit`, too"));
        }
        (Some(swap @ 1..), Some(memory)) if swap.cast_unsigned() < memory => {
            return Err(Failure::new(format!("memswap_limit {swap} is less than mem_limit {memory}"))
                .hint("`memswap_limit` is memory and swap together; the same value as `mem_limit` allows no swap"));
        }
        _ => {}
    }
    let period = number(service.cpu_period);
    let cpus = service.cpus.or(limits.cpus).filter(|cpus| *cpus > 0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "microseconds of a few thousand processors at most"
    )]
    let quota = cpus.map(|cpus| (cpus * period.unwrap_or(PERIOD) as f64).round() as i64);
    let (blkio_weight, block_limits) = match &service.blkio_config {
        Some(config) => block(config)?,
        None => (None, Vec::new()),
    };
    Ok(Resources {
        memory,
        memory_swap,
        memory_reservation,
        swappiness: service.mem_swappiness.and_then(|ByteSize(value)| u64::try_from(value).ok()),
        oom_kill_disable: service.oom_kill_disable.unwrap_or(false),
        cpu_quota: quota.or(service.cpu_quota.filter(|quota| *quota != 0)),
        cpu_period: period,
        cpu_rt_runtime: service.cpu_rt_runtime.filter(|runtime| *runtime != 0),
        cpu_rt_period: number(service.cpu_rt_period),
        cpu_shares: number(service.cpu_shares),
        cpuset_cpus: service.cpuset.clone().filter(|set| !set.is_empty()),
        cpuset_mems: None,
        pids: service.pids_limit.or(limits.pids).map(|limit| if limit <= 0 { -1 } else { limit }),
        default_pids: Some(PROCESSES),
        blkio_weight,
        block_limits,
    })
}

fn block(config: &Value) -> Result<(Option<u16>, Vec<BlockLimit>), Failure> {
    let weight = config["weight"].as_u64().filter(|weight| *weight > 0);
    let mut limits = Vec::new();
    for (name, key, kind) in BLOCK {
        for entry in config[name].as_array().into_iter().flatten() {
            let path = entry["path"].as_str().unwrap_or_default();
            let at = |e: &dyn std::fmt::Display| Failure::new(format!("blkio_config.{name}: {path}: {e}"));
            let value = match &entry[key] {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse().ok().and_then(|ByteSize(size)| u64::try_from(size).ok()),
                _ => None,
            };
            let value = value.ok_or_else(|| at(&format_args!("`{}` is no {key}", entry[key])))?;
            let device = fs::metadata(path).map_err(|e| at(&e))?;
            if device.st_rdev() == 0 {
                return Err(at(&"not a device").hint("name a block device, such as /dev/sda"));
            }
            let (major, minor) = (rustix::fs::major(device.st_rdev()), rustix::fs::minor(device.st_rdev()));
            limits.push(BlockLimit { major, minor, kind, value });
        }
    }
    Ok((weight.and_then(|weight| u16::try_from(weight).ok()), limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_slices() {
        assert_eq!(expanded("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(expanded("machine.slice"), "machine.slice");
        assert_eq!(expanded("some//group"), "some/group");
        assert_eq!(expanded("x/y.slice"), "x/y.slice");
    }

    #[test]
    fn processors_count_for_the_period_asked_for() {
        let of = |cpus, period| {
            let service = Service { cpus: Some(cpus), cpu_period: period, ..Service::default() };
            let resources = resources(&service).unwrap();
            (resources.cpu_quota, resources.cpu_period)
        };
        assert_eq!(of(0.5, None), (Some(50_000), None));
        assert_eq!(of(0.5, Some(50_000)), (Some(25_000), Some(50_000)));
        assert_eq!(of(2.0, Some(10_000)), (Some(20_000), Some(10_000)));
    }

    #[test]
    fn swap_comes_with_memory() {
        let of = |memory: Option<i64>, swap| {
            let service =
                Service { mem_limit: memory.map(ByteSize), memswap_limit: Some(ByteSize(swap)), ..Service::default() };
            resources(&service).map(|resources| resources.memory_swap)
        };
        assert_eq!(of(Some(100), 300).unwrap(), Some(300));
        assert_eq!(of(Some(100), -1).unwrap(), Some(-1));
        assert!(of(None, 300).is_err() && of(Some(300), 100).is_err());
        assert_eq!(of(None, -1).unwrap(), Some(-1));
    }
}
