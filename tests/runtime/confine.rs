//! What a container may not do or see.

use std::collections::BTreeMap;

use stack::runtime::Error;
use stack::runtime::launch::{Mount, MountFlags, Net, Rlimit, Seccomp};

use crate::rig::{bind, own_group, tree, with_rig};

#[test]
fn the_default_posture() {
    with_rig(async |rig| {
        let script = "grep -E '^(CapPrm|CapEff|CapBnd|CapInh|CapAmb|Seccomp|NoNewPrivs):' /proc/self/status; \
            ls /proc/self/fd | wc -l; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
            cat /proc/sys/net/ipv4/ping_group_range; wc -c < /proc/keys; ls /sys/firmware | wc -l; cat /proc/self/cgroup";
        let (status, text) = rig.run(&rig.launch("posture", script)).await;
        assert_eq!(status.code, 0, "{text}");
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t00000000800405fb",
            "CapEff:\t00000000800405fb",
            "CapBnd:\t00000000800405fb",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t0",
            "Seccomp:\t2",
            "\n4\n0\n0\t2147483647\n0\n0\n",
            own_group(),
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
    });
}

#[test]
fn what_is_refused() {
    with_rig(async |rig| {
        let commands = [
            "echo 1 > /proc/sys/kernel/sysrq",
            "echo x > /proc/sys/kernel/core_pattern",
            "echo h > /proc/sysrq-trigger",
            "mknod /tmp/disk b 254 0",
            "mount -t tmpfs none /tmp",
            "unshare -m true",
            "mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x",
            "mkdir /sys/x",
            "hostname other",
            "dd if=/dev/mem bs=1 count=1",
        ];
        for command in commands {
            let (status, text) = rig.run(&rig.launch("refused", command)).await;
            assert_ne!(status.code, 0, "{command}: {text}");
        }
    });
}

#[test]
fn users_and_limits() {
    with_rig(async |rig| {
        let mut launch = rig.launch(
            "user",
            "id; echo $HOME; grep CapEff /proc/self/status; ulimit -n; umask; echo w > /dev/stdout; pwd",
        );
        launch.process.user = "web".to_owned();
        launch.process.groups = vec!["77".to_owned()];
        launch.process.rlimits = vec![Rlimit { name: "nofile".to_owned(), soft: 100, hard: 200 }];
        launch.process.umask = Some(0o027);
        launch.process.cwd = "/srv/made".to_owned();
        let (status, text) = rig.run(&launch).await;
        assert_eq!(status.code, 0, "{text}");
        let expected =
            "uid=33(web) gid=33(web) groups=4(adm),77\n/tmp\nCapEff:\t0000000000000000\n100\n0027\nw\n/srv/made\n";
        assert!(text.contains(expected) || text.contains(&expected.replace("groups=", "groups=33(web),")), "{text}");
        launch.process.user = "4294967296".to_owned();
        launch.id = "bad".to_owned();
        rig.client.create(&launch, vec![rig.root_tree()]).await.unwrap();
        let Err(Error::Launch(error)) = rig.client.start("bad").await else { panic!("it started") };
        assert_eq!(error.code, 125, "{error}");
    });
}

#[test]
fn mounts_and_a_read_only_root() {
    with_rig(async |rig| {
        let volume = rig.folder.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("a"), "volume\n").unwrap();
        std::os::unix::fs::symlink("/etc/real", rig.root().join("etc/link")).unwrap();
        let script = "cat /data/deep/a /etc/link /run/secret; stat -c %a:%u:%g /run/secret; touch /data/deep/x; \
            touch /x; touch /scratch/x && echo scratch; stat -c %a /scratch; ls /dev | tr '\\n' ' '; df -k /dev/shm | tail -1";
        let mut launch = rig.launch("mounts", script);
        launch.read_only = true;
        let file = |target: &str, content: &[u8]| Mount::File {
            target: target.to_owned(),
            content: content.to_vec(),
            mode: 0o400,
            uid: 5,
            gid: 6,
            read_only: false,
        };
        launch.mounts = vec![
            tree(1, "/data/deep", MountFlags { read_only: true, ..MountFlags::default() }),
            file("/etc/link", b"linked\n"),
            file("/run/secret", b"secret\n"),
            Mount::Tmpfs {
                target: "/scratch".to_owned(),
                size: Some(1 << 20),
                mode: 0o1770,
                uid: 0,
                gid: 0,
                flags: MountFlags::default(),
            },
        ];
        let (_, text) = rig.run_with(&launch, vec![bind(&volume)]).await;
        let expected = "volume\nlinked\nsecret\n400:5:6\n";
        assert!(text.contains(expected), "{text}");
        assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
        assert!(text.contains("scratch\n1770\n"), "{text}");
        assert!(
            text.contains("core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
            "{text}"
        );
        assert!(rig.root().join("etc/real").exists() && !std::path::Path::new("/etc/real").exists());
    });
}

#[test]
fn only_own_parameters_are_set() {
    with_rig(async |rig| {
        let mut launch = rig.launch("sysctl", "cat /proc/sys/net/ipv4/ip_default_ttl");
        launch.sysctls = BTreeMap::from([("net.ipv4.ip_default_ttl".to_owned(), "33".to_owned())]);
        assert_eq!(rig.run(&launch).await.1, "33\n");
        for (name, net) in [("kernel.panic", Net::None), ("net.ipv4.ip_forward", Net::Host)] {
            launch.sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            launch.namespaces.net = net;
            rig.client.create(&launch, vec![rig.root_tree()]).await.unwrap();
            let Err(Error::Launch(error)) = rig.client.start("sysctl").await else { panic!("{name} was set") };
            assert!(error.message.contains(name), "{error}");
        }
    });
}

#[test]
fn privileged_and_unconfined() {
    with_rig(async |rig| {
        let mut launch =
            rig.launch("free", "grep Seccomp: /proc/self/status; mount -t tmpfs none /tmp && echo mounted");
        launch.privileged = true;
        launch.seccomp = Seccomp::Unconfined;
        launch.process.caps = stack::runtime::caps::effective(&[], &[], true).unwrap();
        assert_eq!(rig.run(&launch).await.1, "Seccomp:\t0\nmounted\n");
        let mut strict = rig.launch("strict", "grep -E 'NoNew|Seccomp:|CapBnd' /proc/self/status");
        strict.process.no_new_privileges = true;
        strict.process.caps.clear();
        let expected = "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert_eq!(rig.run(&strict).await.1, expected);
    });
}
