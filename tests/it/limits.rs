//! Limits: each reaches its file, in either version of control groups, at the start and by `update`; what a machine
//! can't hold is said.

use std::path::{Path, PathBuf};

use crate::sandbox::{Ran, STACK, Sandbox};

fn one(settings: &str) -> (Sandbox, Ran) {
    let sandbox = Sandbox::with(&format!(
        "services: {{ app: {{ image: stack/host, init: true, command: [\"sleep\", \"infinity\"], {settings} }} }}"
    ));
    let ran = sandbox.stack("up -d").ok();
    (sandbox, ran)
}

/// The folder of a process's group: of a v1 controller, or else the unified one.
fn group(pid: i32, controller: &str) -> (PathBuf, bool) {
    let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut unified = None;
    for line in groups.lines() {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if controllers.split(',').any(|one| one == controller) {
            return (PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}")), true);
        }
        if controllers.is_empty() {
            unified = Some(PathBuf::from(format!("/sys/fs/cgroup{path}")));
        }
    }
    (unified.expect("a unified hierarchy where v1 has none"), false)
}

/// What a limit is: the file of v1, or that of v2.
fn limit(sandbox: &Sandbox, controller: &str, v1: &str, v2: &str) -> String {
    let (folder, is_v1) = group(sandbox.pid("app"), controller);
    fs_err::read_to_string(folder.join(if is_v1 { v1 } else { v2 })).unwrap().trim().to_owned()
}

fn is_v1(controller: &str) -> bool {
    Path::new("/sys/fs/cgroup").join(controller).join("tasks").exists()
}

fn block_device() -> &'static str {
    let devices = ["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"];
    devices.into_iter().find(|device| Path::new(device).exists()).expect("a block device")
}

#[test]
fn memory_swap_and_reservation() {
    let (sandbox, _) = one("mem_limit: 64m, memswap_limit: 96m, mem_reservation: 16m");
    let mib = |count: u64| (count << 20).to_string();
    assert_eq!(limit(&sandbox, "memory", "memory.limit_in_bytes", "memory.max"), mib(64));
    assert_eq!(limit(&sandbox, "memory", "memory.soft_limit_in_bytes", "memory.low"), mib(16));
    let swap = limit(&sandbox, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(swap, if is_v1("memory") { mib(96) } else { mib(32) });

    // What grows beyond what memory and swap were together, and what shrinks again.
    sandbox.stack("update --memory 128m --memory-swap 256m app").ok();
    assert_eq!(limit(&sandbox, "memory", "memory.limit_in_bytes", "memory.max"), mib(128));
    sandbox.stack("update -m 32m --memory-swap 32m --memory-reservation 8m app").ok();
    assert_eq!(limit(&sandbox, "memory", "memory.limit_in_bytes", "memory.max"), mib(32));
    assert_eq!(limit(&sandbox, "memory", "memory.soft_limit_in_bytes", "memory.low"), mib(8));
    sandbox.stack("update --memory 64m app").fails(&["memswap_limit", "less than"]);
    assert_eq!(limit(&sandbox, "memory", "memory.limit_in_bytes", "memory.max"), mib(32));
}

#[test]
fn swap_without_memory_limits_nothing() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, command: [\"true\"], memswap_limit: 96m } }");
    sandbox.stack("up -d").fails(&["memswap_limit", "mem_limit"]);
}

#[test]
fn settings_of_the_first_version_work_or_are_said_to_be_lost() {
    let (sandbox, ran) = one("mem_limit: 64m, mem_swappiness: 7, oom_kill_disable: true");
    if is_v1("memory") {
        assert_eq!(limit(&sandbox, "memory", "memory.swappiness", ""), "7");
        assert!(limit(&sandbox, "memory", "memory.oom_control", "").contains("oom_kill_disable 1"));
        assert!(!ran.err.contains("no effect"), "{ran:?}");
    } else {
        assert!(ran.err.contains("mem_swappiness has no effect"), "{ran:?}");
        assert!(ran.err.contains("oom_kill_disable has no effect"), "{ran:?}");
    }
}

#[test]
fn processors_by_time_weight_and_number() {
    let (sandbox, _) = one("cpus: 0.5, cpu_period: 50000, cpu_shares: 512, cpuset: \"0\"");
    let quota = |sandbox: &Sandbox| {
        if is_v1("cpu") {
            let period = limit(sandbox, "cpu", "cpu.cfs_period_us", "");
            format!("{} {period}", limit(sandbox, "cpu", "cpu.cfs_quota_us", ""))
        } else {
            limit(sandbox, "cpu", "", "cpu.max")
        }
    };
    assert_eq!(quota(&sandbox), "25000 50000", "half a processor, whatever the period");
    assert_eq!(limit(&sandbox, "cpu", "cpu.shares", "cpu.weight"), if is_v1("cpu") { "512" } else { "20" });
    assert_eq!(limit(&sandbox, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(sandbox.inside("app", "grep Cpus_allowed_list /proc/self/status | cut -f2"), "0");

    sandbox.stack("update --cpus 0.25 --cpu-shares 2048 app").ok();
    assert_eq!(quota(&sandbox), "12500 50000");
    assert_eq!(limit(&sandbox, "cpu", "cpu.shares", "cpu.weight"), if is_v1("cpu") { "2048" } else { "79" });
    sandbox.stack("update --cpu-quota 30000 --cpu-period 100000 app").ok();
    assert_eq!(quota(&sandbox), "30000 100000");
    sandbox.stack("update --cpu-quota -1 app").ok();
    let unlimited = if is_v1("cpu") { "-1 100000" } else { "max 100000" };
    assert_eq!(quota(&sandbox), unlimited);
}

#[test]
fn a_running_container_gets_a_group_that_it_had_not() {
    let (sandbox, _) = one("");
    sandbox.stack("update --cpuset-cpus 0 --pids-limit 77 app").ok();
    assert_eq!(limit(&sandbox, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(limit(&sandbox, "pids", "pids.max", "pids.max"), "77");
    let allowed = fs_err::read_to_string(format!("/proc/{}/status", sandbox.pid("app"))).unwrap();
    assert!(allowed.contains("Cpus_allowed_list:\t0\n"), "{allowed}");
    // What runs there later is held, too.
    assert_eq!(sandbox.inside("app", "grep Cpus_allowed_list /proc/self/status | cut -f2"), "0");
}

#[test]
fn an_update_outlives_a_restart_and_is_no_reason_to_recreate() {
    let (sandbox, _) = one("pids_limit: 50");
    let ids = sandbox.ids("app");
    assert_eq!(
        sandbox.stack("update --pids-limit 60 --restart always app").ok().out.trim(),
        sandbox.field("app", "Name")
    );
    assert_eq!(limit(&sandbox, "pids", "pids.max", "pids.max"), "60");
    sandbox.stack("restart -t 0 app").ok();
    assert_eq!(limit(&sandbox, "pids", "pids.max", "pids.max"), "60");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.ids("app"), ids);
    assert_eq!(limit(&sandbox, "pids", "pids.max", "pids.max"), "60");
    sandbox.stack("up -d --force-recreate -t 0").ok();
    assert_eq!(limit(&sandbox, "pids", "pids.max", "pids.max"), "50");
    sandbox.stack("update app").fails(&["nothing to update"]);
    sandbox.stack("update --pids-limit 5 nobody").fails(&["nobody"]);
}

#[test]
fn block_devices_are_throttled() {
    let device = block_device();
    let (sandbox, ran) = one(&format!(
        "blkio_config: {{ weight: 300, device_read_bps: [{{ path: {device}, rate: 2mb }}], \
         device_write_iops: [{{ path: {device}, rate: 120 }}] }}"
    ));
    let rdev = std::os::linux::fs::MetadataExt::st_rdev(&fs_err::metadata(device).unwrap());
    let number = format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let (folder, v1) = group(sandbox.pid("app"), "blkio");
    let read = |file: &str| fs_err::read_to_string(folder.join(file)).unwrap();
    if v1 {
        assert_eq!(read("blkio.throttle.read_bps_device").trim(), format!("{number} {}", 2 << 20));
        assert_eq!(read("blkio.throttle.write_iops_device").trim(), format!("{number} 120"));
    } else {
        let max = read("io.max");
        assert!(max.contains(&format!("{number} rbps={} wbps=max riops=max wiops=120", 2 << 20)), "{max}");
    }
    let weights = ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"];
    match weights.into_iter().find(|file| folder.join(file).exists()) {
        None => assert!(ran.err.contains("blkio_config.weight has no effect"), "{ran:?}"),
        Some("io.weight") => assert!(read("io.weight").contains("default 2930")),
        Some(file) => assert!(read(file).contains("300")),
    }
}

#[test]
fn a_block_limit_of_no_device_is_refused() {
    let sandbox = Sandbox::with(
        "services: { app: { image: stack/host, command: [\"true\"], \
         blkio_config: { device_read_bps: [{ path: /etc/passwd, rate: 1mb }] } } }",
    );
    sandbox.stack("up -d").fails(&["device_read_bps", "/etc/passwd", "not a device"]);
}

#[test]
fn a_group_of_somebody_else_stays() {
    let name = format!("stack-it-parent-{}", std::process::id());
    let folders = || {
        let root = Path::new("/sys/fs/cgroup");
        let all =
            fs_err::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join(&name)).chain([root.join(&name)]);
        all.filter(|folder| folder.is_dir()).collect::<Vec<_>>()
    };
    let (sandbox, _) = one(&format!("cgroup_parent: /{name}/inner, pids_limit: 9"));
    let (folder, _) = group(sandbox.pid("app"), "pids");
    let id = sandbox.stack("ps -q --no-trunc app").ok().out.trim().to_owned();
    assert!(folder.ends_with(format!("{name}/inner/{id}")), "{}", folder.display());
    assert_eq!(fs_err::read_to_string(folder.join("pids.max")).unwrap().trim(), "9");
    sandbox.stack("down -t 0").ok();
    assert!(!folder.exists());
    assert!(!folders().is_empty(), "the parent is not ours to remove");
    for folder in folders() {
        fs_err::remove_dir(folder.join("inner")).unwrap();
        fs_err::remove_dir(folder).unwrap();
    }
}

#[test]
fn a_caller_with_a_real_time_priority_keeps_it_for_itself() {
    let sandbox = Sandbox::with(
        "services: { app: { image: stack/host, init: true, command: [\"sleep\", \"infinity\"], cpu_shares: 512 } }",
    );
    sandbox.shell(&[("STACK", STACK)], "chrt -f 1 $STACK up -d").ok();
    assert_eq!(sandbox.inside("app", "chrt -p $$ | head -1 | grep -o SCHED_.*"), "SCHED_OTHER");
}

#[test]
fn time_for_real_time_processes() {
    let (sandbox, ran) = one("cpu_rt_runtime: 1000, cpu_rt_period: 1000000, cap_add: [SYS_NICE]");
    let (folder, v1) = group(sandbox.pid("app"), "cpu");
    if v1 && folder.join("cpu.rt_runtime_us").exists() {
        assert_eq!(limit(&sandbox, "cpu", "cpu.rt_runtime_us", ""), "1000");
        assert_eq!(sandbox.inside("app", "chrt -f 1 echo in time"), "in time");
    } else {
        assert!(ran.err.contains("cpu_rt_runtime has no effect"), "{ran:?}");
    }
}
