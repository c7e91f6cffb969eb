//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value; panics with `what` after `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`eventually`], for a condition that is true or not.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    eventually(what, limit, || condition().then_some(()));
}
