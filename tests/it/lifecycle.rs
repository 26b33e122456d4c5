//! stop, start, restart, kill, rm, down, and containers by `-p` alone.

use crate::poll::until_true;
use crate::sandbox::{Sandbox, alive};

const PAIR: &str = r#"
services:
  app: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: [db] }
  db: { image: stack/host, init: true, command: ["sleep", "infinity"] }
"#;

#[test]
fn single_steps_keep_the_container() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d").ok();
    let id = sandbox.ids("app");
    sandbox.stack("stop app").ok();
    assert_eq!(sandbox.field("app", "State"), "exited");
    assert_eq!(sandbox.field("db", "State"), "running");
    sandbox.stack("start app").ok();
    assert_eq!(sandbox.ids("app"), id);
    let before = sandbox.pid("app");
    sandbox.stack("restart app").ok();
    assert_eq!(sandbox.ids("app"), id);
    assert_ne!(sandbox.pid("app"), before);
    let pid = sandbox.pid("app");
    sandbox.stack("kill -s SIGKILL app").ok();
    until_true("the process is gone", || !alive(pid));
    sandbox.until_state("app", "exited");
    assert_eq!(sandbox.field("app", "ExitCode"), "137");
    sandbox.stack("rm -f app").ok();
    assert_eq!(sandbox.field("app", "State"), "");
}

#[test]
fn down_needs_no_file() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d").ok();
    let pid = sandbox.pid("db");
    fs_err::remove_file(sandbox.path("stack.yaml")).unwrap();
    sandbox.stack(&format!("-p {} down", sandbox.project)).ok();
    assert!(!alive(pid));
    assert!(sandbox.stack("ls -a -q").ok().out.trim().is_empty());
}

#[test]
fn down_twice_is_fine() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("down").ok();
    sandbox.stack("up -d").ok();
    sandbox.stack("down").ok();
    sandbox.stack("down").ok();
}

#[test]
fn orphans_go_when_asked() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d").ok();
    sandbox
        .file("stack.yaml", "services: { db: { image: stack/host, init: true, command: [\"sleep\", \"infinity\"] } }");
    let ran = sandbox.stack("up -d").ok();
    assert!(ran.err.contains("orphan") && ran.err.contains("app-1"), "{ran}");
    assert_eq!(sandbox.field("app", "State"), "running");
    sandbox.stack("up -d --remove-orphans").ok();
    assert_eq!(sandbox.field("app", "State"), "");
    assert_eq!(sandbox.field("db", "State"), "running");
}

#[test]
fn kill_leaves_orphans_alone_unless_asked() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d").ok();
    let one = "services: { db: { image: stack/host, init: true, command: [\"sleep\", \"infinity\"] } }";
    sandbox.file("stack.yaml", one);
    sandbox.stack("kill").ok();
    sandbox.until_state("db", "exited");
    assert_eq!(sandbox.field("app", "State"), "running");
    sandbox.stack("kill --remove-orphans").ok();
    sandbox.until_state("app", "exited");
}

#[test]
fn events_of_the_past_are_shown_once() {
    let sandbox = Sandbox::with(PAIR);
    sandbox.stack("up -d").ok();
    let started = |ran: String| ran.lines().filter(|line| line.contains("container start")).count();
    assert_eq!(started(sandbox.stack("events --since 10m --until 0s").ok().out), 2);
    assert_eq!(started(sandbox.stack("events --since 10m --until 0s app").ok().out), 1);
    let until = jiff::Timestamp::now();
    sandbox.stack("restart app -t 0").ok();
    assert_eq!(started(sandbox.stack(&format!("events --since 10m --until {until}")).ok().out), 2);
    // A future end: what is past and what comes, and then it returns by itself.
    let until = jiff::Timestamp::now() + std::time::Duration::from_millis(300);
    let json = sandbox.stack(&format!("events --since 10m --until {until} --json")).ok().out;
    let actions: Vec<String> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["action"].as_str().unwrap().to_owned())
        .collect();
    assert!(actions.iter().filter(|action| *action == "start").count() >= 2, "{actions:?}");
    assert!(actions.iter().any(|action| action == "die"), "{actions:?}");
}

#[test]
fn a_grace_period_ends_with_a_kill() {
    let sandbox = Sandbox::with(
        r#"services: { deaf: { image: stack/host, command: ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"] } }"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_logged("deaf", "ready");
    sandbox.stack("stop -t 1").ok();
    assert_eq!(sandbox.field("deaf", "ExitCode"), "137");
}

#[test]
fn the_stop_signal_is_the_service_s_own() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, stop_signal: SIGUSR1, command: ["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"] } }"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_logged("app", "ready");
    sandbox.stack("stop").ok();
    assert_eq!(sandbox.field("app", "ExitCode"), "7");
}

#[test]
fn restart_policies_bring_back_what_fails() {
    let sandbox = Sandbox::with(
        r#"
services:
  again:
    image: stack/host
    restart: on-failure
    volumes: ["data:/data"]
    command: ["sh", "-c", "echo x >> /data/runs; [ $$(wc -l < /data/runs) -ge 3 ] && exec sleep 1000; exit 1"]
    init: true
  once: { image: stack/host, command: ["sh", "-c", "exit 1"] }
volumes: { data: {} }
"#,
    );
    sandbox.stack("up -d").ok();
    let runs = sandbox.root().join(format!("lib/volumes/{}_data/_data/runs", sandbox.project));
    until_true("three runs", || fs_err::read_to_string(&runs).is_ok_and(|text| text.lines().count() == 3));
    sandbox.until_state("again", "running");
    sandbox.until_state("once", "exited");
}

#[test]
fn replicas_are_numbered_and_scaled() {
    let sandbox = Sandbox::with(
        r#"services: { web: { image: stack/host, init: true, command: ["sleep", "infinity"], scale: 2 } }"#,
    );
    let names = || {
        let mut names: Vec<String> =
            sandbox.ps().iter().map(|row| row["Name"].as_str().unwrap().rsplit_once('-').unwrap().1.into()).collect();
        names.sort_unstable();
        names.join(" ")
    };
    sandbox.stack("up -d").ok();
    assert_eq!(names(), "1 2");
    sandbox.stack("up -d --scale web=4").ok();
    assert_eq!(names(), "1 2 3 4");
    sandbox.stack("up -d --scale web=1").ok();
    assert_eq!(names(), "1");
}

#[test]
fn a_process_that_cannot_hear_its_stop_signal_is_not_waited_for() {
    let sandbox = Sandbox::with(
        r#"
services:
  deaf: { image: stack/host, command: ["sleep", "infinity"] }
  given: { image: stack/host, command: ["sleep", "infinity"], stop_grace_period: 1s }
"#,
    );
    sandbox.stack("up -d").ok();
    let begin = std::time::Instant::now();
    let ran = sandbox.stack("stop deaf").ok();
    assert!(begin.elapsed().as_secs() < 5, "{ran}");
    assert!(ran.err.contains("no handler"), "{ran}");
    assert_eq!(sandbox.field("deaf", "ExitCode"), "137");
    let begin = std::time::Instant::now();
    let ran = sandbox.stack("stop given").ok();
    assert!(begin.elapsed().as_secs() >= 1 && !ran.err.contains("no handler"), "{ran}");
}

/// The time of every line that a service logged, in seconds.
fn log_times(sandbox: &Sandbox, service: &str) -> Vec<f64> {
    let out = sandbox.stack(&format!("logs --no-log-prefix -t {service}")).ok().out;
    let time = |line: &str| line.split(' ').next()?.parse::<jiff::Timestamp>().ok();
    out.lines().filter_map(time).map(|time| time.as_duration().as_secs_f64()).collect()
}

#[test]
fn a_restart_policy_has_a_delay_and_a_window() {
    let sandbox = Sandbox::with(
        r#"
services:
  delayed:
    image: stack/host
    command: ["sh", "-c", "echo run; exit 1"]
    deploy: { restart_policy: { condition: on-failure, delay: 700ms, max_attempts: 2 } }
  windowed:
    image: stack/host
    command: ["sh", "-c", "echo run; sleep 0.4; exit 1"]
    deploy: { restart_policy: { condition: on-failure, delay: 10ms, max_attempts: 1, window: 200ms } }
"#,
    );
    sandbox.stack("up -d").ok();
    until_true("a run longer than the window makes the attempts count anew", || {
        log_times(&sandbox, "windowed").len() > 3
    });
    sandbox.until_state("delayed", "exited");
    let times = log_times(&sandbox, "delayed");
    assert_eq!(times.len(), 3, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 0.7), "{times:?}");
}
