//! SIGKILL at every fault point: whatever a command was doing when its supervisor or the shim died,
//! `up` converges afterwards and `down` leaves nothing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Instant;

use crate::poll::until_true;
use crate::sandbox::Sandbox;

/// One of everything that a stack can have.
const ALL: &str = r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  seed: { image: stack/host, command: ["sh", "-c", "echo seeded > /data/seed"], volumes: ["data:/data"] }
  db:
    <<: *idle
    environment: { V: "${V:-1}" }
    volumes: ["data:/data", "/anonymous", "memory:/memory", { type: tmpfs, target: /t }]
    networks: { front: {}, back: { aliases: [store] } }
    ports: ["18080:80"]
    depends_on: { seed: { condition: service_completed_successfully } }
    healthcheck: { test: ["CMD", "test", "-e", "/data/seed"], interval: 1s }
    secrets: [token]
    restart: always
  web:
    <<: *idle
    scale: 2
    networks: [front, back]
    ports: ["127.0.0.1::80"]
    depends_on: { db: { condition: service_healthy, restart: true } }
    configs: [{ source: greeting, target: /etc/greeting }]
    read_only: true
    tmpfs: [/tmp]
    mem_limit: 64m
    cap_drop: [ALL]
    pre_start: [{ command: ["sh", "-c", "test -e /etc/greeting"] }, { command: ["true"], per_replica: true }]
    post_start: [{ command: ["true"] }]
    pre_stop: [{ command: ["true"] }]
  sidecar: { <<: *idle, network_mode: "service:db", pid: "service:db", volumes_from: [db] }
  terminal: { <<: *idle, tty: true, stdin_open: true, restart: unless-stopped, network_mode: none, user: "1:1" }
networks: { front: {}, back: { internal: true } }
volumes:
  data: { labels: { of: "all" } }
  memory: { driver_opts: { type: tmpfs, device: tmpfs, o: size=1m } }
secrets: { token: { environment: TOKEN } }
configs: { greeting: { content: "hello" } }
"#;

const CONTAINERS: usize = 6;

/// A command under which something dies, in which state of the stack, and with what changed in its surroundings.
struct Case {
    name: &'static str,
    /// The stack is up before.
    running: bool,
    words: &'static str,
    /// What the file's `V` is.
    value: &'static str,
}

const CASES: [Case; 3] = [
    Case { name: "a first up", running: false, words: "up -d", value: "1" },
    Case { name: "an up that makes things anew", running: true, words: "up -d", value: "2" },
    Case { name: "down", running: true, words: "down -v", value: "1" },
];

fn run(sandbox: &Sandbox, value: &str, fault: Option<&str>, words: &str) -> crate::sandbox::Ran {
    let mut variables = vec![("V", value), ("TOKEN", "hush")];
    variables.extend(fault.map(|fault| ("STACK_FAULT", fault)));
    sandbox.stack_env(&variables, words)
}

/// Every service runs as the file wants, and there is nothing to do.
fn assert_converged(sandbox: &Sandbox, value: &str, place: &str) {
    // A fault that never came is taken back.
    let ran = run(sandbox, value, Some("off"), "up -d");
    assert_eq!(ran.code, 0, "{place}: the next {ran}");
    sandbox.until_state("seed", "exited");
    // A terminal dies with its shim, and its restart waits a moment.
    sandbox.until_state("terminal", "running");
    let plan = run(sandbox, value, None, "plan --detailed-exitcode");
    assert_eq!(plan.code, 0, "{place}: {plan}");
    // A terminal ends with the shim, and its container's policy starts it again in a moment.
    until_true(&format!("{place}: all run"), || {
        let rows = sandbox.ps();
        (rows.len(), rows.iter().filter(|row| row["State"] == "running").count()) == (CONTAINERS, CONTAINERS - 1)
    });
    let seen = sandbox.inside("web", "cat /etc/greeting");
    assert_eq!(seen, "hello", "{place}");
    assert_eq!(sandbox.inside("sidecar", "cat /data/seed && echo ${V-none}"), "seeded\nnone", "{place}");
    assert_eq!(sandbox.inside("db", "cat /run/secrets/token; echo -$V"), format!("hush-{value}"), "{place}");
}

fn assert_nothing_left(sandbox: &Sandbox, place: &str) {
    let ran = run(sandbox, "1", Some("off"), "down -v");
    assert_eq!(ran.code, 0, "{place}: {ran}");
    let left = sandbox.left();
    assert!(left.is_empty(), "{place}: down left\n{}", left.join("\n"));
}

/// The points that a case passes, by the role of the process, in order.
fn trace(sandbox: &Sandbox, case: &Case, role: &str) -> Vec<String> {
    if case.running {
        run(sandbox, "1", None, "up -d").ok();
    }
    let path = sandbox.path("trace");
    let _ = fs_err::remove_file(&path);
    run(sandbox, case.value, Some(&format!("trace@{}", path.display())), case.words).ok();
    assert_nothing_left(sandbox, case.name);
    let text = fs_err::read_to_string(&path).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.strip_prefix(role)?.trim().to_owned())).collect()
}

/// Kills `role` at the points of a case, all of them or `most` spread evenly; how many there were and were tried.
fn kill_at_each_point(case: &Case, role: &str, most: Option<usize>) -> (usize, usize) {
    let sandbox = Sandbox::with(ALL);
    let points = trace(&sandbox, case, role);
    // `down` leaves all writing to the supervisor.
    assert!(!points.is_empty() || role == "command", "{}: no fault points in the {role}", case.name);
    let count = most.map_or(points.len(), |most| most.min(points.len()));
    let picked: BTreeSet<usize> = (0..count).map(|index| index * points.len() / count).collect();
    let begin = Instant::now();
    for index in &picked {
        let place = format!("{}, {role} killed at point {} ({})", case.name, index + 1, points[*index]);
        if case.running {
            run(&sandbox, "1", None, "up -d").ok();
        }
        let keeps = case.running && !case.words.starts_with("down");
        if keeps {
            sandbox.inside("db", "echo kept > /anonymous/file");
        }
        run(&sandbox, case.value, Some(&format!("kill@{role}:{}", index + 1)), case.words);
        assert_converged(&sandbox, case.value, &place);
        if keeps {
            assert_eq!(sandbox.inside("db", "cat /anonymous/file"), "kept", "{place}");
        }
        assert_nothing_left(&sandbox, &place);
    }
    let rest = if picked.len() < points.len() { "; `make soak` takes all" } else { "" };
    say(&format!(
        "{}: {role} killed at {} of {} points, all healed ({:.1} s){rest}",
        case.name,
        picked.len(),
        points.len(),
        begin.elapsed().as_secs_f64()
    ));
    (picked.len(), points.len())
}

/// Into the output of the test run, which shows nothing else of a test that passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
fn a_kill_anywhere_in_a_first_up_is_healed() {
    kill_at_each_point(&CASES[0], "supervisor", Some(8));
    kill_at_each_point(&CASES[0], "shim", Some(3));
    kill_at_each_point(&CASES[0], "command", Some(2));
}

#[test]
fn a_kill_anywhere_in_a_change_is_healed() {
    kill_at_each_point(&CASES[1], "supervisor", Some(8));
    kill_at_each_point(&CASES[1], "shim", Some(3));
}

#[test]
fn a_kill_anywhere_in_down_is_healed() {
    kill_at_each_point(&CASES[2], "supervisor", Some(6));
    kill_at_each_point(&CASES[2], "shim", Some(2));
}

#[test]
fn a_shim_killed_around_a_hook_keeps_nobody_waiting() {
    let hooks = ["{ command: [\"true\"] }"; 4].join(", ");
    let sandbox = Sandbox::with(&format!(
        "services: {{ app: {{ image: stack/host, init: true, command: [sleep, infinity], post_start: [{hooks}] }} }}"
    ));
    let path = sandbox.path("trace");
    run(&sandbox, "1", Some(&format!("trace@{}", path.display())), "up -d").ok();
    let points = fs_err::read_to_string(&path).unwrap().lines().filter(|line| line.starts_with("shim")).count();
    assert!(points > 10, "{points} points");
    for point in 1..=points {
        let place = format!("shim killed at point {point} of {points}");
        assert_nothing_left(&sandbox, &place);
        let ran = run(&sandbox, "1", Some(&format!("kill@shim:{point}")), "up -d");
        assert!(matches!(ran.code, 0 | 1), "{place}: {ran}");
        let ran = run(&sandbox, "1", Some("off"), "up -d");
        assert_eq!(ran.code, 0, "{place}: the next {ran}");
        assert_eq!(sandbox.field("app", "State"), "running", "{place}");
    }
    assert_nothing_left(&sandbox, "the last");
}

#[test]
#[ignore = "long: `make soak`"]
fn a_kill_at_every_point_is_healed() {
    let (mut tried, mut all) = (0, 0);
    for case in &CASES {
        for role in ["supervisor", "shim", "command"] {
            let (passed, points) = kill_at_each_point(case, role, None);
            (tried, all) = (tried + passed, all + points);
        }
    }
    say(&format!("killed at {tried} of {all} points, all healed"));
}
