//! `up`: detached, waiting, attached, and what it prints.

use nix::sys::signal::Signal;

use crate::sandbox::Sandbox;

const TALKERS: &str = r#"
services:
  one: { image: stack/host, init: true, command: ["sh", "-c", "echo from one; exec sleep infinity"] }
  two: { image: stack/host, init: true, command: ["sh", "-c", "echo from two >&2; exec sleep infinity"] }
"#;

#[test]
fn detached_starts_everything_and_comes_back() {
    let sandbox = Sandbox::with(TALKERS);
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("one", "State"), "running");
    assert_eq!(sandbox.field("two", "Name"), format!("{}-two-1", sandbox.project));
    sandbox.stack("down").ok();
    assert!(sandbox.ps().is_empty());
}

#[test]
fn attached_shows_prefixed_logs_and_stops_on_signals() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let sandbox = Sandbox::with(TALKERS);
        let up = sandbox.start("up --no-color");
        sandbox.until_logged("one", "from one");
        sandbox.until_logged("two", "from two");
        up.signal(signal);
        let ran = up.finish();
        assert!(ran.out.contains("one-1  | from one"), "{ran}");
        assert!(ran.err.contains("two-1  | from two") || ran.out.contains("two-1  | from two"), "{ran}");
        assert_eq!(sandbox.field("one", "State"), "exited", "{ran}");
    }
}

#[test]
fn a_second_interrupt_kills() {
    let sandbox = Sandbox::with(
        r#"services: { stubborn: { image: stack/host, command: ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"], stop_grace_period: 1h } }"#,
    );
    let up = sandbox.start("up");
    sandbox.until_logged("stubborn", "ready");
    up.signal(Signal::SIGINT);
    up.until_said("Gracefully Stopping");
    up.signal(Signal::SIGINT);
    up.finish();
    sandbox.until_state("stubborn", "exited");
}

#[test]
fn prefixes_can_be_left_out() {
    let sandbox = Sandbox::with("services: { one: { image: stack/host, command: [\"echo\", \"plain words\"] } }");
    let ran = sandbox.stack("up --no-log-prefix").ok();
    assert!(ran.out.lines().any(|line| line == "plain words"), "{ran}");
}

#[test]
fn exit_codes_of_services_become_ours() {
    let sandbox = Sandbox::with(
        r#"
services:
  fails: { image: stack/host, command: ["sh", "-c", "exit 3"] }
  stays: { image: stack/host, init: true, command: ["sleep", "infinity"] }
"#,
    );
    sandbox.stack("up --abort-on-container-exit").code(3);
    sandbox.stack("up --abort-on-container-failure").code(3);
    sandbox.stack("up --exit-code-from fails").code(3);
    assert_eq!(sandbox.field("stays", "State"), "exited");
}

#[test]
fn wait_returns_when_all_is_healthy_and_fails_when_that_cannot_be() {
    let sandbox = Sandbox::with(
        r#"
services:
  good:
    image: stack/host
    init: true
    command: ["sh", "-c", "touch /tmp/ready; exec sleep infinity"]
    tmpfs: /tmp
    healthcheck: { test: ["CMD", "test", "-e", "/tmp/ready"], interval: 1s }
  bad:
    image: stack/host
    init: true
    profiles: [bad]
    command: ["sleep", "infinity"]
    healthcheck: { test: ["CMD", "false"], interval: 100ms, retries: 2 }
"#,
    );
    sandbox.stack("up -d --wait --wait-timeout 20").ok();
    assert_eq!(sandbox.field("good", "Health"), "healthy");
    sandbox.stack("up -d --wait bad").fails(&["bad"]);
}

#[test]
fn colours_appear_only_when_asked_for() {
    let sandbox = Sandbox::with("services: { one: { image: stack/host, command: [\"echo\", \"words\"] } }");
    let plain = sandbox.stack("up").ok();
    assert!(!plain.out.contains('\x1b') && !plain.err.contains('\x1b'), "{plain}");
    let coloured = sandbox.stack("--ansi always up").ok();
    assert!(coloured.out.contains('\x1b'), "{coloured}");
}
