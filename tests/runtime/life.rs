//! Running containers: exec, terminals, init, limits, what survives which death.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use stack::runtime::Error;
use stack::runtime::launch::{Mount, MountFlags, Net, Resources, Seccomp, Share, Stdio};
use stack::runtime::shim::{Adopt, Client, Event, State};
use stack::sys::process;

use crate::rig::{is_unified, own_group, spawn, with_rig};

#[test]
fn exec_runs_inside() {
    with_rig(async |rig| {
        rig.start(&rig.launch("main", "echo up; sleep 60")).await;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut process = rig.process(&[
            "sh",
            "-c",
            "hostname; id -u; cat; cat /proc/self/cgroup; grep Seccomp: /proc/self/status; exit 4",
        ]);
        process.user = "web".to_owned();
        let (input, mut feed) = std::io::pipe().unwrap();
        feed.write_all(b"fed\n").unwrap();
        drop(feed);
        let fds: Vec<OwnedFd> = vec![input.into(), writer.try_clone().unwrap().into(), writer.into()];
        let exec = rig.client.exec("main", &process, fds).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("host-main\n33\nfed\n") && text.contains(own_group()) && text.contains("Seccomp:\t2"),
            "{text}"
        );
        let event = rig.client.next_event().await.unwrap();
        let Event::ExecExited { exec_id, status } = event else { panic!("{event:?}") };
        assert_eq!((exec_id, status.code), (exec.exec_id, 4));
        let missing = rig.client.exec("main", &rig.process(&["nothing"]), Vec::new()).await;
        let Err(Error::Launch(error)) = missing else { panic!("it ran") };
        assert_eq!(error.code, 127);
        let mut lost = rig.process(&["true"]);
        lost.cwd = "/proc/self/fd/7".to_owned();
        let Err(Error::Launch(error)) = rig.client.exec("main", &lost, Vec::new()).await else { panic!("it ran") };
        assert_eq!(error.code, 126);
        assert!(matches!(rig.client.exec("other", &lost, Vec::new()).await, Err(Error::Unknown(_))));
    });
}

#[test]
fn terminals_of_containers_and_execs() {
    with_rig(async |rig| {
        let mut launch = rig.launch(
            "tty",
            "tty; stty size; read line; echo got $line; ls -l /dev/console | cut -c1; tty < /dev/console",
        );
        launch.process.tty = true;
        launch.process.size = Some((33, 77));
        rig.start(&launch).await;
        rig.wait_for_log("tty", "33 77").await;
        let master = rig.client.attach("tty").await.unwrap().unwrap();
        let mut process = rig.process(&["sh", "-c", "tty; test -t 0 && echo terminal"]);
        process.tty = true;
        let exec = rig.client.exec("tty", &process, Vec::new()).await.unwrap();
        let mut seen = Vec::new();
        let _ = std::fs::File::from(exec.master.unwrap()).read_to_end(&mut seen);
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("/dev/pts/1") && seen.contains("terminal"), "{seen}");
        std::fs::File::from(master).write_all(b"hello\n").unwrap();
        assert_eq!(rig.wait("tty").await.code, 0);
        let text = rig.log("tty", None);
        assert!(text.contains("/dev/pts/0") && text.contains("got hello") && text.contains("c\r\n"), "{text}");
    });
}

#[test]
fn init_reaps_and_forwards() {
    with_rig(async |rig| {
        let script = "trap 'echo term; exit 9' TERM; (sleep 0.1 & ) ; echo pid $$; while :; do sleep 0.05; done";
        let mut launch = rig.launch("init", script);
        launch.init = true;
        rig.start(&launch).await;
        rig.wait_for_log("init", "pid 2").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let fds =
            vec![std::fs::File::open("/dev/null").unwrap().into(), writer.try_clone().unwrap().into(), writer.into()];
        let listing = rig.process(&["sh", "-c", "grep -h State: /proc/[0-9]*/status; ls -l /proc/1/fd | wc -l"]);
        rig.client.exec("init", &listing, fds).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(!text.contains("zombie"), "{text}");
        rig.client.signal("init", libc::SIGTERM).await.unwrap();
        assert_eq!(rig.wait("init").await.code, 9);
        launch.id = "missing".to_owned();
        launch.process.args = vec!["nothing".to_owned()];
        launch.stdio = Stdio::Null;
        rig.client.create(&launch, vec![rig.root_tree()]).await.unwrap();
        let Err(Error::Launch(error)) = rig.client.start("missing").await else { panic!("it started") };
        assert_eq!(error.code, 127);
    });
}

#[test]
fn limits_hold() {
    with_rig(async |rig| {
        let (files, seen) = if is_unified() {
            ("pids.max memory.max cpu.max cpuset.cpus", "20\n33554432\n50000 100000\n0\n")
        } else {
            let files = "pids/pids.max memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpuset/cpuset.cpus";
            (files, "20\n33554432\n50000\n0\n")
        };
        let script = format!("cd /sys/fs/cgroup && cat {files}; head -c 40m /dev/zero > /dev/shm/fill; echo survived");
        let mut launch = rig.launch("limits", &script);
        launch.shm_size = 128 << 20;
        launch.cgroup.resources = Resources {
            memory: Some(32 << 20),
            pids: Some(20),
            cpu_quota: Some(50_000),
            cpuset_cpus: Some("0".to_owned()),
            ..Resources::default()
        };
        let (status, text) = rig.run(&launch).await;
        assert!(text.starts_with(seen), "{text}");
        assert!(status.oom, "{status:?} {text}");
        launch.cgroup.resources = Resources { pids: Some(6), ..Resources::default() };
        launch.process = rig.process(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo all"]);
        let (_, text) = rig.run(&launch).await;
        assert!(!text.contains("all"), "{text}");
    });
}

#[test]
fn namespaces_are_shared_and_kept() {
    with_rig(async |rig| {
        let mut first = rig.launch("first", "readlink /proc/self/ns/net; echo shared > /dev/shm/f; sleep 60");
        first.namespaces.net = Net::New;
        let created = rig.client.create(&first, vec![rig.root_tree()]).await.unwrap();
        assert!(created.netns.is_some() && process::start_time(created.pid).unwrap() == created.start_time);
        rig.client.start("first").await.unwrap();
        rig.wait_for_log("first", "net:").await;
        let mut second = rig.launch("second", "readlink /proc/self/ns/net; cat /dev/shm/f; ps | grep -c 'sleep 60'");
        second.namespaces.net = Net::Join("first".to_owned());
        second.namespaces.ipc = Share::Join("first".to_owned());
        second.namespaces.pid = Share::Join("first".to_owned());
        let (_, text) = rig.run(&second).await;
        let net = rig.log("first", None);
        assert!(text.starts_with(&format!("{net}shared\n")) && !text.ends_with("\n0\n"), "{text}");
        rig.client.kill_all("first").await.unwrap();
        assert_eq!(rig.wait("first").await.signal, Some(9));
        first.namespaces.net = Net::Kept;
        first.process = rig.process(&["readlink", "/proc/self/ns/net"]);
        let (_, text) = rig.run(&first).await;
        assert_eq!(text, format!("{net}{net}"));
    });
}

#[test]
fn frozen_and_forgotten() {
    with_rig(async |rig| {
        rig.start(&rig.launch("cold", "while :; do echo tick; sleep 0.02; done")).await;
        rig.wait_for_log("cold", "tick").await;
        rig.client.freeze("cold", true).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = rig.log("cold", None).len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(rig.log("cold", None).len(), before);
        rig.client.forget("cold").await.unwrap();
        assert!(rig.client.list().await.unwrap().is_empty());
        let mut parked = rig.launch("parked", "true");
        parked.stdio = Stdio::Null;
        rig.client.create(&parked, vec![rig.root_tree()]).await.unwrap();
        rig.client.forget("parked").await.unwrap();
    });
}

#[test]
fn stored_descriptors_come_back() {
    with_rig(async |rig| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        rig.client.store("key", vec![writer.into()]).await.unwrap();
        let other = Client::connect(rig.folder.path()).await.unwrap().unwrap();
        let taken = other.take("key").await.unwrap();
        std::fs::File::from(taken.into_iter().next().unwrap()).write_all(b"kept").unwrap();
        other.discard("key").await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        assert!(other.take("key").await.unwrap().is_empty());
    });
}

#[test]
fn long_lines_and_open_input() {
    with_rig(async |rig| {
        let mut launch = rig.launch("long", "head -c 40000 /dev/zero | tr '\\0' x; echo; cat");
        launch.stdio = Stdio::Log { path: rig.log_path("long"), max_size: 0, max_files: 1, stdin: true };
        rig.start(&launch).await;
        let input = rig.client.attach("long").await.unwrap().unwrap();
        std::fs::File::from(input).write_all(b"typed\n").unwrap();
        rig.client.close_input("long").await.unwrap();
        assert_eq!(rig.wait("long").await.code, 0);
        assert_eq!(rig.log("long", None), format!("{}\ntyped\n", "x".repeat(40000)));
    });
}

#[test]
fn a_new_shim_takes_over() {
    with_rig(async |rig| {
        // Two shims follow each other over the same folder, as with a supervisor of its own.
        process::set_subreaper().unwrap();
        let folder = rig.folder.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let first = spawn(&folder, &["--version"]);
        let mut launch =
            rig.launch("long", "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 6");
        launch.cgroup.path = format!("stack-test/{}/adopted", rig.name());
        launch.mounts = vec![Mount::Tmpfs {
            target: "/run".to_owned(),
            size: None,
            mode: 0o755,
            uid: 0,
            gid: 0,
            flags: MountFlags::default(),
        }];
        let created = first.create(&launch, vec![rig.root_tree()]).await.unwrap();
        first.start("long").await.unwrap();
        rig.wait_for_log("long", "3\n").await;
        process::signal(first.pidfd().unwrap().as_fd(), libc::SIGKILL).unwrap();
        assert!(first.next_event().await.is_none());
        assert!(Client::connect(&folder).await.unwrap().is_none());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let second = spawn(&folder, &[]);
        let adopt = Adopt {
            id: "long".to_owned(),
            pid: created.pid,
            start_time: created.start_time,
            cgroup: launch.cgroup.path.clone(),
            borrowed: false,
            stdio: launch.stdio.clone(),
            seccomp: Seccomp::Default,
            privileged: false,
        };
        second.adopt(&adopt, created.netns).await.unwrap();
        assert_eq!(second.list().await.unwrap()[0].state, State::Running);
        let stop = rig.process(&["touch", "/tmp/stop"]);
        second.exec("long", &stop, Vec::new()).await.unwrap();
        let status = loop {
            match second.next_event().await.unwrap() {
                Event::Exited { status, .. } => break status,
                Event::ExecExited { .. } | Event::Listens { .. } => {}
            }
        };
        assert_eq!(status.code, 6);
        let text = rig.log("long", None);
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
        second.forget("long").await.unwrap();
        second.shutdown().await.unwrap();
    });
}

#[test]
fn a_lost_supervisor_is_started_again() {
    with_rig(async |rig| {
        let folder = rig.folder.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let client = spawn(&folder, &["no-such-command-of-stack"]);
        let mut launch = rig.launch("lonely", "echo up; sleep 60");
        launch.cgroup.path = format!("stack-test/{}/lonely", rig.name());
        client.create(&launch, vec![rig.root_tree()]).await.unwrap();
        client.start("lonely").await.unwrap();
        drop(client);
        for _ in 0..200 {
            if std::fs::metadata(folder.join("supervisor.log")).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(folder.join("supervisor.log").exists(), "no supervisor was started");
        let again = Client::connect(&folder).await.unwrap().unwrap();
        assert_eq!(again.list().await.unwrap().len(), 1);
        again.forget("lonely").await.unwrap();
        again.shutdown().await.unwrap();
    });
}

#[test]
fn a_private_shim_takes_its_containers_along() {
    with_rig(async |rig| {
        let folder = rig.folder.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let client = spawn(&folder, &[]);
        let mut launch = rig.launch("step", "echo up; sleep 60");
        launch.cgroup.path = format!("stack-test/{}/step", rig.name());
        let created = client.create(&launch, vec![rig.root_tree()]).await.unwrap();
        client.start("step").await.unwrap();
        drop(client);
        for _ in 0..500 {
            if process::signal(created.pidfd.as_fd(), 0).is_err() && !folder.join("shim.sock").exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the container outlived its shim");
    });
}
