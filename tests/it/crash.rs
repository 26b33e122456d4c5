//! `kill -9` of the command, the supervisor, the shim: containers run on, and the next command is in control.

use crate::poll::{until, until_true};
use crate::sandbox::{Sandbox, alive, kill_hard};

const TICKER: &str = r#"
services:
  ticker:
    image: stack/host
    init: true
    command: ["sh", "-c", "n=0; while :; do n=$$((n+1)); echo tick $$n; sleep 0.02; done"]
"#;

/// The numbers that the ticker logged, in order.
fn ticks(sandbox: &Sandbox) -> Vec<u64> {
    let out = sandbox.stack("logs --no-log-prefix ticker").ok().out;
    out.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

fn survives(kill: impl Fn(&Sandbox)) {
    let sandbox = Sandbox::with(TICKER);
    sandbox.stack("up -d").ok();
    let pid = sandbox.pid("ticker");
    kill(&sandbox);
    assert!(alive(pid));
    let last = ticks(&sandbox).last().copied().unwrap_or(0);
    let all = until("the log goes on", || Some(ticks(&sandbox)).filter(|all| all.last() > Some(&(last + 5))));
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost: {all:?}");
    assert_eq!(sandbox.pid("ticker"), pid);
    sandbox.stack("stop").ok();
    assert!(!alive(pid));
    assert_eq!(sandbox.field("ticker", "ExitCode"), "143");
}

fn kill_all(sandbox: &Sandbox, words: &[&str]) {
    let pids: Vec<i32> = words.iter().flat_map(|word| sandbox.processes(word)).collect();
    assert_eq!(pids.len(), words.len(), "{words:?}");
    for pid in pids {
        kill_hard(pid);
    }
}

#[test]
fn the_supervisor_may_be_killed() {
    survives(|sandbox| kill_all(sandbox, &["__supervisor"]));
}

#[test]
fn the_shim_may_be_killed() {
    survives(|sandbox| kill_all(sandbox, &["__shim"]));
}

#[test]
fn both_may_be_killed() {
    survives(|sandbox| {
        kill_all(sandbox, &["__supervisor", "__shim"]);
        sandbox.stack("up -d").ok();
    });
}

#[test]
fn the_command_may_be_killed() {
    let sandbox = Sandbox::with(TICKER);
    let up = sandbox.start("up");
    sandbox.until_state("ticker", "running");
    let pid = sandbox.pid("ticker");
    up.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(up.finish().code, 137);
    assert!(alive(pid));
    sandbox.stack("down").ok();
    assert!(!alive(pid));
}

/// A command that is killed at any moment leaves what the next one finishes.
#[test]
fn what_a_killed_command_began_is_finished_by_the_next() {
    let sandbox = Sandbox::with(
        r#"
services:
  db: { image: stack/host, init: true, command: ["sleep", "infinity"], volumes: ["data:/data"], healthcheck: { test: ["CMD", "true"] } }
  app: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: { db: { condition: service_healthy } } }
volumes: { data: {} }
"#,
    );
    let kill_at = |words: &str, said: &str| {
        let command = sandbox.start(words);
        command.until_said(said);
        command.signal(nix::sys::signal::Signal::SIGKILL);
        command.finish()
    };
    for said in ["Creating", "Created", "Starting", "Started", "Waiting", "Healthy"] {
        kill_at("up -d", said);
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.stack("plan --detailed-exitcode").code, 0, "up killed at {said}");
        assert_eq!(sandbox.ps().iter().filter(|row| row["State"] == "running").count(), 2, "up killed at {said}");
        sandbox.stack("down -v").ok();
        assert_eq!(sandbox.left(), Vec::<String>::new(), "up killed at {said}");
    }
    for said in ["Stopping", "Stopped", "Removing", "Removed"] {
        sandbox.stack("up -d").ok();
        kill_at("down -v", said);
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.stack("plan --detailed-exitcode").code, 0, "down killed at {said}");
        sandbox.stack("down -v").ok();
        assert_eq!(sandbox.left(), Vec::<String>::new(), "down killed at {said}");
    }
}

#[test]
fn exit_codes_are_known_though_the_shim_was_killed() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, command: ["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"] } }"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_logged("app", "ready");
    kill_all(&sandbox, &["__shim"]);
    until_true("it is in control again", || sandbox.stack("kill -s USR1").code == 0);
    sandbox.until_state("app", "exited");
    assert_eq!(sandbox.field("app", "ExitCode"), "9");
}

/// Supervisor, shim, both, and again: nothing of it reaches the container.
fn dies_again_and_again(rounds: usize) {
    let sandbox = Sandbox::with(TICKER);
    sandbox.stack("up -d").ok();
    let pid = sandbox.pid("ticker");
    for round in 0..rounds {
        let words: &[&str] = [&["__supervisor"][..], &["__shim"], &["__supervisor", "__shim"]][round % 3];
        until_true(&format!("round {round}: both are there"), || {
            ["__supervisor", "__shim"].iter().all(|word| sandbox.processes(word).len() == 1)
        });
        kill_all(&sandbox, words);
        if words.len() == 2 {
            sandbox.stack("up -d").ok();
        }
        assert!(alive(pid), "round {round}");
    }
    let last = ticks(&sandbox).last().copied().unwrap_or(0);
    let all = until("the log goes on", || Some(ticks(&sandbox)).filter(|all| all.last() > Some(&(last + 5))));
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost");
    assert_eq!(sandbox.pid("ticker"), pid);
    sandbox.stack("stop").ok();
    assert_eq!(sandbox.field("ticker", "ExitCode"), "143");
}

#[test]
fn six_deaths_in_turn_reach_no_container() {
    dies_again_and_again(6);
}

#[test]
#[ignore = "long: `make soak`"]
fn a_hundred_deaths_in_turn_reach_no_container() {
    dies_again_and_again(100);
}
