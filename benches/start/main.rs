//! What a start costs beside what the kernel takes for it: the floor and `stack`'s runtime, by turns, on the same root.
//! `unshare --net sh -c 'ip link set lo up; cargo bench --bench start'`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "the figures are its output, and there is no other")]

mod floor;
mod lab;
mod ours;
mod wire;

use std::time::{Duration, Instant};

use lab::{Lab, Times};
use ours::Runtime;

const RUNS: usize = 200;
const MANY: usize = 100;

fn main() {
    // The floor's clones come from a process with one thread.
    let lab = Lab::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let ours = Runtime::new(&lab);
        let (mut floor, mut stack) = (Vec::new(), Vec::new());
        for number in 0..RUNS {
            floor.push(floor::run(&lab, number, "/bin/true").unwrap());
            stack.push(ours.run(&lab, number, "/bin/true").await);
        }
        println!("{:28} {:>10} {:>10} {:>8}", "ms, median (90 %)", "floor", "stack", "ratio");
        row("start to exec", &floor, &stack, |times| times.exec);
        row("start to exit", &floor, &stack, |times| times.exit);
        let begin = Instant::now();
        ours.hold(&lab, MANY).await;
        println!("{MANY} containers running after {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
        ours.end().await;
    });
}

fn row(name: &str, floor: &[Times], stack: &[Times], part: impl Fn(&Times) -> Duration) {
    let place = |times: &[Times], share: usize| {
        let mut values: Vec<f64> = times.iter().map(|times| part(times).as_secs_f64() * 1e3).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() * share / 100]
    };
    let [floor, stack] = [floor, stack].map(|times| (place(times, 50), place(times, 90)));
    let cell = |(median, most): (f64, f64)| format!("{median:.2} ({most:.2})");
    println!("{name:28} {:>14} {:>14} {:>5.2} ×", cell(floor), cell(stack), stack.0 / floor.0);
}
