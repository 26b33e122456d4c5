//! depends_on: its order and its three conditions.

use crate::sandbox::Sandbox;

#[test]
fn dependents_start_after_what_they_need() {
    let sandbox = Sandbox::with(
        r#"
x-writer: &writer { image: stack/host, init: true, volumes: ["log:/log"], command: ["sh", "-c", "echo $$NAME >> /log/order; exec sleep infinity"] }
services:
  c: { <<: *writer, environment: { NAME: c }, depends_on: { b: { condition: service_healthy } } }
  b:
    <<: *writer
    environment: { NAME: b }
    depends_on: { a: { condition: service_completed_successfully } }
    healthcheck: { test: ["CMD", "grep", "-q", "b", "/log/order"], interval: 1s }
  a: { <<: *writer, environment: { NAME: a }, command: ["sh", "-c", "echo a >> /log/order"] }
volumes: { log: {} }
"#,
    );
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("a", "State"), "exited");
    sandbox.until_logged("c", "");
    crate::poll::until_true("all three wrote", || sandbox.inside("c", "tr '\\n' ' ' < /log/order") == "a b c");
}

#[test]
fn a_dependency_that_fails_keeps_dependents_from_starting() {
    let sandbox = Sandbox::with(
        r#"
services:
  app: { image: stack/host, command: ["true"], depends_on: { migrate: { condition: service_completed_successfully } } }
  sick:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    healthcheck: { test: ["CMD", "false"], interval: 50ms, retries: 2 }
  other: { image: stack/host, command: ["true"], depends_on: { sick: { condition: service_healthy } } }
  migrate: { image: stack/host, command: ["sh", "-c", "exit 4"] }
"#,
    );
    let ran = sandbox.stack("up -d").fails(&["migrate", "sick"]);
    assert_eq!(ran.code, 1);
    assert_eq!(sandbox.field("app", "State"), "created");
    assert_eq!(sandbox.field("other", "State"), "created");
}

#[test]
fn an_optional_dependency_may_fail() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    depends_on: { migrate: { condition: service_completed_successfully, required: false } }
  migrate: { image: stack/host, command: ["sh", "-c", "exit 4"] }
"#,
    );
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("app", "State"), "running");
}

#[test]
fn restart_true_follows_a_restart() {
    let sandbox = Sandbox::with(
        r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  app: { <<: *idle, depends_on: { db: { condition: service_started, restart: true } } }
  watcher: { <<: *idle, depends_on: [db] }
  db: *idle
"#,
    );
    sandbox.stack("up -d").ok();
    let (app, watcher) = (sandbox.pid("app"), sandbox.pid("watcher"));
    sandbox.stack("restart db").ok();
    assert_ne!(sandbox.pid("app"), app);
    assert_eq!(sandbox.pid("watcher"), watcher);
}

#[test]
fn why_and_timeline_tell_what_happened() {
    let sandbox = Sandbox::with(
        r#"
services:
  app: { image: stack/host, command: ["true"], depends_on: { sick: { condition: service_healthy } } }
  sick:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    environment: { V: "${V:-1}" }
    healthcheck: { test: "echo cannot connect; exit 2", interval: 50ms, retries: 2 }
"#,
    );
    sandbox.stack("timeline").fails(&["no `up`"]);
    sandbox.stack("up -d").fails(&["sick"]);
    let why = sandbox.stack("why").ok().out;
    for text in ["was not started: dependency failed", "is unhealthy", "exit code 2, its last words: cannot connect"] {
        assert!(why.contains(text), "{text:?} in {why}");
    }
    let timeline = sandbox.stack("timeline").ok().out;
    assert!(timeline.contains("> start sick-1") && timeline.contains(". wait until sick is healthy"), "{timeline}");
    sandbox.stack_env(&[("V", "2")], "up -d sick").ok();
    let why = sandbox.stack("why sick").ok().out;
    assert!(why.contains("was recreated by `up`") && why.contains("environment V: 1 → 2"), "{why}");
}
