//! Waiting for something to come true.

use std::time::{Duration, Instant};

/// How long anything may take, on a busy machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Asks again and again until the answer is `Some`; fails after [`DEADLINE`].
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "did not come true in {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Asks again and again until it is true.
pub(crate) fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || ask().then_some(()));
}
