//! Acceptors and proposers in a world of lost, late and doubled messages, crashes that lose what was not
//! flushed, partitions and leaders that die at any time.
//!
//! Each test runs seeds for `IRONPAGE_SIM_SECONDS` (default 5). A failure prints its seed; that one alone
//! runs again with `IRONPAGE_SIM_SEED`. With the feature `planted-ack-before-flush` the first test must
//! fail, with `planted-vote-not-persisted` the second.

mod sim;

use sim::{Faults, World};
use std::time::{Duration, Instant};

struct PrintSeed(&'static str, u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to see it again: IRONPAGE_SIM_SEED={} cargo test -p ironpage-consensus {}", self.1, self.0);
        }
    }
}

/// The clock here only says when to stop.
#[allow(clippy::disallowed_methods)]
fn run(test: &'static str, faults_of: impl Fn(u64) -> Faults) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("IRONPAGE_SIM_SEED") {
        let _print = PrintSeed(test, seed);
        World::run(seed, faults_of(seed));
        return;
    }
    let time = Duration::from_secs(number("IRONPAGE_SIM_SECONDS").unwrap_or(5));
    let first = Instant::now();
    let base = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let (mut seeds, mut terms, mut bytes) = (0u64, 0, 0);
    let mut seen = sim::Seen::default().all();
    while seeds == 0 || first.elapsed() < time {
        let seed = base.wrapping_add(seeds);
        let _print = PrintSeed(test, seed);
        let outcome = World::run(seed, faults_of(seed));
        seeds += 1;
        terms += outcome.terms;
        bytes += outcome.committed_bytes;
        seen.iter_mut().zip(outcome.seen.all()).for_each(|(sum, (_, count))| sum.1 += count);
    }
    eprintln!("{test}: {seeds} seeds from {base} on, {terms} terms won, {bytes} bytes committed, {seen:?}");
    assert!(terms as u64 >= seeds && bytes > seeds * 2000, "the simulation does not do its work");
    for (what, count) in seen.into_iter().filter(|_| seeds > 1000) {
        assert!(count > 0, "{what} never came up");
    }
}

/// Long terms with much WAL, in which disks lose power.
#[test]
fn no_acknowledged_byte_is_lost() {
    run("no_acknowledged_byte_is_lost", |seed| Faults {
        loss: [0, 5, 30][(seed % 3) as usize],
        duplicate: 20,
        reorder: [0, 3, 30, 100][(seed % 4) as usize],
        node_crash: 10,
        all_crash: [0, 10][(seed % 2) as usize],
        leader_death: 10,
        new_leader: 20,
        worker_restart: 5,
        partition: 20,
        heal: 60,
        duration_ms: 6000,
    });
}

/// Many candidates at a time, and crashes between vote and victory.
#[test]
fn a_term_has_one_leader() {
    run("a_term_has_one_leader", |seed| Faults {
        loss: [0, 10, 50][(seed % 3) as usize],
        duplicate: 50,
        reorder: [0, 20, 100][(seed / 3 % 3) as usize],
        node_crash: 60,
        all_crash: 5,
        leader_death: 60,
        new_leader: 400,
        worker_restart: 10,
        partition: 60,
        heal: 100,
        duration_ms: 3000,
    });
}
