//! Waiting for something to come true.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long anything may take, on a busy machine too. An emulated one says by `SLOWNESS` how many times as long.
pub(crate) static DEADLINE: LazyLock<Duration> = LazyLock::new(|| {
    let slowness = std::env::var("SLOWNESS").map_or(1, |text| text.parse().expect("SLOWNESS is a number"));
    Duration::from_secs(20) * slowness
});

/// Asks again and again until the answer is `Some`; fails after [`DEADLINE`].
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + *DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "did not come true in {:?}: {what}", *DEADLINE);
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Asks again and again until it is true.
pub(crate) fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || ask().then_some(()));
}
