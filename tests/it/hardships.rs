//! Full disks, many commands at once, interrupts, want of memory, and the same again and again.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::poll::until_true;
use crate::sandbox::{STACK, Sandbox, alive};

const PAIR: &str = r#"
services:
  app: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: [db], ports: ["127.0.0.1:18080:80"] }
  db: { image: stack/host, init: true, command: ["sleep", "infinity"], volumes: ["data:/data", "/anonymous"] }
volumes: { data: {} }
"#;

/// The disk is full for one write after the other: each time `up` says so, nothing is broken, and the next one works.
#[test]
fn a_full_disk_is_named_and_forgiven() {
    is_named_and_forgiven("err", "No space left on device");
}

/// The same where no more files may be opened.
#[test]
fn too_many_open_files_are_named_and_forgiven() {
    is_named_and_forgiven("files", "Too many open files");
}

fn is_named_and_forgiven(fault: &str, named: &str) {
    let sandbox = Sandbox::with(PAIR);
    let mut failed = 0;
    for point in (1..).step_by(5) {
        let ran = sandbox.stack_env(&[("STACK_FAULT", &format!("{fault}@{point}"))], "up -d");
        if ran.code != 0 {
            failed += 1;
            assert!(ran.err.contains(named), "point {point}: {ran}");
        }
        let again = sandbox.stack_env(&[("STACK_FAULT", "off")], "up -d");
        assert_eq!(again.code, 0, "point {point}: {again}");
        assert_eq!(sandbox.ps().iter().filter(|row| row["State"] == "running").count(), 2, "point {point}");
        sandbox.stack("down -v").ok();
        let left = sandbox.left();
        assert!(left.is_empty(), "point {point}: {}", left.join("\n"));
        if ran.code == 0 && point > 60 {
            break;
        }
    }
    assert!(failed >= 5, "{failed} of the writes failed");
}

/// All state on a small file system that a volume's data fills up.
#[test]
fn a_root_without_room_works_again_when_there_is_some() {
    let sandbox = Sandbox::with(PAIR);
    let root = sandbox.root();
    fs_err::create_dir_all(&root).unwrap();
    let mount = |words: &[&str]| assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    let root = root.to_str().unwrap();
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", root]);
    let ballast = std::path::Path::new(root).join("ballast");
    fs_err::write(&ballast, vec![1; 8 << 20]).unwrap_err();
    sandbox.stack("up -d").fails(&["No space left on device"]);
    fs_err::remove_file(&ballast).unwrap();
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("app", "State"), "running");
    sandbox.stack("down -v").ok();
    mount(&["umount", "-l", root]);
}

/// A supervisor, and then a command, that really may open no more files than it has.
#[test]
fn a_limit_of_open_files_is_named_and_forgiven() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d").ok();
    let [supervisor] = sandbox.processes("__supervisor")[..] else { panic!("one supervisor") };
    let limit = |soft: usize| {
        let words = ["--pid", &supervisor.to_string(), &format!("--nofile={soft}:")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    };
    let used = fs_err::read_dir(format!("/proc/{supervisor}/fd")).unwrap().count();
    let mut failed = 0;
    for less in [0, 1, 2, 3, 4, 5, 6, 8] {
        limit(used - less);
        let ran = sandbox.stack("up -d --force-recreate");
        if ran.code != 0 {
            failed += 1;
            assert!(ran.err.contains("Too many open files"), "{less} files less: {ran}");
        }
        limit(4096);
        let again = sandbox.stack("up -d");
        assert_eq!(again.code, 0, "after {less} files less: {again}");
        assert_eq!(sandbox.ps().iter().filter(|row| row["State"] == "running").count(), 2, "{less} files less");
        assert_eq!(sandbox.stack("plan --detailed-exitcode").code, 0, "{less} files less");
    }
    assert!(failed >= 5, "{failed} failed");
    let mut failed = 0;
    for files in 4..20 {
        let ran = sandbox.shell(&[("STACK", STACK)], &format!("ulimit -n {files}; exec $STACK up -d"));
        failed += usize::from(ran.code != 0);
        assert!(ran.code == 0 || ran.err.contains("open files"), "a command with {files} files: {ran}");
    }
    assert!(failed >= 3, "{failed} failed");
    sandbox.stack("down -v").ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn ten_commands_at_once_take_turns() {
    let sandbox = Sandbox::with(PAIR);
    let words = ["up -d", "down", "up -d", "up -d", "down -v", "up -d", "stop", "up -d", "down", "up -d"];
    let running: Vec<_> = words.iter().map(|words| sandbox.start(words)).collect();
    for (ran, words) in running.into_iter().map(crate::sandbox::Running::finish).zip(words) {
        let broken_off = ran.code == 130 && ran.err.contains("interrupted by another command");
        assert!(ran.code == 0 || broken_off, "{words}: {ran}");
    }
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.stack("plan --detailed-exitcode").code, 0);
    assert_eq!(sandbox.ps().iter().filter(|row| row["State"] == "running").count(), 2);
    sandbox.stack("down -v").ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn an_interrupted_up_is_resumed() {
    let sandbox = Sandbox::with(
        r#"
services:
  app: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: { slow: { condition: service_healthy } } }
  slow:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    volumes: ["data:/data"]
    healthcheck: { test: ["CMD", "test", "-e", "/data/ready"], interval: 100ms, retries: 1000 }
volumes: { data: {} }
"#,
    );
    let up = sandbox.start("up -d");
    sandbox.until_state("slow", "running");
    up.signal(Signal::SIGINT);
    assert_ne!(up.finish().code, 0);
    sandbox.inside("slow", "touch /data/ready");
    let slow = sandbox.ids("slow");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("app", "State"), "running");
    assert_eq!(sandbox.ids("slow"), slow);
}

#[test]
fn want_of_memory_is_named_and_the_restart_policy_applies() {
    let sandbox = Sandbox::with(
        r#"
services:
  greedy:
    image: stack/host
    mem_limit: 32m
    restart: on-failure:2
    command: ["python3", "-c", "x = bytearray(200 << 20); import time; time.sleep(1000)"]
"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_state("greedy", "exited");
    assert_eq!(sandbox.field("greedy", "ExitCode"), "137");
    let why = sandbox.stack("why greedy").ok().out;
    assert!(why.contains("memory") && why.contains("32"), "{why}");
    let id = sandbox.field("greedy", "ID");
    let folder = sandbox.root().join("run").join(&sandbox.project).join("containers");
    let file = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.to_string_lossy().contains(&id)).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap();
    assert_eq!((&state["oom_killed"], &state["restarts"]), (&true.into(), &2.into()), "{state}");
}

/// Open files of the supervisor and entries of the state folders, round after round.
#[test]
fn up_and_down_again_and_again_leaves_no_more_than_once() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.file(
        "keeper.yaml",
        "services: { keeper: { image: stack/host, init: true, command: [\"sleep\", \"infinity\"] } }",
    );
    let keep = "-f stack.yaml -f keeper.yaml";
    sandbox.stack(&format!("{keep} up -d")).ok();
    let round = || {
        sandbox.stack("up -d").ok();
        sandbox.stack("rm -s -f -v app db").ok();
        let supervisor = sandbox.processes("__supervisor");
        let count = |path: String| fs_err::read_dir(path).map_or(0, Iterator::count);
        let fds: usize = supervisor.iter().map(|pid| count(format!("/proc/{pid}/fd"))).sum();
        let shim: usize = sandbox.processes("__shim").iter().map(|pid| count(format!("/proc/{pid}/fd"))).sum();
        (fds, shim)
    };
    for _ in 0..3 {
        round();
    }
    let mut before = round();
    for _ in 0..15 {
        let after = round();
        before = (before.0.max(1), before.1.max(1));
        assert!(after.0 <= before.0 + 4 && after.1 <= before.1 + 4, "{before:?} open files became {after:?}");
    }
    sandbox.stack(&format!("{keep} down -v")).ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn one_that_ended_well_satisfies_wait() {
    let sandbox = Sandbox::with(
        r#"
services:
  migrate: { image: stack/host, command: ["true"] }
  app: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: { migrate: { condition: service_completed_successfully } } }
"#,
    );
    sandbox.stack("up --wait --wait-timeout 20").ok();
    assert_eq!(sandbox.field("migrate", "State"), "exited");
    sandbox.stack("up --wait --wait-timeout 20").ok();
}

#[test]
fn host_ports_are_left_out_or_chosen_for_ci() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d --ports none").ok();
    assert_eq!(sandbox.field("app", "Ports"), "");
    sandbox.stack("up -d --ports auto").ok();
    let ports = sandbox.field("app", "Ports");
    assert!(ports.starts_with("127.0.0.1:") && ports.ends_with("->80/tcp") && !ports.contains("18080"), "{ports}");
    let pid = sandbox.pid("app");
    sandbox.stack("up -d --ports auto").ok();
    assert_eq!(sandbox.pid("app"), pid, "the same choice is no change");
    sandbox.stack("up -d --ports some").fails(&["none", "auto"]);
    until_true("it still runs", || alive(pid));
}
