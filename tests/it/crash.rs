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

/// The numbers that a service logged, in order.
fn ticks(sandbox: &Sandbox, service: &str) -> Vec<u64> {
    let out = sandbox.stack(&format!("logs --no-log-prefix {service}")).ok().out;
    out.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

fn survives(kill: impl Fn(&Sandbox)) {
    let sandbox = Sandbox::with(TICKER);
    sandbox.stack("up -d").ok();
    let pid = sandbox.pid("ticker");
    kill(&sandbox);
    assert!(alive(pid));
    let last = ticks(&sandbox, "ticker").last().copied().unwrap_or(0);
    let all = until("the log goes on", || Some(ticks(&sandbox, "ticker")).filter(|all| all.last() > Some(&(last + 5))));
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

/// One that writes a line now and then, one that writes many, and one that ends with 9 when it is told to.
const SEVERAL: &str = r#"
services:
  ticker:
    image: stack/host
    init: true
    command: ["sh", "-c", "n=0; while :; do n=$$((n+1)); echo tick $$n; sleep 0.02; done"]
  flood:
    image: stack/host
    init: true
    logging: { options: { max-size: 1g } }
    command:
      - python3
      - -c
      - |
        import itertools, time
        for n in itertools.count(1):
            print("tick", n, flush=n % 200 == 0)
            if n % 200 == 0: time.sleep(0.1)
  coder: { image: stack/host, command: ["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done"] }
"#;

/// Programs that keep the processors busy.
struct Load(Vec<std::process::Child>);

impl Load {
    fn of(programs: usize) -> Self {
        let busy = |_| std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..programs).map(busy).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Supervisor, shim, both, and again: nothing of it reaches the containers, and one that ends meanwhile ends with its
/// own exit code.
fn dies_again_and_again(rounds: usize, load: usize) {
    let sandbox = Sandbox::with(SEVERAL);
    sandbox.stack("up -d").ok();
    let _load = Load::of(load);
    let pids = [sandbox.pid("ticker"), sandbox.pid("flood")];
    for round in 0..rounds {
        let words: &[&str] = [&["__supervisor"][..], &["__shim"], &["__supervisor", "__shim"]][round % 3];
        until_true(&format!("round {round}: both are there"), || {
            ["__supervisor", "__shim"].iter().all(|word| sandbox.processes(word).len() == 1)
        });
        let readies = || sandbox.stack("logs --no-log-prefix coder").out.lines().count();
        until_true(&format!("round {round}: it listens to signals"), || readies() == round + 1);
        let coder = sandbox.pid("coder");
        kill_all(&sandbox, words);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(coder), nix::sys::signal::Signal::SIGUSR1).unwrap();
        if words.len() == 2 {
            sandbox.stack("plan").ok();
        }
        sandbox.until_state("coder", "exited");
        let code = sandbox.field("coder", "ExitCode");
        // With both dead nobody saw it.
        assert!(code == "9" || words.len() == 2 && code == "255", "round {round}, {words:?}: exit code {code}");
        assert!(pids.into_iter().all(alive), "round {round}");
        sandbox.stack("up -d").ok();
    }
    let last = ticks(&sandbox, "ticker").last().copied().unwrap_or(0);
    until_true("the log goes on", || ticks(&sandbox, "ticker").last() > Some(&(last + 5)));
    for service in ["ticker", "flood"] {
        let all = ticks(&sandbox, service);
        assert!(all.iter().copied().eq(1..=all.len() as u64), "no line of {service} is lost");
    }
    assert_eq!([sandbox.pid("ticker"), sandbox.pid("flood")], pids);
    sandbox.stack("stop").ok();
    assert_eq!(sandbox.field("ticker", "ExitCode"), "143");
}

#[test]
fn six_deaths_in_turn_reach_no_container() {
    dies_again_and_again(6, 0);
}

#[test]
#[ignore = "long: `make soak`"]
fn a_hundred_deaths_in_turn_reach_no_container() {
    dies_again_and_again(100, 4);
}

/// What a command stopped stays so, what ended while nobody watched comes back, and restarts go on being counted.
#[test]
fn restart_policies_outlive_those_who_carry_them_out() {
    let sandbox = Sandbox::with(
        r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  kept: { <<: *idle, restart: unless-stopped }
  stopped: { <<: *idle, restart: unless-stopped }
  plain: *idle
  counted: { image: stack/host, restart: "on-failure:3", command: ["sh", "-c", "while ! test -e /go/on; do sleep 0.02; done; rm /go/on; exit 1"], volumes: ["./go:/go"] }
"#,
    );
    sandbox.file("go/none", "");
    sandbox.stack("up -d").ok();
    sandbox.stack("stop stopped").ok();
    let restarts = || {
        let why = sandbox.stack("why counted").ok().out;
        why.split_once("has started it again ").map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
    };
    sandbox.file("go/on", "");
    until_true("it was started again", || restarts() == 1);
    let (kept, plain) = (sandbox.pid("kept"), sandbox.pid("plain"));
    kill_all(&sandbox, &["__supervisor", "__shim"]);
    kill_hard(kept);
    kill_hard(plain);
    sandbox.stack("plan").ok();
    until_true("its policy brings it back", || {
        sandbox.field("kept", "State") == "running" && sandbox.pid("kept") != kept
    });
    sandbox.until_state("plain", "exited");
    assert_eq!(sandbox.field("stopped", "State"), "exited");
    for expected in [2, 3] {
        sandbox.file("go/on", "");
        until_true(&format!("restart {expected} is counted"), || restarts() == expected);
    }
    sandbox.file("go/on", "");
    sandbox.until_state("counted", "exited");
    assert_eq!(sandbox.field("stopped", "State"), "exited");
    sandbox.stack("start stopped counted").ok();
    assert_eq!((sandbox.field("stopped", "State"), restarts()), ("running".to_owned(), 0), "who starts it starts anew");
}

/// A new shim takes over what runs, and a command that comes meanwhile waits for it.
#[test]
fn a_command_right_after_the_death_of_the_shim_works() {
    let sandbox = Sandbox::with(
        r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  one: { <<: *idle, scale: 3 }
  two: { <<: *idle, depends_on: [one] }
  inside: { <<: *idle, network_mode: "service:two", pid: "service:two" }
"#,
    );
    for words in
        ["down -v -t 0", "stop -t 0", "kill", "restart -t 0", "up -d --force-recreate -t 0", "exec -T two true"]
    {
        sandbox.stack("up -d").ok();
        let [shim] = sandbox.processes("__shim")[..] else { panic!("one shim") };
        kill_hard(shim);
        let ran = sandbox.stack(words);
        assert_eq!(ran.code, 0, "{ran}");
    }
}
