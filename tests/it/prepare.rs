//! `pre_start`: what runs to its end before a service's containers start.

use crate::poll::until_true;
use crate::sandbox::{Sandbox, kill_hard};

const STEPS: &str = r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  db: { <<: *idle }
  app:
    <<: *idle
    scale: 2
    environment: { A: service, B: service }
    depends_on: [db]
    cap_drop: [ALL]
    volumes: ["data:/data", "/own"]
    secrets: [token]
    pre_start:
      - command: ["sh", "-c", "umask 0; getent hosts db >/dev/null && echo $$A $$B $$(cat /run/secrets/token) >> /data/steps"]
        environment: { B: step }
      - { command: "sh -c 'id -u >> /data/steps'", user: "1" }
      - command: ["sh", "-c", "echo replica >> /data/steps; echo prepared > /own/file"]
        per_replica: true
volumes: { data: {} }
secrets: { token: { environment: TOKEN } }
"#;

fn up(sandbox: &Sandbox, words: &str) -> String {
    sandbox.stack_env(&[("TOKEN", "hush")], words).ok();
    sandbox.inside("app", "cat /data/steps; cat /own/file")
}

#[test]
fn steps_run_in_order_once_for_the_service_or_for_each_replica() {
    let sandbox = Sandbox::with(STEPS);
    let plan = sandbox.stack_env(&[("TOKEN", "hush")], "plan").ok().out;
    assert!(plan.contains("> run pre_start[0] of app-1") && !plan.contains("pre_start[0] of app-2"), "{plan}");
    let once = "service step hush\n1\nreplica\nreplica\nprepared";
    assert_eq!(up(&sandbox, "up -d"), once);
    assert_eq!(sandbox.ps().len(), 3, "what ran the steps is gone");
    assert_eq!(sandbox.stack_env(&[("TOKEN", "hush")], "plan --detailed-exitcode").code, 0);
    assert_eq!(up(&sandbox, "up -d"), once);
    sandbox.stack("stop").ok();
    assert_eq!(up(&sandbox, "up -d"), once, "what has succeeded isn't run again");
    sandbox.stack("restart").ok();
    assert_eq!(up(&sandbox, "up -d --scale app=3"), "service step hush\n1\nreplica\nreplica\nreplica\nprepared");
    let again = up(&sandbox, "up -d --force-recreate");
    assert_eq!(again.matches("service step hush\n1\n").count(), 2, "a recreation runs them again: {again}");
    sandbox.stack("create --force-recreate app").code(1);
    sandbox.stack_env(&[("TOKEN", "hush")], "create --force-recreate app").ok();
    sandbox.stack("start").ok();
    let again = sandbox.inside("app", "cat /data/steps");
    assert_eq!(again.matches("service step hush\n1\n").count(), 3, "`start` runs them, too: {again}");
    sandbox.stack("down -v").ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn a_step_that_fails_keeps_the_service_and_its_dependents_from_starting() {
    let sandbox = Sandbox::with(
        r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  app:
    <<: *idle
    scale: 2
    volumes: ["./flags:/flags", "data:/data"]
    pre_start:
      - command: ["sh", "-c", "echo first >> /data/steps"]
      - command: ["sh", "-c", "echo looking; test -e /flags/ready || { echo no database >&2; exit 3; }"]
  web: { <<: *idle, depends_on: [app] }
  other: { <<: *idle }
volumes: { data: {} }
"#,
    );
    sandbox.file("flags/none", "");
    sandbox.stack("up -d").code(1).fails(&["service app: pre_start[1] ended with exit code 3", "no database"]);
    assert_eq!(sandbox.field("app", "State"), "created");
    assert_eq!(sandbox.field("web", "State"), "created");
    assert_eq!(sandbox.field("other", "State"), "running");
    let log = sandbox.stack("logs app").ok();
    assert!(log.out.contains("looking") && log.err.contains("no database"), "{log}");
    sandbox.stack("up -d").fails(&["no database"]);
    sandbox.file("flags/ready", "");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /data/steps"), "first", "the first step had succeeded");
    assert_eq!(sandbox.field("web", "State"), "running");
    sandbox.stack("down -v").ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

const SLOW: &str = r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    volumes: ["./flags:/flags"]
    pre_start:
      - command: ["sh", "-c", "echo waiting; while ! test -e /flags/go; do sleep 0.05; done"]
"#;

#[test]
fn a_step_that_takes_long_is_broken_off_by_down() {
    let sandbox = Sandbox::with(SLOW);
    sandbox.file("flags/none", "");
    let running = sandbox.start("up -d");
    sandbox.until_logged("app", "waiting");
    sandbox.stack("down -v").ok();
    let ran = running.finish();
    assert_eq!(ran.code, 130, "{ran}");
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn a_step_whose_supervisor_dies_runs_again() {
    let sandbox = Sandbox::with(SLOW);
    sandbox.file("flags/none", "");
    let running = sandbox.start("up -d");
    sandbox.until_logged("app", "waiting");
    for supervisor in sandbox.processes("__supervisor") {
        kill_hard(supervisor);
    }
    assert_ne!(running.finish().code, 0);
    sandbox.file("flags/go", "");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("app", "State"), "running");
    until_true("only the service's container is left", || sandbox.ps().len() == 1);
    sandbox.stack("down -v").ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn what_steps_write_stands_in_the_log_of_the_container_they_run_for() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    command: ["sh", "-c", "echo service; exit 5"]
    pre_start:
      - { command: ["sh", "-c", "echo first"] }
      - { command: ["sh", "-c", "echo second >&2; test ! -e /flags/bad"] }
    volumes: ["./flags:/flags"]
"#,
    );
    sandbox.file("flags/none", "");
    let ran = sandbox.stack("up --no-color --abort-on-container-exit").code(5);
    assert_eq!(
        ran.out.lines().filter(|line| line.contains('|')).collect::<Vec<_>>(),
        ["app-1  | first", "app-1  | service"]
    );
    assert!(ran.err.contains("app-1  | second") && !ran.err.contains("pre_start"), "{ran}");
    let logs = sandbox.stack("logs --no-log-prefix").ok();
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("first\nservice\n", "second\n"));
    sandbox.file("flags/bad", "");
    let ran = sandbox.stack("up --no-color --force-recreate").code(1);
    assert!(ran.out.contains("app-1  | first") && ran.err.contains("app-1  | second"), "{ran}");
    assert!(ran.err.contains("pre_start[1] ended with exit code 1:\n"), "{ran}");
    assert!(ran.err.lines().any(|line| line.trim() == "second"), "{ran}");
}

#[test]
fn a_step_is_heard_while_it_runs() {
    let sandbox = Sandbox::with(SLOW);
    sandbox.file("flags/none", "");
    let up = sandbox.start("up --no-color");
    up.until_said("app-1  | waiting");
    let follow = sandbox.start("logs -f --no-color app");
    follow.until_said("app-1  | waiting");
    sandbox.file("flags/go", "");
    sandbox.until_state("app", "running");
    up.signal(nix::sys::signal::Signal::SIGINT);
    up.finish();
    sandbox.stack("down").ok();
    drop(follow);
}
