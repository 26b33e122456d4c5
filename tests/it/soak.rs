//! Long runs, left out of `make test`: `make soak`.

use std::time::Instant;

use crate::sandbox::Sandbox;

const THREE: &str = r#"
x-service: &service
  image: stack/host
  init: true
  command: ["sleep", "1000"]
services:
  a: { <<: *service, ports: ["18080:80"] }
  b: { <<: *service, depends_on: [a], volumes: ["data:/data"] }
  c: { <<: *service, depends_on: [b] }
volumes: { data: {} }
"#;

/// What the stack's two processes and its root hold.
fn holdings(sandbox: &Sandbox) -> Vec<(&'static str, usize)> {
    let count = |path: String| fs_err::read_dir(path).map_or(0, Iterator::count);
    let lines = |path: String| fs_err::read_to_string(path).map_or(0, |text| text.lines().count());
    let of = |word: &str, what: &dyn Fn(i32) -> usize| sandbox.processes(word).into_iter().map(what).sum();
    let (descriptors, mounts) = (|pid| count(format!("/proc/{pid}/fd")), |pid| lines(format!("/proc/{pid}/mountinfo")));
    vec![
        ("files open in the supervisor", of("__supervisor", &descriptors)),
        ("files open in the shim", of("__shim", &descriptors)),
        ("mounts of the shim", of("__shim", &mounts)),
        ("mounts", lines("/proc/self/mountinfo".to_owned())),
        ("files", walk(&sandbox.root())),
        ("links", lines("/proc/thread-self/net/dev".to_owned())),
    ]
}

/// Files and folders, but for the older half of the history: there is none before it is full for the first time.
fn walk(folder: &std::path::Path) -> usize {
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_name() != "history.1");
    entries.map(|entry| 1 + if entry.path().is_dir() { walk(&entry.path()) } else { 0 }).sum()
}

#[test]
#[ignore = "long: `make soak`"]
fn two_hundred_times_up_and_down() {
    let sandbox = Sandbox::with(THREE);
    let begin = Instant::now();
    for _ in 0..200 {
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.ps().len(), 3);
        sandbox.stack("down -v").ok();
        assert_eq!(sandbox.left(), Vec::<String>::new());
    }
    println!("200 times up and down took {:.1} s", begin.elapsed().as_secs_f64());
}

/// The same, with a service that stays, and so do the supervisor and the shim.
#[test]
#[ignore = "long: `make soak`"]
fn two_hundred_times_up_and_down_beside_one_that_stays() {
    let sandbox = Sandbox::with(THREE);
    sandbox.file("keeper.yaml", "services: { keeper: { image: stack/host, init: true, command: [sleep, infinity] } }");
    sandbox.stack("-f keeper.yaml up -d").ok();
    let round = || {
        sandbox.stack("up -d").ok();
        assert_eq!(sandbox.ps().len(), 4);
        sandbox.stack("down -v").ok();
        assert_eq!(sandbox.ps().len(), 1);
    };
    (0..5).for_each(|_| round());
    let before = holdings(&sandbox);
    (0..200).for_each(|_| round());
    crate::poll::until_true(&format!("{:?} are {before:?} again", holdings(&sandbox)), || holdings(&sandbox) == before);
    println!("after 200 rounds as before: {before:?}");
    sandbox.stack("-f keeper.yaml down").ok();
}
