//! Another version of the program takes a running stack over.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::poll::until_true;
use crate::sandbox::{Ran, STACK, Sandbox, kill_hard};

const TICKER: &str = r#"
services:
  ticker:
    image: stack/host
    init: true
    command: ["sh", "-c", "trap 'exit 9' USR1; n=0; while :; do n=$$((n+1)); echo tick $$n; sleep 0.02; done"]
    ports: ["127.0.0.1:18080:80"]
  web: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: [ticker] }
"#;

/// Another program: what follows the last section of an executable is never looked at.
fn another(sandbox: &Sandbox, name: &str, tail: &str) -> PathBuf {
    let path = sandbox.path(name);
    fs_err::copy(STACK, &path).unwrap();
    fs_err::OpenOptions::new().append(true).open(&path).unwrap().write_all(tail.as_bytes()).unwrap();
    path
}

fn run(sandbox: &Sandbox, program: &Path, words: &str) -> Ran {
    sandbox.shell(&[], &format!("exec {} {words}", program.display()))
}

/// The program that a process of the sandbox runs.
fn program_of(sandbox: &Sandbox, word: &str) -> Option<(i32, PathBuf)> {
    let [pid] = sandbox.processes(word)[..] else { return None };
    Some((pid, fs_err::read_link(format!("/proc/{pid}/exe")).ok()?))
}

fn ticks(sandbox: &Sandbox) -> Vec<u64> {
    let out = sandbox.stack("logs --no-log-prefix ticker").ok().out;
    out.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

#[test]
fn up_of_another_version_hands_over_without_touching_containers() {
    let sandbox = Sandbox::with(TICKER);
    sandbox.stack("up -d").ok();
    let (pids, old) = ([sandbox.pid("ticker"), sandbox.pid("web")], program_of(&sandbox, "__supervisor").unwrap());
    let shim = program_of(&sandbox, "__shim").unwrap().0;

    let same = another(&sandbox, "same", "");
    run(&sandbox, &same, "up -d").ok();
    assert_eq!(program_of(&sandbox, "__supervisor").unwrap().0, old.0, "the same program is no reason");

    let newer = another(&sandbox, "newer", "another build");
    run(&sandbox, &newer, "ps").ok();
    assert_eq!(program_of(&sandbox, "__supervisor").unwrap().0, old.0, "only `up` hands over");
    let ran = run(&sandbox, &newer, "up -d").ok();
    until_true("the supervisor is of the newer program", || {
        program_of(&sandbox, "__supervisor").is_some_and(|(_, program)| program == newer)
    });
    assert!(!ran.err.contains("Warning"), "{ran}");
    assert_eq!([sandbox.pid("ticker"), sandbox.pid("web")], pids);
    assert_eq!(sandbox.stack("plan --detailed-exitcode").code, 0);

    // The shim stays, and what it starts from now on is of the newer program, too.
    let (taken, _) = program_of(&sandbox, "__supervisor").unwrap();
    assert_eq!(program_of(&sandbox, "__shim").unwrap().0, shim);
    kill_hard(taken);
    until_true("its successor is of the newer program", || {
        program_of(&sandbox, "__supervisor").is_some_and(|(pid, program)| pid != taken && program == newer)
    });
    let all = ticks(&sandbox);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost: {all:?}");
    sandbox.stack("kill -s USR1 ticker").ok();
    sandbox.until_state("ticker", "exited");
    assert_eq!(sandbox.field("ticker", "ExitCode"), "9");
    sandbox.stack("down -v").ok();
    assert_eq!(sandbox.left(), Vec::<String>::new());
}

#[test]
fn a_supervisor_that_others_use_stays_until_the_next_time() {
    let sandbox = Sandbox::with(TICKER);
    sandbox.stack("up -d").ok();
    let old = program_of(&sandbox, "__supervisor").unwrap();
    let newer = another(&sandbox, "newer", "another build");
    let exec = sandbox.start("exec -T web top -b -d 1000");
    exec.until_said("load average");
    run(&sandbox, &newer, "up -d").ok();
    assert_eq!(program_of(&sandbox, "__supervisor").unwrap(), old);
    drop(exec);
    until_true("the next `up` hands over", || {
        run(&sandbox, &newer, "up -d").ok();
        program_of(&sandbox, "__supervisor").is_some_and(|(_, program)| program == newer)
    });
}
