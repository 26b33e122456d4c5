//! From limits to what is written into the files of control groups: a pure function for each version.

use super::resources::{BlockIo, Resources};

/// A value for a file of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// The controller.
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
}

/// Collects writes.
#[derive(Debug, Default)]
struct Writes(Vec<Write>);

impl Writes {
    fn set(&mut self, controller: &'static str, file: impl Into<String>, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.push(Write { controller, file: file.into(), value: value.to_string() });
        }
    }
}

/// For hierarchies of one controller each, but for devices.
pub(super) fn v1(resources: &Resources) -> Vec<Write> {
    let mut writes = Writes::default();
    let (memory, cpu) = (&resources.memory, &resources.cpu);
    let kept = |value: Option<i64>| value.filter(|value| *value != 0);
    if memory.use_hierarchy == Some(true) {
        writes.set("memory", "memory.use_hierarchy", Some(1));
    }
    writes.set("memory", "memory.limit_in_bytes", kept(memory.limit));
    writes.set("memory", "memory.memsw.limit_in_bytes", kept(memory.swap));
    writes.set("memory", "memory.soft_limit_in_bytes", kept(memory.reservation));
    writes.set("memory", "memory.kmem.tcp.limit_in_bytes", kept(memory.kernel_tcp));
    writes.set("memory", "memory.swappiness", memory.swappiness);
    writes.set("memory", "memory.oom_control", memory.disable_oom_killer.filter(|off| *off).map(|_| 1));
    let positive = |value: Option<u64>| value.filter(|value| *value > 0);
    writes.set("cpu", "cpu.rt_period_us", positive(cpu.realtime_period));
    writes.set("cpu", "cpu.rt_runtime_us", kept(cpu.realtime_runtime));
    writes.set("cpu", "cpu.shares", positive(cpu.shares));
    writes.set("cpu", "cpu.cfs_period_us", positive(cpu.period));
    writes.set("cpu", "cpu.cfs_quota_us", kept(cpu.quota));
    writes.set("cpu", "cpu.cfs_burst_us", cpu.burst);
    writes.set("cpu", "cpu.idle", cpu.idle);
    writes.set("cpuset", "cpuset.cpus", cpu.cpus.as_ref().filter(|list| !list.is_empty()));
    writes.set("cpuset", "cpuset.mems", cpu.mems.as_ref().filter(|list| !list.is_empty()));
    writes.set("pids", "pids.max", resources.pids.limit.filter(|limit| *limit != 0).map(unlimited));
    block(&mut writes, &resources.block_io);
    for pages in &resources.hugepage_limits {
        writes.set("hugetlb", format!("hugetlb.{}.limit_in_bytes", pages.page_size), Some(pages.limit));
    }
    writes.set("net_cls", "net_cls.classid", resources.network.class_id);
    for priority in &resources.network.priorities {
        let value = format!("{} {}", priority.name, priority.priority);
        writes.set("net_prio", "net_prio.ifpriomap", Some(value));
    }
    rdma(&mut writes, resources);
    writes.0
}

fn block(writes: &mut Writes, limits: &BlockIo) {
    writes.set("blkio", "blkio.weight", limits.weight.filter(|weight| *weight > 0));
    writes.set("blkio", "blkio.leaf_weight", limits.leaf_weight.filter(|weight| *weight > 0));
    for device in &limits.weight_device {
        let value = |weight: u64| format!("{}:{} {weight}", device.major, device.minor);
        writes.set("blkio", "blkio.weight_device", device.weight.map(value));
        writes.set("blkio", "blkio.leaf_weight_device", device.leaf_weight.map(value));
    }
    let rates = [
        ("read_bps", &limits.throttle_read_bps_device),
        ("write_bps", &limits.throttle_write_bps_device),
        ("read_iops", &limits.throttle_read_iops_device),
        ("write_iops", &limits.throttle_write_iops_device),
    ];
    for (name, devices) in rates {
        for device in devices {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            writes.set("blkio", format!("blkio.throttle.{name}_device"), Some(value));
        }
    }
}

fn rdma(writes: &mut Writes, resources: &Resources) {
    for (device, limit) in &resources.rdma {
        let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let handles = part("hca_handle", limit.hca_handles);
        writes.set("rdma", "rdma.max", Some(format!("{device}{handles}{}", part("hca_object", limit.hca_objects))));
    }
}

/// For the unified hierarchy, but for devices.
pub(super) fn v2(resources: &Resources) -> Vec<Write> {
    let mut writes = Writes::default();
    let (memory, cpu) = (&resources.memory, &resources.cpu);
    let kept = |value: Option<i64>| value.filter(|value| *value != 0);
    writes.set("memory", "memory.max", kept(memory.limit).map(unlimited));
    writes.set("memory", "memory.swap.max", swap_alone(memory.limit, kept(memory.swap)));
    writes.set("memory", "memory.low", kept(memory.reservation).map(unlimited));
    writes.set("cpu", "cpu.weight", cpu.shares.filter(|shares| *shares > 0).map(weight));
    if cpu.quota.is_some_and(|quota| quota != 0) || cpu.period.is_some_and(|period| period > 0) {
        let quota = cpu.quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let period = cpu.period.filter(|period| *period > 0).unwrap_or(100_000);
        writes.set("cpu", "cpu.max", Some(format!("{quota} {period}")));
    }
    writes.set("cpu", "cpu.max.burst", cpu.burst);
    writes.set("cpu", "cpu.idle", cpu.idle);
    writes.set("cpuset", "cpuset.cpus", cpu.cpus.as_ref().filter(|list| !list.is_empty()));
    writes.set("cpuset", "cpuset.mems", cpu.mems.as_ref().filter(|list| !list.is_empty()));
    writes.set("pids", "pids.max", resources.pids.limit.filter(|limit| *limit != 0).map(unlimited));
    block_unified(&mut writes, &resources.block_io);
    for pages in &resources.hugepage_limits {
        writes.set("hugetlb", format!("hugetlb.{}.max", pages.page_size), Some(pages.limit));
    }
    rdma(&mut writes, resources);
    for (file, value) in &resources.unified {
        writes.0.push(Write { controller: "unified", file: file.clone(), value: value.clone() });
    }
    writes.0
}

fn block_unified(writes: &mut Writes, limits: &BlockIo) {
    // From 10…1,000 to 1…10,000, as every other runtime converts them.
    let converted = |weight: u64| 1 + (weight.clamp(10, 1000) - 10) * 9999 / 990;
    let weight = limits.weight.filter(|weight| *weight > 0);
    writes.set("io", "io.weight", weight.map(|weight| format!("default {}", converted(weight))));
    for device in &limits.weight_device {
        let value = |weight: u64| format!("{}:{} {}", device.major, device.minor, converted(weight));
        writes.set("io", "io.weight", device.weight.map(value));
    }
    let rates = [
        ("rbps", &limits.throttle_read_bps_device),
        ("wbps", &limits.throttle_write_bps_device),
        ("riops", &limits.throttle_read_iops_device),
        ("wiops", &limits.throttle_write_iops_device),
    ];
    for (key, devices) in rates {
        for device in devices {
            writes.set("io", "io.max", Some(format!("{}:{} {key}={}", device.major, device.minor, device.rate)));
        }
    }
}

fn unlimited(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Swap alone, of memory and swap together.
fn swap_alone(memory: Option<i64>, both: Option<i64>) -> Option<String> {
    match (memory.filter(|memory| *memory > 0), both?) {
        (_, both) if both < 0 => Some("max".to_owned()),
        (Some(memory), both) => Some((both - memory).max(0).to_string()),
        (None, both) => Some(both.to_string()),
    }
}

/// From shares of 2…262,144 to a weight of 1…10,000, as every other runtime converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::oci::config::parse;

    const ASKED: &str = r#"{ "memory": { "limit": 1000, "swap": 3000, "reservation": -1 },
        "cpu": { "shares": 1024, "quota": 50000, "cpus": "0-1" }, "pids": { "limit": -1 },
        "blockIO": { "weight": 500, "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 7 }] },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 9 }], "network": { "classID": 5 },
        "rdma": { "mlx5": { "hcaHandles": 3 } }, "unified": { "memory.high": "900" } }"#;

    fn lines(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    #[test]
    fn limits_of_v1() {
        let resources: Resources = parse(ASKED).unwrap();
        let expected = [
            "memory.limit_in_bytes=1000",
            "memory.memsw.limit_in_bytes=3000",
            "memory.soft_limit_in_bytes=-1",
            "cpu.shares=1024",
            "cpu.cfs_quota_us=50000",
            "cpuset.cpus=0-1",
            "pids.max=max",
            "blkio.weight=500",
            "blkio.throttle.read_bps_device=8:0 7",
            "hugetlb.2MB.limit_in_bytes=9",
            "net_cls.classid=5",
            "rdma.max=mlx5 hca_handle=3",
        ];
        assert_eq!(lines(&v1(&resources)), expected);
    }

    #[test]
    fn limits_of_v2() {
        let resources: Resources = parse(ASKED).unwrap();
        let expected = [
            "memory.max=1000",
            "memory.swap.max=2000",
            "memory.low=max",
            "cpu.weight=39",
            "cpu.max=50000 100000",
            "cpuset.cpus=0-1",
            "pids.max=max",
            "io.weight=default 4950",
            "io.max=8:0 rbps=7",
            "hugetlb.2MB.max=9",
            "rdma.max=mlx5 hca_handle=3",
            "memory.high=900",
        ];
        assert_eq!(lines(&v2(&resources)), expected);
    }
}
