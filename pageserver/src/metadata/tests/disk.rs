//! The journal on a disk that fails, and on one that is cut or damaged.

use super::super::{BranchRecord, BranchState, Journal, MetadataError, Record};
use super::{branch, tenant};
use ironpage_io::driver::simulator::{Disk, Faults, Simulator};
use ironpage_io::time::timeout;
use ironpage_io::{fs, random, run_on, spawn};
use ironpage_layout::metadata::JOURNAL_FILE;
use ironpage_layout::{TenantId, TimelineId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Written anew when it has more bytes than this, so that the tests see it often.
const REWRITE_BYTES: u64 = 2000;

fn simulate<F: Future>(seed: u64, disk: &Disk, faults: Faults, main: impl FnOnce() -> F) -> F::Output {
    run_on(Box::new(Simulator::new(seed, disk.clone(), faults)), main).unwrap()
}

async fn open() -> Result<Journal, MetadataError> {
    fs::create_dir_all("/data").await?;
    Journal::open_with(Path::new("/data"), REWRITE_BYTES).await
}

/// The id of the `number`th thing.
fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id
}

fn numbered(number: u64) -> Record {
    Record::Branch(BranchRecord { timeline: TimelineId(id(number)), ..branch(0, &format!("b{number}"), BranchState::Active) })
}

/// What was acknowledged is there after a power loss, whatever failed before; what was not may be. After an error
/// of the disk nothing more is acknowledged before a new start.
#[test]
fn what_was_acknowledged_survives() {
    let (mut acknowledged_total, mut poisoned_total, mut rewritten) = (0, 0, 0);
    for seed in 0..400 {
        let disk = Disk::new();
        simulate(seed, &disk, Faults::default(), || async {
            open().await.unwrap().commit(&[Record::Tenant(tenant(1, "t"))]).await.unwrap();
        });
        let acknowledged: Rc<RefCell<BTreeSet<u64>>> = Rc::default();
        let attempted = Rc::new(Cell::new(0));
        for process in 0..4 {
            let faults =
                Faults { failed_writes: 10, failed_syncs: 15, short_transfers: 100, interrupted: 50, ..Faults::default() };
            let (acked, next) = (acknowledged.clone(), attempted.clone());
            let outcome = simulate(seed * 10 + process, &disk, faults, || async move {
                let journal = match open().await {
                    Ok(journal) => Rc::new(journal),
                    Err(MetadataError::Io(_)) => return (0, 0),
                    Err(error) => panic!("seed {seed}: {error}"),
                };
                let there: BTreeSet<u64> = journal.state().branches().map(|branch| number(branch)).collect();
                assert!(there.is_superset(&acked.borrow()), "seed {seed}: {:?} lost", acked.borrow().difference(&there));
                let (poisoned, bytes) = (Rc::new(Cell::new(0)), journal.bytes());
                let tasks: Vec<_> = (0..3)
                    .map(|_| {
                        let (journal, acked, next, poisoned) = (journal.clone(), acked.clone(), next.clone(), poisoned.clone());
                        spawn(async move {
                            for _ in 0..12 {
                                let number = next.replace(next.get() + 1);
                                match journal.commit(&[numbered(number)]).await {
                                    Ok(state) => {
                                        assert_eq!(poisoned.get(), 0, "seed {seed}: acknowledged after an error");
                                        assert!(state.branch(TenantId([1; 16]), TimelineId(id(number))).is_some());
                                        acked.borrow_mut().insert(number);
                                    }
                                    Err(MetadataError::Poisoned { .. }) => {
                                        poisoned.set(poisoned.get() + 1);
                                        assert!(journal.failure().is_some());
                                        let state = journal.state();
                                        assert!(state.branch(TenantId([1; 16]), TimelineId(id(number))).is_none());
                                    }
                                    Err(error) => panic!("seed {seed}: {error}"),
                                }
                            }
                        })
                    })
                    .collect();
                let all = async {
                    for task in tasks {
                        task.await.unwrap();
                    }
                };
                let _ = timeout(Duration::from_micros(random() % 60_000), all).await;
                (poisoned.get(), usize::from(journal.bytes() < bytes + REWRITE_BYTES / 2 && journal.bytes() > REWRITE_BYTES))
            });
            poisoned_total += outcome.0;
            rewritten += outcome.1;
            // The process may end without the machine.
            if seed % 3 != 0 || process == 3 {
                disk.crash(seed * 10 + process);
            }
        }
        acknowledged_total += acknowledged.borrow().len();
        simulate(seed, &disk, Faults::default(), || async move {
            let journal = open().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let there: BTreeSet<u64> = journal.state().branches().map(|branch| number(branch)).collect();
            assert!(there.is_superset(&acknowledged.borrow()), "seed {seed}");
            assert!(there.iter().all(|number| *number < attempted.get()), "seed {seed}");
        });
    }
    assert!(
        acknowledged_total > 3000 && poisoned_total > 300 && rewritten > 10,
        "{acknowledged_total} {poisoned_total} {rewritten}"
    );
}

fn number(branch: &BranchRecord) -> u64 {
    u64::from_le_bytes(branch.timeline.0[..8].try_into().unwrap())
}

/// A change nobody waits for any more may be half on disk: the next one must not be put behind it.
#[test]
fn a_change_that_is_given_up_ends_all_changes() {
    for seed in 0..50 {
        let disk = Disk::new();
        simulate(seed, &disk, Faults::default(), || async {
            let journal = open().await.unwrap();
            journal.commit(&[Record::Tenant(tenant(1, "t"))]).await.unwrap();
            let given_up = timeout(Duration::from_micros(5), journal.commit(&[numbered(1)])).await.is_err();
            assert!(given_up);
            assert!(matches!(journal.commit(&[numbered(2)]).await, Err(MetadataError::Poisoned { .. })));
        });
        disk.crash(seed);
        simulate(seed, &disk, Faults::default(), || async {
            let journal = open().await.unwrap();
            assert!(journal.state().tenant(TenantId([1; 16])).is_some());
            journal.commit(&[numbered(2)]).await.unwrap();
        });
    }
}

#[test]
fn of_changes_at_once_each_sees_the_one_before() {
    let disk = Disk::new();
    simulate(1, &disk, Faults::default(), || async {
        let journal = Rc::new(open().await.unwrap());
        journal.commit(&[Record::Tenant(tenant(1, "t"))]).await.unwrap();
        let tasks: Vec<_> = (1..=20u8)
            .map(|number| {
                let journal = journal.clone();
                spawn(
                    async move { journal.commit(&[Record::Branch(branch(number, "main", BranchState::Creating))]).await.is_ok() },
                )
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            won += usize::from(task.await.unwrap());
        }
        assert_eq!((won, journal.state().branches().count()), (1, 1), "exactly one has the name");
        assert!(journal.failure().is_none(), "a refusal is no error of the disk");
    });
}

/// A write that is under way is no failure; one that is given up is.
#[test]
fn a_write_that_is_under_way_is_no_failure() {
    let disk = Disk::new();
    simulate(1, &disk, Faults::default(), || async {
        let journal = open().await.unwrap();
        journal.commit(&[Record::Tenant(tenant(1, "t"))]).await.unwrap();
        let records = [numbered(1)];
        let mut write = Box::pin(journal.commit(&records));
        std::future::poll_fn(|cx| {
            assert!(write.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        assert!(journal.failure().is_none());
        drop(write);
        assert!(journal.failure().is_some());
        assert!(journal.commit(&[numbered(2)]).await.is_err());
    });
}

/// Cut anywhere, the journal goes on from the last whole change; a bit that turns is an error that names the place.
#[test]
fn a_torn_tail_is_cut_and_damage_is_named() {
    let disk = Disk::new();
    let bytes = simulate(1, &disk, Faults::default(), || async {
        let journal = open().await.unwrap();
        journal.commit(&[Record::Tenant(tenant(1, "t"))]).await.unwrap();
        for number in 0..5 {
            journal.commit(&[numbered(number)]).await.unwrap();
        }
        fs::read(Path::new("/data").join(JOURNAL_FILE)).await.unwrap()
    });
    let put = |bytes: Vec<u8>| {
        let disk = Disk::new();
        simulate(1, &disk, Faults::default(), || async move {
            fs::create_dir_all("/data").await.unwrap();
            fs::write_atomic(Path::new("/data").join(JOURNAL_FILE), &bytes).await.unwrap();
        });
        disk
    };
    let mut counts = BTreeSet::new();
    for length in 32..bytes.len() {
        let disk = put(bytes[..length].to_vec());
        let count = simulate(1, &disk, Faults::default(), || async {
            let journal = open().await.unwrap();
            let count = journal.state().branches().count();
            if journal.state().tenants().next().is_none() {
                journal.commit(&[Record::Tenant(tenant(1, "t"))]).await.unwrap();
            }
            journal.commit(&[numbered(99)]).await.unwrap();
            count
        });
        // It is whole again, with the change behind the cut.
        let again = simulate(1, &disk, Faults::default(), || async { open().await.unwrap().state().branches().count() });
        assert_eq!(again, count + 1, "cut at {length}");
        counts.insert(count);
    }
    assert_eq!(counts, (0..5).collect());
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let error = simulate(1, &put(damaged), Faults::default(), || async { open().await.map(drop).unwrap_err().to_string() });
        assert!(error.contains("/data/metadata.journal") && error.contains("restore"), "{error}");
        assert!(at < 8 || error.contains("offset"), "{error}");
    }
}

#[test]
fn a_journal_that_contradicts_itself_names_the_place() {
    use ironpage_layout::metadata::{FileHead, encode_batch};
    let mut bytes = FileHead { first_sequence: 1 }.encode().to_vec();
    encode_batch(1, &[Record::Tenant(tenant(1, "t"))], &mut bytes);
    let second = bytes.len();
    encode_batch(2, &[Record::Tenant(tenant(2, "t"))], &mut bytes);
    let error = simulate(1, &Disk::new(), Faults::default(), || async move {
        fs::create_dir_all("/data").await.unwrap();
        fs::write_atomic(Path::new("/data").join(JOURNAL_FILE), &bytes).await.unwrap();
        open().await.map(drop).unwrap_err().to_string()
    });
    assert!(error.contains(&format!("offset {second}")) && error.contains("'t' already"), "{error}");
}

/// A journal written anew says the same, and is much shorter.
#[test]
fn a_long_journal_is_written_anew() {
    let disk = Disk::new();
    let (before, bytes) = simulate(1, &disk, Faults::default(), || async {
        let journal = open().await.unwrap();
        journal.commit(&[Record::Tenant(tenant(1, "t")), numbered(1)]).await.unwrap();
        let parent = TimelineId(id(1));
        for number in 2..8 {
            let Record::Branch(branch) = numbered(number) else { unreachable!("it is a branch") };
            let state = [BranchState::Active, BranchState::Deleting][number as usize % 2];
            journal.commit(&[Record::Branch(BranchRecord { parent: Some(parent), state, ..branch })]).await.unwrap();
        }
        for time in 0..500 {
            let Record::Branch(branch) = numbered(1) else { unreachable!("it is a branch") };
            journal.commit(&[Record::Branch(BranchRecord { expires_at_us: Some(time), ..branch })]).await.unwrap();
        }
        (journal.state(), journal.bytes())
    });
    assert!(bytes < 20 * REWRITE_BYTES, "{bytes} bytes");
    let after = simulate(1, &disk, Faults::default(), || async { open().await.unwrap().state() });
    assert_eq!(*before, *after);
}
