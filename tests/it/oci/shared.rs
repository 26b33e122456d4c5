//! Namespaces: new ones, others' by path, time and user namespaces.

use serde_json::json;

use super::bundle::Bundle;

fn namespace(pid: i64, name: &str) -> String {
    fs_err::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string()
}

#[test]
fn namespaces_by_path() {
    let first = Bundle::new("exec sleep 1000");
    first.create().ok();
    first.start().ok();
    let pid = first.pid();
    let mut second = Bundle::new("exec sleep 1000");
    let path = |name: &str| format!("/proc/{pid}/ns/{name}");
    second.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "pid", "path": path("pid") }, { "type": "network", "path": path("net") },
            { "type": "ipc", "path": path("ipc") }, { "type": "uts", "path": path("uts") }]),
    );
    second.create().ok();
    for name in ["pid", "net", "ipc", "uts"] {
        assert_eq!(namespace(second.pid(), name), namespace(pid, name), "{name}");
    }
    assert_ne!(namespace(second.pid(), "mnt"), namespace(pid, "mnt"));
    second.start().ok();
    second.kill("KILL").ok();
    second.delete().ok();
    assert_eq!(first.status(), "running", "only the other one ended");
    second.set("/linux/namespaces/2/path", json!(path("pid")));
    second.create().fails("no namespace of type net");
}

#[test]
fn a_time_namespace() {
    let mut bundle = Bundle::new("cat /proc/self/timens_offsets | tr -s ' '; cut -d. -f1 /proc/uptime");
    bundle
        .push("/linux/namespaces", json!({ "type": "time" }))
        .set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000_000 } }));
    let out = bundle.run().ok().out;
    assert!(out.contains("boottime 1000000000 0"), "{out}");
    let uptime: u64 = out.lines().last().unwrap().parse().unwrap();
    assert!(uptime > 1_000_000_000, "{out}");
}

#[test]
fn a_user_namespace() {
    let mut bundle = Bundle::new(
        "id -u; tr -s ' ' < /proc/self/uid_map; echo x > /dev/null && touch /data/x && echo fine; hostname",
    );
    let ids = json!([{ "containerID": 0, "hostID": 1_900_000_000, "size": 65536 }]);
    bundle
        .push("/linux/namespaces", json!({ "type": "user" }))
        .set("/linux/uidMappings", ids.clone())
        .set("/linux/gidMappings", ids)
        .set("/hostname", json!("guest"));
    let owner = Some(1_900_000_000);
    for name in ["rootfs", "rootfs/data", "rootfs/dev", "rootfs/proc"] {
        std::os::unix::fs::chown(bundle.path(name), owner, owner).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs_err::set_permissions(bundle.folder.path(), mode).unwrap();
    let out = bundle.run().ok().out;
    assert_eq!(out, "0\n 0 1900000000 65536\nfine\nguest\n");
    let metadata = fs_err::metadata(bundle.path("rootfs/data/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 1_900_000_000);
}

#[test]
fn the_network_of_the_host() {
    let mut bundle = Bundle::new("true");
    bundle.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }]));
    bundle.create().ok();
    assert_eq!(namespace(bundle.pid(), "net"), namespace(i64::from(std::process::id()), "net"));
    assert_eq!(namespace(bundle.pid(), "uts"), namespace(i64::from(std::process::id()), "uts"));
}
