//! Fault points: `STACK_FAULT=kill@N`, `delay@N` makes the supervisor die or pause before the N-th step it begins.
//! The crash tests drive them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Passes a fault point.
pub(crate) fn point() {
    static PLAN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let plan = PLAN.get_or_init(|| {
        let text = std::env::var("STACK_FAULT").ok()?;
        let (kind, number) = text.split_once('@')?;
        Some((kind.to_owned(), number.parse().ok()?))
    });
    let Some((kind, number)) = plan else { return };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 != *number {
        return;
    }
    match kind.as_str() {
        "kill" => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        "delay" => std::thread::sleep(Duration::from_secs(1)),
        _ => {}
    }
}
