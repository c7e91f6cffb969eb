//! Latencies of many operations, and what is said of them.

use crate::interrupt;
use serde::Serialize;
use std::time::Duration;

/// Rate and percentiles of one closed-loop run.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Summary {
    pub operations: usize,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Sorts `samples` and sums them up over the time they took together.
pub fn summarise(mut samples: Vec<Duration>, elapsed: Duration) -> Summary {
    samples.sort_unstable();
    // Nearest rank: the smallest sample that so much of all are not above. Of few samples p99 is the largest.
    let at = |quantile: f64| {
        let rank = (samples.len() as f64 * quantile).ceil() as usize;
        samples.get(rank.saturating_sub(1)).map_or(0.0, |sample| sample.as_secs_f64() * 1e6)
    };
    Summary {
        operations: samples.len(),
        per_second: samples.len() as f64 / elapsed.as_secs_f64().max(1e-9),
        p50_us: at(0.5),
        p99_us: at(0.99),
    }
}

/// Sums up samples that were taken one after the other, with other things between them.
pub fn summarise_alone(samples: Vec<Duration>) -> Summary {
    let together = samples.iter().sum();
    summarise(samples, together)
}

/// Runs `clients` threads of `operation` in a closed loop for `time`; each gets its own state from `start`.
pub fn closed_loop<S>(
    clients: usize,
    time: Duration,
    start: impl Fn(usize) -> anyhow::Result<S> + Sync,
    operation: impl Fn(&mut S) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Summary> {
    let begun = std::time::Instant::now();
    let samples = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                let (start, operation) = (&start, &operation);
                scope.spawn(move || -> anyhow::Result<Vec<Duration>> {
                    let mut state = start(number)?;
                    let mut samples = Vec::new();
                    while begun.elapsed() < time {
                        interrupt::check()?;
                        let asked = std::time::Instant::now();
                        operation(&mut state)?;
                        samples.push(asked.elapsed());
                    }
                    Ok(samples)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a client thread panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    Ok(summarise(samples, begun.elapsed()))
}

/// A small generator of uniform numbers (xorshift64*), one per client.
pub struct Random(u64);

impl Random {
    pub fn new(seed: usize) -> Random {
        Random((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: impl IntoIterator<Item = u64>) -> Summary {
        summarise_alone(samples.into_iter().map(Duration::from_micros).collect())
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred = of((1..=100).rev());
        assert_eq!((hundred.operations, hundred.p50_us, hundred.p99_us), (100, 50.0, 99.0));
        let three = of([30, 10, 20]);
        assert_eq!((three.p50_us, three.p99_us), (20.0, 30.0));
        let one = of([7]);
        assert_eq!((one.p50_us, one.p99_us), (7.0, 7.0));
        let none = of([]);
        assert_eq!((none.operations, none.p50_us, none.p99_us, none.per_second), (0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn the_rate_is_over_the_time_they_took() {
        let summary = of([500_000, 1_500_000]);
        assert!((summary.per_second - 1.0).abs() < 1e-9, "{summary:?}");
    }
}
