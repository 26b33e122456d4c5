//! Every limit, in control groups of either version, as the container itself reads them.

use stack::runtime::device::{Device, DeviceKind, DeviceRule};
use stack::runtime::launch::Resources;
use stack::runtime::{caps, shim::Event};

use crate::rig::{Rig, is_unified, with_rig};

/// Sets limits, and expects these contents of files: (v1 controller, v1 file, v2 file, v1 content, v2 content). A file
/// without a name is not looked at.
async fn expect(rig: &Rig, resources: &Resources, files: &[(&str, &str, &str, &str, &str)]) {
    for (number, (controller, v1, v2, v1_content, v2_content)) in files.iter().enumerate() {
        let (path, content) = if is_unified() {
            (format!("/sys/fs/cgroup/{v2}"), v2_content)
        } else {
            (format!("/sys/fs/cgroup/{controller}/{v1}"), v1_content)
        };
        if path.ends_with('/') {
            continue;
        }
        let mut launch = rig.launch(&format!("{number}{v1}{v2}"), &format!("cat {path}"));
        launch.cgroup.resources = resources.clone();
        let (status, text) = rig.run(&launch).await;
        assert_eq!((status.code, text.trim()), (0, *content), "{path}");
    }
}

#[test]
fn memory() {
    with_rig(async |rig| {
        let resources =
            Resources { memory: Some(64 << 20), memory_reservation: Some(32 << 20), ..Resources::default() };
        let files = [
            ("memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432"),
            ("memory", "", "memory.swap.max", "", "67108864"),
        ];
        expect(rig, &resources, &files).await;
        let resources = Resources { swappiness: Some(10), oom_kill_disable: true, ..Resources::default() };
        expect(rig, &resources, &[("memory", "memory.swappiness", "", "10", "")]).await;
    });
}

#[test]
fn processors_and_processes() {
    with_rig(async |rig| {
        let resources = Resources {
            cpu_quota: Some(25_000),
            cpu_period: Some(50_000),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            pids: Some(33),
            ..Resources::default()
        };
        let files = [
            ("cpu", "cpu.cfs_quota_us", "cpu.max", "25000", "25000 50000"),
            ("cpu", "cpu.cfs_period_us", "", "50000", ""),
            ("cpu", "cpu.shares", "cpu.weight", "512", "20"),
            ("cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"),
            ("cpuset", "cpuset.mems", "cpuset.mems", "0", "0"),
            ("pids", "pids.max", "pids.max", "33", "33"),
        ];
        expect(rig, &resources, &files).await;
        let unlimited = Resources { pids: Some(-1), ..Resources::default() };
        expect(rig, &unlimited, &[("pids", "pids.max", "pids.max", "max", "max")]).await;
    });
}

#[test]
fn devices_pass_only_as_allowed() {
    with_rig(async |rig| {
        let script = |path: &str| format!("cat < {path} > /dev/null; echo x > {path}; echo y > /dev/null && echo null");
        let denied = |text: &str| text.matches("Operation not permitted").count();
        // Of /dev/net/tun's number, which may be there or not; what matters is who says no.
        let mut launch = rig.launch("one", &script("/dev/probe"));
        launch.devices = vec![Device {
            path: "/dev/probe".to_owned(),
            kind: DeviceKind::Char,
            major: 10,
            minor: 200,
            mode: 0o666,
            uid: 0,
            gid: 0,
            permissions: "r".to_owned(),
        }];
        let (_, text) = rig.run(&launch).await;
        assert!(denied(&text) == 1 && text.contains("null"), "{text}");
        launch.id = "both".to_owned();
        launch.process = rig.process(&["sh", "-c", &script("/dev/probe")]);
        launch.cgroup.device_rules = vec![DeviceRule::parse("c 10:* w").unwrap()];
        launch.stdio = rig.launch("both", "").stdio;
        let (_, text) = rig.run(&launch).await;
        assert!(denied(&text) == 0 && text.contains("null"), "{text}");
        // Who may make nodes can still not open them.
        let mut launch = rig.launch("made", &format!("mknod /tmp/probe c 10 200 && {}", script("/tmp/probe")));
        launch.process.caps = caps::effective(&["MKNOD".to_owned()], &[], false).unwrap();
        let (_, text) = rig.run(&launch).await;
        assert!(denied(&text) == 2 && text.contains("null"), "{text}");
    });
}

#[test]
fn what_is_frozen_can_be_killed() {
    with_rig(async |rig| {
        for (id, whole) in [("signalled", false), ("whole", true)] {
            rig.start(&rig.launch(id, "sleep 100 & echo up; wait")).await;
            rig.wait_for_log(id, "up").await;
            rig.client.freeze(id, true).await.unwrap();
            if whole {
                rig.client.kill_all(id).await.unwrap();
            } else {
                rig.client.signal(id, libc::SIGKILL).await.unwrap();
            }
            assert_eq!(rig.wait(id).await.signal, Some(libc::SIGKILL));
        }
    });
}

#[test]
fn an_exec_follows_processes_into_inner_groups() {
    with_rig(async |rig| {
        if !is_unified() {
            println!("only groups of the unified hierarchy take no processes beside inner groups: nothing to see here");
            return;
        }
        let script = "mkdir /sys/fs/cgroup/inner && echo 1 > /sys/fs/cgroup/inner/cgroup.procs && \
            echo +pids > /sys/fs/cgroup/cgroup.subtree_control && echo moved; sleep 100";
        let mut launch = rig.launch("outer", script);
        launch.privileged = true;
        launch.process.caps = caps::effective(&[], &[], true).unwrap();
        rig.start(&launch).await;
        rig.wait_for_log("outer", "moved").await;
        let look = rig.process(&["grep", "-q", "inner", "/proc/self/cgroup"]);
        rig.client.exec("outer", &look, Vec::new()).await.unwrap();
        let Some(Event::ExecExited { status, .. }) = rig.client.next_event().await else { panic!("no end") };
        assert_eq!(status.code, 0);
    });
}
