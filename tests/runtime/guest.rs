//! Containers in user namespaces.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use stack::runtime::device::{Device, DeviceKind};
use stack::runtime::launch::{Ids, Launch, MountFlags, Namespaces, Net, Rlimit, Share};
use stack::sys::{mount, userns};

use crate::rig::{Rig, bind, tree, with_rig};

const IDS: Ids = Ids { base: 1_900_000_000, count: 65_536 };

/// A start in a user namespace of a root whose ids are mapped.
fn guest(rig: &Rig, id: &str, script: &str) -> Launch {
    Launch { ids: Some(IDS), ..rig.launch(id, script) }
}

fn mapped(tree: std::os::fd::OwnedFd) -> std::os::fd::OwnedFd {
    let extent = [IDS.extent()];
    let namespace = userns::make(&extent, &extent).unwrap();
    mount::map_ids(tree.as_fd(), namespace.as_fd(), false).unwrap();
    tree
}

#[test]
fn root_inside_is_nobody_outside() {
    with_rig(async |rig| {
        let script = "id -u; cat /proc/self/uid_map /proc/sys/net/ipv4/ping_group_range; \
            ls -ln /dev/null /dev/odd /dev/x/own /other | tr -s ' ' | cut -d' ' -f1,3,4; echo again > /dev/stdout; \
            touch /tmp/mine; chown 999:33 /tmp/mine; ulimit -n; cat /proc/self/oom_score_adj; \
            mount -t tmpfs none /tmp || echo refused; echo 1 > /proc/sys/kernel/sysrq; \
            test -c /dev/null && echo x > /dev/null && echo written";
        let mut launch = guest(rig, "nobody", script);
        launch.process.rlimits = vec![Rlimit { name: "nofile".to_owned(), soft: 512, hard: 700 }];
        launch.process.oom_score_adj = Some(7);
        let device = |path: &str| Device {
            path: path.to_owned(),
            kind: DeviceKind::Char,
            major: 1,
            minor: 3,
            mode: 0o640,
            uid: 0,
            gid: 44,
            permissions: "rwm".to_owned(),
        };
        launch.devices = vec![device("/dev/odd"), device("/other"), device("/dev/x/own")];
        rig.start_tree(&launch, mapped(rig.root_tree())).await;
        let status = rig.wait("nobody").await;
        let text = rig.log("nobody", None);
        assert_eq!(status.code, 0, "{text}");
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let joined = words.join(" ");
        assert!(joined.starts_with("0 0 1900000000 65536 0 65535 crw-rw-rw- 0 0 crw-r----- 0 44"), "{joined}");
        assert!(joined.contains("again 512 7"), "{joined}");
        // What it says of its failures may come before or after.
        assert!(words.contains(&"refused") && words.contains(&"written"), "{joined}");
        let mine = std::fs::metadata(rig.root().join("tmp/mine")).unwrap();
        assert_eq!((mine.uid(), mine.gid()), (999, 33));
    });
}

#[test]
fn execs_joiners_and_restarts_are_in_the_same_namespace() {
    with_rig(async |rig| {
        let first = Launch {
            namespaces: Namespaces { net: Net::New, ..Namespaces::default() },
            ..guest(rig, "first", "readlink /proc/self/ns/user; echo up; exec sleep 100")
        };
        rig.start_tree(&first, mapped(rig.root_tree())).await;
        rig.wait_for_log("first", "up").await;
        let own = rig.log("first", None).lines().next().unwrap().to_owned();
        let second = Launch {
            namespaces: Namespaces {
                net: Net::Join("first".to_owned()),
                pid: Share::Join("first".to_owned()),
                ipc: Share::Join("first".to_owned()),
                ..Namespaces::default()
            },
            ..guest(
                rig,
                "second",
                "readlink /proc/self/ns/user; id -u; ls /sys/class/net; cat /proc/1/comm; df /dev/shm | tail -1",
            )
        };
        rig.start_tree(&second, mapped(rig.root_tree())).await;
        assert_eq!(rig.wait("second").await.code, 0);
        let text = rig.log("second", None);
        assert!(text.starts_with(&format!("{own}\n0\n")) && text.contains("sleep") && text.contains("lo"), "{text}");
        let script = "test $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) && test $(id -u) = 0 && \
            touch /tmp/exec && chown 7 /tmp/exec";
        rig.exec_ok("first", script).await;
        assert_eq!(std::fs::metadata(rig.root().join("tmp/exec")).unwrap().uid(), 7);
        rig.client.kill_all("first").await.unwrap();
        rig.wait("first").await;
        let again = Launch {
            namespaces: Namespaces { net: Net::Kept, ..Namespaces::default() },
            ..guest(
                rig,
                "first",
                "readlink /proc/self/ns/user; ls /sys/class/net; ping -c1 127.0.0.1 >/dev/null; id -u",
            )
        };
        rig.start_tree(&again, mapped(rig.root_tree())).await;
        assert_eq!(rig.wait("first").await.code, 0);
        assert!(rig.log("first", None).contains(&own), "{}", rig.log("first", None));
    });
}

#[test]
fn a_mapped_volume_stores_what_is_inside() {
    with_rig(async |rig| {
        let folder = rig.folder.path().join("volume");
        std::fs::create_dir(&folder).unwrap();
        let mut launch = guest(rig, "volume", "touch /data/a && chown 999:998 /data/a && ls -n /data");
        launch.mounts.push(tree(1, "/data", MountFlags::default()));
        let fds = vec![mapped(rig.root_tree()), mapped(bind(&folder))];
        rig.client.create(&launch, fds).await.unwrap();
        rig.client.start("volume").await.unwrap();
        assert_eq!(rig.wait("volume").await.code, 0, "{}", rig.log("volume", None));
        let made = std::fs::metadata(folder.join("a")).unwrap();
        assert_eq!((made.uid(), made.gid()), (999, 998));
    });
}
