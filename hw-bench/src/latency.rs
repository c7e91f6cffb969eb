//! Latencies of many operations, and what is said of them.

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
    let at = |quantile: f64| {
        let index = ((samples.len().saturating_sub(1)) as f64 * quantile) as usize;
        samples.get(index).map_or(0.0, |sample| sample.as_secs_f64() * 1e6)
    };
    Summary {
        operations: samples.len(),
        per_second: samples.len() as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
    }
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
