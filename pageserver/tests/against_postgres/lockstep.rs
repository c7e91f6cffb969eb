//! The oracle of ingest and redo: the pages a pageserver makes of real WAL are those that recovery by Postgres makes.
//!
//! A scratch cluster runs a workload with full_page_writes off. Its initial state is imported, its WAL ingested,
//! with a flush, a restart that re-ingests, and reads on the way. Beside it a cold copy of the initial state
//! recovers from the same WAL. Then every block of every relation and SLRU is compared, bit for bit.

use crate::datadir::DataDir;
use crate::scratch::{Scratch, worker};
use crate::wal::Wal;
use crate::{oracle, workload};
use ironpage_layout::key::SlruKind;
use ironpage_layout::{BlockNumber, Fork, Key, Lsn, RelTag, TenantId, TimelineId, Value};
use ironpage_pageserver::reconstruct::ForkState;
use ironpage_pageserver::store::{StoreConfig, TimelineRecord};
use ironpage_pageserver::timeline::{Known, Timeline, Timelines, TimelinesConfig};
use ironpage_pageserver::worker::Worker;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

/// WAL goes in in pieces of this size, which is no multiple of anything.
const CHUNK: usize = 100_003;

#[test]
fn pages_are_those_of_recovery() {
    let scratch = Scratch::new("lockstep", workload::everything);
    let wal = Wal::of(&scratch);
    let oracle = oracle::recover(&scratch, wal.last_record);
    let dir = scratch.dir.join("pageserver");
    let outcome = ironpage_io::run(ironpage_io::Config::default(), || async {
        let worker = worker(&scratch.dir);
        ingest(&dir, &worker, &scratch, &wal).await;
        // What was only in memory is gone now; the rest of the WAL comes again.
        let timelines = Timelines::open(config(&dir), worker.clone(), Known::All).await.unwrap();
        let timeline = timelines.all().pop().expect("the timeline was flushed");
        let from = timeline.store().last_record_lsn();
        assert!(from > wal.start && from < wal.end, "the restart is in the middle of the WAL, at {from}");
        feed(&timeline, &wal, wal.end).await;
        assert_eq!(timeline.store().last_record_lsn(), wal.end);
        let compared = compare(&timeline, &oracle).await;
        let counters = worker.counters();
        worker.stop();
        (compared, counters)
    });
    let (compared, counters) = outcome.unwrap();
    eprintln!("compared {compared:?}; redo {counters:?}; WAL {} to {}", wal.start, wal.end);
    assert_eq!(compared.differences, Vec::<String>::new());
    assert!(compared.blocks > 5_000 && compared.maps > 10 && compared.slru_pages >= 3, "{compared:?}");
    assert_eq!((counters.failures, counters.starts), (0, 1));
}

fn config(dir: &Path) -> TimelinesConfig {
    // Small, so that most of the WAL is in layer files in the end.
    let store = StoreConfig { memory_bytes_max: 12 << 20, ..StoreConfig::default() };
    TimelinesConfig { dir: dir.to_path_buf(), store }
}

/// Imports the initial state, and ingests most of the WAL.
async fn ingest(dir: &Path, worker: &Worker, scratch: &Scratch, wal: &Wal) {
    std::fs::create_dir_all(dir).unwrap();
    let timelines = Timelines::open(config(dir), worker.clone(), Known::All).await.unwrap();
    let record = TimelineRecord {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        name: "main".into(),
        system_id: wal.system_id,
        postgres_version: 150_000,
        start_lsn: wal.start,
        prev_record_lsn: wal.prev,
        readable_lsn: wal.start,
        ancestor: None,
    };
    let mut import = timelines.import(record.clone()).await.unwrap().expect("it is new");
    let mut items = 0;
    for item in scratch.initial.items() {
        items += 1;
        import.item(&item.as_item()).await.unwrap();
    }
    assert!(timelines.all().is_empty(), "nobody sees an import before its end");
    let timeline = import.finish(items, Lsn::INVALID).await.unwrap();
    assert!(timelines.import(record).await.unwrap().is_none(), "a repeat is told apart");

    // Flushes come by memory; this one is in the middle in any case.
    feed(&timeline, wal, wal.start + wal.bytes.len() as u64 / 2).await;
    timeline.store().flush().await.unwrap();
    feed(&timeline, wal, wal.start + wal.bytes.len() as u64 / 10 * 9).await;
}

/// Ingests up to `to`, reading some pages now and then: what a read puts back must not change what is there.
async fn feed(timeline: &Rc<Timeline>, wal: &Wal, to: Lsn) {
    let mut stream = timeline.wal_stream();
    let mut reads = 0u32;
    while stream.position() < to {
        let at = stream.position();
        let from = at.since(wal.start) as usize;
        let chunk = &wal.bytes[from..(from + CHUNK).min(to.since(wal.start) as usize)];
        stream.feed(at, chunk).unwrap();
        timeline.ingest(&mut stream).await.unwrap();
        reads += 1;
        let forks: Vec<_> = timeline.head().unwrap().relation_forks().filter(|fork| fork.2 > 0 && fork.1 == Fork::Main).collect();
        let lsn = timeline.store().last_record_lsn();
        for step in 0..20 {
            let (rel, fork, blocks) = forks[(reads * 37 + step * 101) as usize % forks.len()];
            let block = BlockNumber((reads * 13 + step) % blocks);
            let state = timeline.fork(rel, fork, lsn).await.unwrap();
            timeline.page(&state, block).await.unwrap();
        }
    }
}

#[derive(Default, Debug)]
struct Compared {
    blocks: u64,
    maps: u64,
    slru_pages: u64,
    differences: Vec<String>,
}

impl Compared {
    fn check(&mut self, what: impl std::fmt::Display, ours: &[u8], theirs: &[u8]) {
        if let Some(at) = ours.iter().zip(theirs).position(|(one, other)| one != other) {
            let count = ours.iter().zip(theirs).filter(|(one, other)| one != other).count();
            self.differences.push(format!(
                "{what}: {count} bytes differ, the first at {at}: {:02x?} instead of {:02x?}",
                &ours[at..(at + 16).min(ours.len())],
                &theirs[at..(at + 16).min(theirs.len())]
            ));
        } else if ours.len() != theirs.len() {
            self.differences.push(format!("{what}: {} bytes instead of {}", ours.len(), theirs.len()));
        }
    }
}

async fn compare(timeline: &Rc<Timeline>, oracle: &DataDir) -> Compared {
    let mut compared = Compared::default();
    let lsn = timeline.store().last_record_lsn();
    let mut ours: BTreeSet<(RelTag, Fork)> = BTreeSet::new();
    let forks: Vec<_> = timeline.head().unwrap().relation_forks().filter(|fork| fork.1 != Fork::Fsm).collect();
    for (rel, fork, blocks) in forks {
        ours.insert((rel, fork));
        let theirs = oracle.relation(rel, fork);
        if theirs.len() != blocks as usize * 8192 {
            compared.differences.push(format!("{rel} {fork:?}: {blocks} blocks instead of {}", theirs.len() / 8192));
            continue;
        }
        let state = Rc::new(timeline.fork(rel, fork, lsn).await.unwrap());
        let stored = ForkState::read(timeline.store(), rel, fork, lsn).await.unwrap();
        assert_eq!(*state, stored, "the head and the store agree");
        let reads: Vec<_> = (0..blocks)
            .map(|block| {
                let (timeline, state) = (timeline.clone(), state.clone());
                ironpage_io::spawn(async move { timeline.page(&state, BlockNumber(block)).await })
            })
            .collect();
        for (block, (read, page)) in reads.into_iter().zip(theirs.chunks_exact(8192)).enumerate() {
            match read.await.unwrap() {
                Ok(ours) => compared.check(format_args!("block {block} of {rel} {fork:?}"), &ours[..], page),
                Err(error) => compared.differences.push(format!("block {block} of {rel} {fork:?}: {error}")),
            }
            compared.blocks += u64::from(fork == Fork::Main);
            compared.maps += u64::from(fork == Fork::Vm);
        }
    }
    for missing in oracle.relations().into_iter().filter(|one| one.1 != Fork::Fsm && !ours.contains(one)) {
        compared.differences.push(format!("{} {:?} is missing", missing.0, missing.1));
    }
    for slru in SlruKind::ALL {
        let theirs = oracle.slru(slru);
        let ours: Vec<u32> = timeline.head().unwrap().slru_pages(slru).iter().copied().collect();
        for (number, page) in &theirs {
            if !ours.contains(number) && page.iter().any(|byte| *byte != 0) {
                compared.differences.push(format!("page {number} of {slru:?} is missing"));
            }
        }
        for number in ours {
            let page = timeline.slru_page(Key::slru(slru, number), lsn).await.unwrap();
            match (page, theirs.get(&number)) {
                (Some(page), Some(theirs)) => compared.check(format_args!("page {number} of {slru:?}"), &page[..], theirs),
                (page, theirs) => compared.differences.push(format!(
                    "page {number} of {slru:?}: here {}, there {}",
                    page.is_some(),
                    theirs.is_some()
                )),
            }
            compared.slru_pages += 1;
        }
    }
    for (tablespace, database, map) in oracle.rel_maps() {
        let versions = timeline.store().values(Key::rel_map(tablespace, database), lsn, Lsn::INVALID).await.unwrap();
        match versions.first().map(|version| Value::decode(&version.bytes)) {
            Some(Ok(Value::Blob(ours))) => compared.check(format_args!("map of {tablespace}/{database}"), &ours, &map),
            other => compared.differences.push(format!("map of {tablespace}/{database}: {other:?}")),
        }
    }
    let prepared: Vec<u32> = timeline.head().unwrap().two_phase_xids().iter().copied().collect();
    assert_eq!(prepared, oracle.two_phase().iter().map(|(xid, _)| *xid).collect::<Vec<_>>());
    for (xid, state) in oracle.two_phase() {
        let versions = timeline.store().values(Key::two_phase(xid), lsn, Lsn::INVALID).await.unwrap();
        match versions.first().map(|version| Value::decode(&version.bytes)) {
            Some(Ok(Value::Blob(ours))) => compared.check(format_args!("prepared transaction {xid}"), &ours, &state),
            other => compared.differences.push(format!("prepared transaction {xid}: {other:?}")),
        }
    }
    compared
}
