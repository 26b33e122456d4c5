//! `logs`: all of it, its tail, with times, followed.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use crate::poll::until_true;
use crate::sandbox::{STACK, Sandbox};

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

/// The numbers at the ends of lines.
fn numbers(out: &str) -> Vec<u32> {
    out.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn times_tails_and_followers_reach_over_rotated_files() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    init: true
    stop_signal: SIGKILL
    command: ["sh", "-c", "seq -f 'line %.0f' 1 1000; while ! test -e /go/on; do sleep 0.05; done; seq -f 'line %.0f' 1001 2000; exec sleep 1000"]
    volumes: ["./go:/go"]
    logging: { options: { max-size: 20k, max-file: "6" } }
"#,
    );
    sandbox.file("go/none", "");
    sandbox.stack("up -d").ok();
    sandbox.until_logged("app", "line 1000\n");
    let follow = sandbox.start("logs -f --no-log-prefix --tail 600 app");
    follow.until_said("line 1000\n");
    sandbox.file("go/on", "");
    sandbox.until_logged("app", "line 2000\n");
    let folder = sandbox.root().join("lib/containers").join(sandbox.ids("app")[0].as_str()).join("log");
    assert_eq!(fs_err::read_dir(folder).unwrap().count(), 6);
    let timed = sandbox.stack("logs --no-log-prefix -t app").ok().out;
    let all = numbers(&timed);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1) && all.len() > 1100, "{} lines", all.len());
    let time = |number: u32| {
        let line = timed.lines().find(|line| line.ends_with(&format!("line {number}"))).unwrap();
        line.split(' ').next().unwrap().to_owned()
    };
    let seen = |words: &str| numbers(&sandbox.stack(&format!("logs --no-log-prefix app {words}")).ok().out);
    // Lines that are read together have the same time.
    let since = seen(&format!("--since {}", time(1001)));
    assert_eq!((since[0], since.len()), (1001, 1000));
    let until = seen(&format!("--until {}", time(1000)));
    assert_eq!(until, all.iter().copied().filter(|number| *number <= 1000).collect::<Vec<_>>());
    let both = seen(&format!("--since {} --until {}", time(1001), time(1500)));
    assert!(both[0] == 1001 && both.contains(&1500), "{both:?}");
    for count in [1, 3, 500, 1100] {
        let tail = seen(&format!("--tail {count}"));
        assert_eq!(tail, (2001 - count..=2000).collect::<Vec<_>>());
    }
    sandbox.stack("stop").ok();
    assert_eq!(numbers(&follow.finish().out), (401..=2000).collect::<Vec<_>>());
}

#[test]
fn a_line_of_a_megabyte_is_one_line_of_the_tail() {
    let script = "print('before'); print('x' * (3 << 20)); print('after')";
    let sandbox = Sandbox::with(&format!(
        r#"services: {{ app: {{ image: stack/host, command: ["python3", "-c", "{script}"] }} }}"#
    ));
    sandbox.stack("up -d").ok();
    sandbox.until_state("app", "exited");
    let out = sandbox.stack("logs --no-log-prefix --tail 2").ok().out;
    let lengths: Vec<usize> = out.lines().map(str::len).collect();
    assert_eq!(lengths, [3 << 20, 5]);
}

/// Nobody reads what `logs -f` and `up` print: the container goes on all the same, and nothing is lost.
#[test]
fn a_reader_that_stalls_holds_up_nobody() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    command: ["sh", "-c", "seq -f 'line %.0f' 1 300000"]
    logging: { options: { max-size: 1g } }
"#,
    );
    let mut up = sandbox.command(STACK, &["up", "--no-log-prefix"]).stdout(Stdio::piped()).spawn().unwrap();
    sandbox.until_state("app", "exited");
    assert_eq!(sandbox.field("app", "ExitCode"), "0");
    assert!(up.try_wait().unwrap().is_none(), "it can't have written all");
    let kept = sandbox.stack("logs --no-log-prefix").ok().out;
    assert_eq!(numbers(&kept), (1..=300_000).collect::<Vec<_>>());
    let mut heard = String::new();
    up.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    assert!(up.wait().unwrap().success());
    assert!(heard.lines().filter(|line| line.starts_with("line ")).eq(kept.lines()));
}

/// Time that a process has had of the processors so far.
fn busy(pid: u32) -> Duration {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> =
        stat.rsplit_once(") ").unwrap().1.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    Duration::from_millis((fields[11] + fields[12]) * 10)
}

#[test]
fn following_fifty_silent_services_costs_nothing() {
    let services: String = (0..50).fold(String::new(), |text, number| text + &format!("  s{number}: *quiet\n"));
    let sandbox = Sandbox::with(&format!(
        "x-quiet: &quiet {{ image: stack/host, init: true, command: [sh, -c, 'echo here; exec sleep 1000'] }}\nservices:\n{services}"
    ));
    sandbox.stack("up -d -t 0").ok();
    let (out, mut follow) = (tempfile::NamedTempFile::new().unwrap(), sandbox.command(STACK, &["logs", "-f"]));
    let mut follow = follow.stdout(out.reopen().unwrap()).spawn().unwrap();
    let lines = || fs_err::read_to_string(out.path()).unwrap().lines().filter(|line| line.contains("here")).count();
    until_true("all fifty are heard", || lines() == 50);
    let pids = || {
        [
            follow.id(),
            sandbox.processes("__supervisor")[0].cast_unsigned(),
            sandbox.processes("__shim")[0].cast_unsigned(),
        ]
    };
    let pids = pids();
    until_true("they come to rest", || {
        let before = pids.map(busy);
        std::thread::park_timeout(Duration::from_millis(1500));
        pids.map(busy).iter().zip(before).all(|(now, before)| *now <= before + Duration::from_millis(20))
    });
    sandbox.stack("kill").ok();
    assert!(follow.wait().unwrap().success());
}
