//! What lies above the driver, under faults no real disk gives on demand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::{Disk, Faults, Simulator};
use crate::executor::run_on;
use crate::fs::{self, File, Options};
use crate::time::{now, sleep, timeout};
use crate::{Errno, Error, IoBuf, IoError, random, spawn};

const BLOCK: usize = 4096;
const FILE: Options =
    Options { read: true, write: true, create: true, create_new: false, truncate: false, direct: true, dsync: false };

fn simulate<F: Future>(seed: u64, disk: &Disk, faults: Faults, main: impl FnOnce() -> F) -> (F::Output, u64) {
    let simulator = Simulator::new(seed, disk.clone(), faults);
    let trace = simulator.trace();
    let output = run_on(Box::new(simulator), main).unwrap();
    (output, trace.hash())
}

fn filled(len: usize, value: u8) -> IoBuf {
    let mut buf = IoBuf::zeroed(len);
    buf.fill(value);
    buf
}

async fn some_work() {
    let file = File::open("/f", FILE).await.unwrap();
    let tasks: Vec<_> = (0..200u64)
        .map(|index| {
            let file = file.clone();
            spawn(async move {
                sleep(Duration::from_micros(random() % 1000)).await;
                file.write_all_at(filled(2 * BLOCK, index as u8), index * BLOCK as u64).await.0.unwrap();
                file.read_exact_at(IoBuf::zeroed(BLOCK), index * BLOCK as u64).await.0.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    file.sync_data().await.unwrap();
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| simulate(seed, &Disk::new(), Faults::default(), some_work).1;
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn short_and_interrupted_transfers_are_resumed() {
    for seed in 0..50 {
        let faults = Faults { short_transfers: 400, interrupted: 200, ..Faults::default() };
        simulate(seed, &Disk::new(), faults, || async {
            for direct in [true, false] {
                let file = File::open("/f", Options { direct, ..FILE }).await.unwrap();
                let mut data = IoBuf::zeroed(20 * BLOCK);
                data.iter_mut().for_each(|byte| *byte = random() as u8);
                let (result, data) = file.write_all_at(data, BLOCK as u64).await;
                result.unwrap();
                let (result, data) = file.write_durable_at(data, 30 * BLOCK as u64).await;
                result.unwrap();
                for offset in [1, 30] {
                    let (result, buf) = file.read_at(IoBuf::zeroed(20 * BLOCK), offset * BLOCK as u64).await;
                    assert_eq!(result.unwrap(), 20 * BLOCK);
                    assert!(buf[..] == data[..], "seed {seed}");
                }
                let (result, _) = file.read_at(data, 45 * BLOCK as u64).await;
                assert_eq!(result.unwrap(), 5 * BLOCK);
            }
        });
    }
}

/// A log of blocks: what `append` acknowledged must be there after a crash, whatever failed.
#[test]
fn what_was_acknowledged_survives_a_crash() {
    let mut acknowledged_total = 0;
    let mut poisoned_total = 0;
    for seed in 0..300 {
        let disk = Disk::new();
        let faults = Faults { failed_writes: 5, failed_syncs: 10, short_transfers: 100, interrupted: 50, failed_reads: 0 };
        let acknowledged = Rc::new(RefCell::new(Vec::new()));
        let poisoned = Rc::new(Cell::new(0));
        let (acked, poison) = (acknowledged.clone(), poisoned.clone());
        simulate(seed, &disk, faults, || async move {
            fs::create_dir_all("/wal").await.unwrap();
            let file = File::open("/wal/segment", FILE).await.unwrap();
            if fs::sync_dir("/wal").await.is_err() {
                return;
            }
            let next = Rc::new(Cell::new(0u64));
            let writers = (0..4).map(|writer| {
                let (file, next, acked, poison) = (file.clone(), next.clone(), acked.clone(), poison.clone());
                spawn(async move {
                    for _ in 0..20 {
                        let block = next.replace(next.get() + 1);
                        let buf = filled(BLOCK, block as u8 + 1);
                        let offset = block * BLOCK as u64;
                        let result = match writer % 2 {
                            0 => file.write_durable_at(buf, offset).await.0,
                            _ => match file.write_all_at(buf, offset).await.0 {
                                Ok(()) => file.sync_data().await,
                                Err(error) => Err(error),
                            },
                        };
                        match result {
                            Ok(()) => acked.borrow_mut().push(block),
                            Err(IoError::Poisoned { .. }) => poison.set(poison.get() + 1),
                            Err(error) => {
                                assert_eq!(error.errno(), Some(Errno(libc::EIO)));
                                assert!(file.is_poisoned());
                            }
                        }
                    }
                })
            });
            let writers: Vec<_> = writers.collect();
            // The power fails somewhere in the middle.
            let all = async {
                for writer in writers {
                    writer.await.unwrap();
                }
            };
            let _ = timeout(Duration::from_micros(random() % 40_000), all).await;
        });
        disk.crash(seed);
        acknowledged_total += acknowledged.borrow().len();
        poisoned_total += poisoned.get();
        simulate(seed, &disk, Faults::default(), || async move {
            for block in acknowledged.take() {
                let file = File::open("/wal/segment", FILE).await.unwrap();
                let (result, buf) = file.read_exact_at(IoBuf::zeroed(BLOCK), block * BLOCK as u64).await;
                result.unwrap();
                assert!(buf.iter().all(|byte| *byte == block as u8 + 1), "seed {seed}: block {block} was lost");
            }
        });
    }
    assert!(acknowledged_total > 1000 && poisoned_total > 100, "{acknowledged_total} {poisoned_total}");
}

#[test]
fn a_failed_sync_poisons_though_the_next_would_succeed() {
    let disk = Disk::new();
    simulate(1, &disk, Faults { failed_syncs: 1000, ..Faults::default() }, || async {
        let file = File::open("/f", FILE).await.unwrap();
        file.write_all_at(filled(BLOCK, 1), 0).await.0.unwrap();
        assert_eq!(file.sync_data().await.unwrap_err().to_string(), "fdatasync of /f failed: Input/output error (os error 5)");
        let again = file.sync_data().await.unwrap_err().to_string();
        assert!(again.starts_with("fdatasync of /f refused") && again.contains("Input/output error"), "{again}");
        // Reads go on.
        assert_eq!(file.read_at(IoBuf::zeroed(BLOCK), 0).await.0.unwrap(), BLOCK);
        let error = file.write_durable_at(filled(BLOCK, 2), 0).await.0.unwrap_err();
        assert!(matches!(error, IoError::Poisoned { .. }));
    });
}

#[test]
fn atomic_writes_are_old_or_new_after_a_crash() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..200 {
        let disk = Disk::new();
        simulate(seed, &disk, Faults { short_transfers: 100, ..Faults::default() }, || async {
            fs::write_atomic("/c", &[1; 5000]).await.unwrap();
            let _ = timeout(Duration::from_micros(random() % 1500), fs::write_atomic("/c", &[2; 6000])).await;
        });
        disk.crash(seed);
        let (content, _) = simulate(seed, &disk, Faults::default(), || async { fs::read("/c").await.unwrap() });
        match content.first() {
            Some(1) => {
                assert_eq!(content, [1; 5000]);
                old += 1;
            }
            _ => {
                assert_eq!(content, [2; 6000]);
                new += 1;
            }
        }
    }
    assert!(old > 10 && new > 10, "{old} {new}");
}

#[test]
fn a_core_that_nothing_can_wake_is_an_error_and_time_is_virtual() {
    let begin = std::time::Instant::now();
    let (slept, _) = simulate(1, &Disk::new(), Faults::default(), || async {
        let begin = now();
        sleep(Duration::from_secs(100_000)).await;
        begin.elapsed()
    });
    assert_eq!(slept, Duration::from_secs(100_000));
    assert!(begin.elapsed() < Duration::from_secs(100));
    let stuck = run_on(Box::new(Simulator::new(1, Disk::new(), Faults::default())), std::future::pending::<()>);
    assert!(matches!(stuck, Err(Error::Ring { errno: Errno(libc::EDEADLK), .. })));
}
