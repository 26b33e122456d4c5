//! `logs`: all of it, its tail, with times, followed.

use crate::poll::until_true;
use crate::sandbox::Sandbox;

#[test]
fn lines_are_kept_in_order() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, command: ["sh", "-c", "for n in $$(seq 1000); do echo line $$n; done; echo last >&2"] } }"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_state("app", "exited");
    let ran = sandbox.stack("logs --no-log-prefix").ok();
    let lines: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(lines.len(), 1000);
    assert_eq!(lines[999], "line 1000");
    assert!(format!("{}{}", ran.out, ran.err).contains("last"));
    let tail = sandbox.stack("logs --no-log-prefix --tail 2").ok();
    assert_eq!(format!("{}{}", tail.out, tail.err).lines().count(), 2, "{tail}");
    let timed = sandbox.stack("logs -t --tail 1").ok();
    let text = format!("{}{}", timed.out, timed.err);
    assert!(text.contains('T') && text.contains("Z last"), "{text}");
}

#[test]
fn long_lines_stay_whole() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, command: ["python3", "-c", "print('x' * 1000000)"] } }"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_state("app", "exited");
    let ran = sandbox.stack("logs --no-log-prefix").ok();
    assert_eq!(ran.out.trim_end().len(), 1_000_000);
    assert_eq!(ran.out.lines().count(), 1);
}

#[test]
fn following_ends_with_the_containers() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, init: true, stop_signal: SIGKILL, command: ["sh", "-c", "n=0; while :; do n=$$((n+1)); echo tick $$n; sleep 0.05; done"] } }"#,
    );
    sandbox.stack("up -d").ok();
    let follow = sandbox.start("logs -f --no-log-prefix app");
    sandbox.until_logged("app", "tick 5");
    sandbox.stack("stop").ok();
    let ran = follow.finish();
    assert!(ran.out.contains("tick 1\n") && ran.out.contains("tick 5\n"), "{ran}");
}

#[test]
fn the_size_of_the_log_is_bounded() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    command: ["sh", "-c", "seq 20000; echo the end"]
    logging: { driver: json-file, options: { max-size: 100k, max-file: "2" } }
"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_state("app", "exited");
    until_true("the end is there", || sandbox.stack("logs --no-log-prefix").out.ends_with("the end\n"));
    let lines = sandbox.stack("logs --no-log-prefix").ok().out.lines().count();
    assert!((500..20001).contains(&lines), "{lines} lines");
}
