//! Branches of real WAL: at record ends, in the midst of records, at the edges of pages, segments and buckets. What a
//! branch has is compared with a fresh ingest of the WAL up to its start, which knows nothing of branches, and with what
//! the parent has there.

use crate::safekeeper::Safekeeper;
use crate::scratch::{Scratch, worker};
use crate::wal::Wal;
use crate::workload;
use ironpage_daemon::cli::Address;
use ironpage_io::time::{now, sleep, timeout};
use ironpage_layout::history::BUCKET_BITS;
use ironpage_layout::key::SlruKind;
use ironpage_layout::lsn::{WAL_PAGE_SIZE, WAL_SEGMENT_SIZE};
use ironpage_layout::postgres::rmgr::{Rmgr, xact};
use ironpage_layout::postgres::wal::{DecodedRecord, Next, Verify, WalStream};
use ironpage_layout::postgres::xact::{Completion, CompletionKind, HasInfo};
use ironpage_layout::{BlockNumber, Fork, Key, Lsn, RelTag, TenantId, TimelineId};
use ironpage_pageserver::receiver;
use ironpage_pageserver::reconstruct::ForkState;
use ironpage_pageserver::store::{StoreConfig, StoreError, TimelineRecord};
use ironpage_pageserver::timeline::{At, Known, NewBranch, Timeline, TimelineError, Timelines, TimelinesConfig, WaitError};
use ironpage_pageserver::worker::Worker;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const TENANT: TenantId = TenantId([1; 16]);
const ROOT: TimelineId = TimelineId([2; 16]);
const LONG: Duration = Duration::from_secs(60);
/// WAL goes in in pieces of this size, which is no multiple of anything.
const CHUNK: usize = 100_003;

#[derive(Clone, Copy)]
struct Entry {
    start: Lsn,
    end: Lsn,
    commit_time: Option<i64>,
}

/// All records of the workload.
fn records(wal: &Wal) -> Vec<Entry> {
    let mut stream = WalStream::new(wal.start, Verify::Crc).with_prev(wal.prev);
    stream.feed(wal.start, &wal.bytes).unwrap();
    let mut records = Vec::new();
    while let Ok(Next::Record(record)) = stream.next_record() {
        let decoded = DecodedRecord::decode(record.bytes).unwrap();
        let is_commit = decoded.rmgr() == Some(Rmgr::Transaction)
            && [xact::COMMIT, xact::COMMIT_PREPARED].contains(&(decoded.info & xact::OP_MASK));
        let completion =
            is_commit.then(|| Completion::read(CompletionKind::Commit, HasInfo::of(decoded.info), decoded.main_data).unwrap());
        records.push(Entry { start: record.start, end: record.end, commit_time: completion.map(|completion| completion.time) });
    }
    assert_eq!(records.last().unwrap().end, wal.end);
    records
}

async fn open(dir: &Path, worker: &Worker) -> Timelines {
    std::fs::create_dir_all(dir).unwrap();
    // Small, so that there are marks of all kinds: most of the WAL is in layer files in the end.
    let store = StoreConfig { memory_bytes_max: 6 << 20, ..StoreConfig::default() };
    Timelines::open(TimelinesConfig { dir: dir.to_path_buf(), store }, worker.clone(), Known::All).await.unwrap()
}

async fn import(timelines: &Timelines, scratch: &Scratch, wal: &Wal) -> Rc<Timeline> {
    let record = TimelineRecord {
        tenant: TENANT,
        timeline: ROOT,
        name: "main".into(),
        system_id: wal.system_id,
        postgres_version: 150_000,
        start_lsn: wal.start,
        prev_record_lsn: wal.prev,
        readable_lsn: wal.start,
        ancestor: None,
    };
    let mut import = timelines.import(record).await.unwrap().expect("it is new");
    let items = scratch.initial.items();
    for item in &items {
        import.item(&item.as_item()).await.unwrap();
    }
    import.finish(items.len() as u64, Lsn::INVALID).await.unwrap()
}

/// Ingests up to `to`.
async fn feed(timeline: &Timeline, wal: &Wal, to: Lsn) {
    let mut stream = timeline.wal_stream();
    while stream.position() < to {
        let at = stream.position();
        let from = at.since(wal.start) as usize;
        let chunk = &wal.bytes[from..(from + CHUNK).min(to.since(wal.start) as usize)];
        stream.feed(at, chunk).unwrap();
        timeline.ingest(&mut stream).await.unwrap();
    }
    assert_eq!(timeline.store().last_record_lsn(), to);
}

/// How many pages are compared.
#[derive(Clone, Copy, PartialEq)]
enum Pages {
    All,
    /// Of relations that the workload made, and some of each other.
    Some,
}

/// All that a base backup takes from a head, and the history.
fn heads_agree(one: &Timeline, other: &Timeline) {
    let parts = |timeline: &Timeline| {
        let head = timeline.head().unwrap();
        // Its CRC and padding are made right when it is written.
        let control = head.control().unwrap().to_bytes();
        let mut items: Vec<Vec<u8>> = Vec::new();
        for item in head.basebackup_items(&control) {
            let mut bytes = Vec::new();
            item.encode(&mut bytes);
            items.push(bytes);
        }
        items.sort();
        let mut keys: Vec<Key> = head.basebackup_keys().collect();
        keys.sort();
        (head.last_record_lsn(), head.prev_record_lsn(), *head.history(), head.logical_size(), items, keys)
    };
    let (ours, theirs) = (parts(one), parts(other));
    assert_eq!((ours.0, ours.1, ours.2, ours.3), (theirs.0, theirs.1, theirs.2, theirs.3));
    assert!(ours == theirs, "the heads at {} differ", ours.0);
}

/// The branch at its head is what `fresh` is at its head, and what `parent` has there; the pages compared.
async fn compare(branch: &Rc<Timeline>, parent: &Rc<Timeline>, fresh: &Rc<Timeline>, which: Pages) -> u64 {
    let lsn = branch.store().last_record_lsn();
    assert_eq!((lsn, branch.store().prev_record_lsn()), (fresh.store().last_record_lsn(), fresh.store().prev_record_lsn()));
    branch.load_head().await.unwrap();
    heads_agree(branch, fresh);
    let mut compared = 0;
    let forks: Vec<_> = fresh.head().unwrap().relation_forks().filter(|fork| fork.1 != Fork::Fsm).collect();
    for (rel, fork, blocks) in forks {
        let states = [branch, fresh].map(|timeline| timeline.fork(rel, fork, lsn));
        let [ours, theirs] = states;
        let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
        let stored = ForkState::read(branch.store(), rel, fork, lsn).await.unwrap();
        assert!(ours == theirs && stored == theirs, "{rel} {fork:?} at {lsn}: {ours:?} {stored:?} {theirs:?}");
        assert_eq!(ForkState::read(parent.store(), rel, fork, lsn).await.unwrap(), theirs, "the parent has it too");
        let chosen = |block: &u32| which == Pages::All || rel.relation >= 16384 || (block + rel.relation).is_multiple_of(23);
        let blocks: Vec<u32> = (0..blocks).filter(chosen).collect();
        for some in blocks.chunks(64) {
            let read = |timeline: &Rc<Timeline>, block: u32, state: &ForkState| {
                let (timeline, state) = (timeline.clone(), state.clone());
                ironpage_io::spawn(async move { timeline.page(&state, BlockNumber(block)).await })
            };
            let reads: Vec<_> =
                some.iter().map(|block| [branch, fresh, parent].map(|timeline| read(timeline, *block, &theirs))).collect();
            for (block, [ours, theirs, parents]) in some.iter().zip(reads) {
                let theirs = theirs.await.unwrap().unwrap();
                assert!(ours.await.unwrap().unwrap() == theirs, "block {block} of {rel} {fork:?} at {lsn}");
                assert!(parents.await.unwrap().unwrap() == theirs, "block {block} of {rel} {fork:?} of the parent at {lsn}");
                compared += 1;
            }
        }
    }
    for slru in SlruKind::ALL {
        let pages: Vec<u32> = fresh.head().unwrap().slru_pages(slru).iter().copied().collect();
        for page in pages {
            let key = Key::slru(slru, page);
            let [ours, theirs] = [branch, fresh].map(|timeline| timeline.slru_page(key, lsn));
            let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
            assert!(ours.is_some() && ours == theirs, "page {page} of {slru:?} at {lsn}");
        }
    }
    let prepared: Vec<Key> = fresh.head().unwrap().two_phase_xids().iter().map(|xid| Key::two_phase(*xid)).collect();
    let maps = [Key::rel_map(1664, 0), Key::rel_map(1663, 5)];
    for key in prepared.into_iter().chain(maps) {
        let [ours, theirs] = [branch, fresh].map(|timeline| timeline.store().values(key, lsn, Lsn::INVALID));
        let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
        assert!(!ours.is_empty() && ours == theirs, "{key} at {lsn}");
    }
    compared
}

/// A root that has all WAL, fed by a safekeeper that knows no other timeline, and a fresh one beside it that has none.
struct World<'a> {
    wal: &'a Wal,
    records: Vec<Entry>,
    timelines: Timelines,
    root: Rc<Timeline>,
    fresh: Rc<Timeline>,
    safekeeper: Safekeeper,
    made: u8,
}

impl World<'_> {
    async fn new<'a>(scratch: &Scratch, wal: &'a Wal, worker: &Worker) -> World<'a> {
        let safekeeper = Safekeeper::new(wal.start, Rc::new(wal.bytes.clone()), wal.end);
        *safekeeper.only.borrow_mut() = Some(BTreeSet::from([ROOT]));
        let timelines = open(&scratch.dir.join("pageserver"), worker).await;
        let root = import(&timelines, scratch, wal).await;
        drop(ironpage_io::spawn(receiver::run(root.clone(), vec![safekeeper.address.clone()])));
        root.wait_for(wal.end, LONG).await.unwrap();
        let fresh = import(&open(&scratch.dir.join("fresh"), worker).await, scratch, wal).await;
        World { wal, records: records(wal), timelines, root, fresh, safekeeper, made: 2 }
    }

    fn safekeepers(&self) -> Vec<Address> {
        vec![self.safekeeper.address.clone()]
    }

    /// The last record that ends at or before an LSN: its end and its start.
    fn record_at(&self, lsn: Lsn) -> (Lsn, Lsn) {
        match self.records.partition_point(|record| record.end <= lsn) {
            0 => (self.wal.start, self.wal.prev),
            count => (self.records[count - 1].end, self.records[count - 1].start),
        }
    }

    async fn branch(&mut self, parent: &Rc<Timeline>, at: At) -> Result<Rc<Timeline>, TimelineError> {
        let safekeepers = self.safekeepers();
        let point = self.timelines.branch_point(parent, &safekeepers, at).await?;
        if let At::Lsn(lsn) = at {
            assert_eq!((point.lsn, point.prev_record_lsn), self.record_at(lsn), "asked for {lsn}");
            assert_eq!((point.requested, point.is_rounded()), (Some(lsn), point.lsn != lsn));
        }
        assert!(point.mark <= point.lsn && point.lsn.since(point.mark) < 3 << 20);
        self.made += 1;
        let record = NewBranch { timeline: TimelineId([self.made; 16]), name: format!("branch-{}", self.made) };
        let branch = self.timelines.branch(parent, &safekeepers, record, &point).await?;
        let made = branch.record();
        assert_eq!((made.start_lsn, made.prev_record_lsn, made.readable_lsn), (point.lsn, point.prev_record_lsn, point.lsn));
        assert_eq!(branch.store().disk_consistent_lsn(), point.lsn, "it is durable");
        Ok(branch)
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    ironpage_io::run(ironpage_io::Config::default(), || async { timeout(Duration::from_secs(500), test).await.unwrap() }).unwrap()
}

#[test]
fn a_branch_is_what_its_parent_was() {
    let scratch = Scratch::new("branches", workload::branching);
    let wal = Wal::of(&scratch);
    run(async {
        let worker = worker(&scratch.dir);
        let mut world = World::new(&scratch, &wal, &worker).await;
        let mut wanted: Vec<Lsn> = Vec::new();
        // Where transactions and prepared ones end; some of all others; in the midst of these.
        let step = world.records.len() / 12;
        wanted.extend(world.records.iter().skip(step / 2).step_by(step).map(|record| record.end));
        wanted
            .extend(world.records.iter().skip(step / 3).step_by(step * 2).map(|record| Lsn((record.start.0 + record.end.0) / 2)));
        wanted.extend(world.records.iter().step_by(step * 3).map(|record| record.end + 1));
        // The longest record, which has no end in two buckets: in its midst, and at its end.
        let longest = *world.records.iter().max_by_key(|record| record.end.since(record.start)).unwrap();
        assert!(longest.end.since(longest.start) > 3 << BUCKET_BITS);
        wanted.extend([longest.end, Lsn(longest.end.0 - 1), longest.start + (2 << BUCKET_BITS)]);
        // Edges of pages, buckets and segments, to both sides; behind the header that follows.
        for size in [WAL_PAGE_SIZE, 1 << BUCKET_BITS, WAL_SEGMENT_SIZE] {
            let edges = (1..).map(|number| Lsn((wal.start.0 / size + number) * size)).take_while(|edge| *edge < wal.end);
            let edges: Vec<Lsn> = edges.collect();
            assert!(!edges.is_empty());
            for edge in edges.iter().step_by(edges.len().div_ceil(3)) {
                wanted.extend([Lsn(edge.0 - 8), *edge, *edge + 24, *edge + 40]);
            }
        }
        wanted.extend([wal.start, wal.start + 1, wal.end, Lsn(wal.end.0 - 1)]);
        wanted.retain(|lsn| *lsn <= wal.end);
        wanted.sort();
        let (mut pages, mut prepared) = (0, BTreeSet::new());
        for (number, lsn) in wanted.iter().enumerate() {
            let branch = world.branch(&world.root.clone(), At::Lsn(*lsn)).await.unwrap();
            feed(&world.fresh, &wal, world.record_at(*lsn).0).await;
            let which = if number % 9 == 4 || number + 1 == wanted.len() { Pages::All } else { Pages::Some };
            pages += compare(&branch, &world.root, &world.fresh, which).await;
            prepared.insert(branch.head().unwrap().two_phase_xids().len());
            world.timelines.delete(TENANT, branch.id()).await.unwrap();
        }
        eprintln!("{} branches, {pages} pages, so many prepared: {prepared:?}", wanted.len());
        assert!(pages > 20_000 && prepared.len() >= 3, "{pages} {prepared:?}");
        refusals(&mut world).await;
        times(&world, &world.root.clone(), &wal).await;
        worker.stop();
    });
}

async fn refusals(world: &mut World<'_>) {
    let root = world.root.clone();
    for lsn in [Lsn(world.wal.start.0 - 8), Lsn(8), world.wal.end + 8, Lsn(u64::MAX)] {
        let error = world.branch(&root, At::Lsn(lsn)).await.map(drop).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TimelineError::OutOfRange { .. }), "{text}");
        assert!(text.contains(&world.wal.start.to_string()) && text.contains(&world.wal.end.to_string()), "{text}");
    }
    for time in [i64::MIN, 0, i64::MAX] {
        let error = world.branch(&root, At::Time(time)).await.map(drop).unwrap_err();
        assert!(matches!(error, TimelineError::OutOfRange { .. }), "{error}");
    }
    // Two of three do not answer: something acknowledged might be missed. The past needs nobody but who has its WAL.
    let nowhere: Address = "127.0.0.1:1".parse().unwrap();
    let three = [nowhere.clone(), world.safekeeper.address.clone(), nowhere.clone()];
    let error = world.timelines.branch_point(&root, &three, At::Head).await.unwrap_err();
    assert!(matches!(error, TimelineError::Unavailable { .. }), "{error}");
    let past = world.records[world.records.len() / 2].end;
    assert_eq!(world.timelines.branch_point(&root, &three, At::Lsn(past)).await.unwrap().lsn, past);
    let between = Lsn(past.0 - 1);
    let error = world.timelines.branch_point(&root, &[nowhere], At::Lsn(between)).await.unwrap_err();
    assert!(matches!(error, TimelineError::Unavailable { .. }), "{error}");
    // One that is behind: what it has flushed and nobody acknowledges is not waited for too long.
    let head = world.timelines.branch_point(&root, &world.safekeepers(), At::Head).await.unwrap();
    assert_eq!((head.lsn, head.mark, head.requested), (world.wal.end, world.wal.end, None));
}

/// Times to LSNs and back, against the commits in the WAL.
async fn times(world: &World<'_>, timeline: &Rc<Timeline>, wal: &Wal) {
    let last = timeline.store().last_record_lsn();
    let records = || world.records.iter().filter(|record| record.end <= last);
    let commits: Vec<(usize, Entry)> = records().copied().enumerate().filter(|(_, entry)| entry.commit_time.is_some()).collect();
    assert!(commits.len() > 500);
    let before = |index: usize| if index == 0 { wal.start } else { world.records[index - 1].end };
    // The import's pg_control is of a whole second before the first commit, or of the same one.
    let first = commits[0].1.commit_time.unwrap();
    let mut asked = 0;
    for (_, commit) in commits.iter().step_by(17) {
        for time in [commit.commit_time.unwrap() - 1, commit.commit_time.unwrap(), commit.commit_time.unwrap() + 1] {
            let found = match timeline.lsn_at(time).await {
                Err(TimelineError::OutOfRange { .. }) if time < first + 2_000_000 => continue,
                found => found.unwrap(),
            };
            let expected = commits.iter().find(|(_, commit)| commit.commit_time.unwrap() > time);
            assert_eq!(found.is_head, expected.is_none());
            let lsn = expected.map_or(last, |(index, _)| before(*index));
            assert_eq!(found.lsn, lsn, "{time}");
            let newest = commits.iter().rev().find(|(_, commit)| commit.end <= lsn);
            assert_eq!(found.last_commit_time, newest.and_then(|(_, commit)| commit.commit_time), "{time}");
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked}");
    for record in records().step_by(97) {
        for lsn in [record.end, Lsn(record.end.0 - 1)] {
            let newest = commits.iter().rev().find(|(_, commit)| commit.end <= lsn);
            assert_eq!(timeline.time_at(lsn).await.unwrap(), newest.and_then(|(_, commit)| commit.commit_time), "{lsn}");
        }
    }
    assert!(matches!(timeline.time_at(last + 8).await, Err(TimelineError::OutOfRange { .. })));
}

#[test]
fn branches_of_branches_go_on_from_where_they_came_off() {
    let scratch = Scratch::new("depth", workload::branching);
    let wal = Wal::of(&scratch);
    run(async {
        let first_worker = worker(&scratch.dir);
        let mut world = World::new(&scratch, &wal, &first_worker).await;
        // Each has some of the same WAL for itself, and the next comes off somewhere in that.
        let mut chain = vec![world.root.clone()];
        let count = world.records.len();
        for depth in 1..=10 {
            let parent = chain.last().unwrap().clone();
            let at = world.records[count * depth / 12].end;
            // Record ends with their marks, and places where some records are ingested anew.
            let at = if depth % 3 == 0 { Lsn(at.0 - 1) } else { at };
            let known = BTreeSet::from_iter(chain.iter().map(|timeline| timeline.id()));
            *world.safekeeper.only.borrow_mut() = Some(known);
            let branch = if depth % 3 == 1 && depth > 1 {
                // At the head the parent happens to have.
                feed(&parent, &wal, world.record_at(at).0).await;
                // Safekeepers that all forgot it do not say that this is where it ends; one that is there does.
                let known = world.safekeeper.only.replace(Some(BTreeSet::new()));
                let error = world.branch(&parent, At::Head).await.map(drop).unwrap_err();
                assert!(matches!(error, TimelineError::Unavailable { .. }), "{error}");
                *world.safekeeper.only.borrow_mut() = known;
                world.safekeeper.commit.set(parent.store().last_record_lsn());
                let branch = world.branch(&parent, At::Head).await.unwrap();
                world.safekeeper.commit.set(wal.end);
                branch
            } else {
                if depth > 1 {
                    feed(&parent, &wal, world.records[count * depth / 12 + count / 40].end).await;
                }
                world.branch(&parent, At::Lsn(at)).await.unwrap()
            };
            assert_eq!(branch.record().start_lsn, world.record_at(at).0);
            assert_eq!(branch.parent().unwrap().id(), parent.id());
            feed(&world.fresh, &wal, branch.store().last_record_lsn()).await;
            let which = if depth == 5 { Pages::All } else { Pages::Some };
            compare(&branch, &world.root, &world.fresh, which).await;
            chain.push(branch);
        }
        let leaf = chain.last().unwrap().clone();
        feed(&leaf, &wal, wal.end).await;
        feed(&world.fresh, &wal, wal.end).await;
        compare(&leaf, &world.root, &world.fresh, Pages::All).await;
        times(&world, &leaf, &wal).await;

        // Below its own start a branch's history is that of its ancestors, and a branch there hangs on one of them.
        *world.safekeeper.only.borrow_mut() = None;
        for (depth, owner) in chain.iter().enumerate().take(10) {
            let at = Lsn(chain[depth + 1].record().start_lsn.0 - 1);
            let branch = world.branch(&leaf, At::Lsn(at)).await.unwrap();
            assert_eq!(branch.parent().unwrap().id(), owner.id(), "at {at}");
            world.timelines.delete(TENANT, branch.id()).await.unwrap();
        }

        // Nothing with children goes.
        let error = world.timelines.delete(TENANT, ROOT).await.unwrap_err();
        assert!(matches!(&error, TimelineError::HasChildren { children, .. } if *children == [chain[1].id()]), "{error}");

        // After a restart the root is where it was flushed last, and the branches wait for it.
        let (root_id, leaf_id) = (ROOT, leaf.id());
        let root_flushed = world.root.store().disk_consistent_lsn();
        first_worker.stop();
        let World { safekeeper, fresh, root, timelines, .. } = world;
        drop((root, timelines, leaf, chain));
        let worker = worker(&scratch.dir);
        let timelines = open(&scratch.dir.join("pageserver"), &worker).await;
        let (root, leaf) = (timelines.get(TENANT, root_id).unwrap(), timelines.get(TENANT, leaf_id).unwrap());
        assert_eq!(root.store().last_record_lsn(), root_flushed);
        let all = timelines.all();
        assert_eq!(all.len(), 11);
        for timeline in &all {
            drop(ironpage_io::spawn(receiver::run(timeline.clone(), vec![safekeeper.address.clone()])));
        }
        leaf.wait_for(wal.end, LONG).await.unwrap();
        root.wait_for(wal.end, LONG).await.unwrap();
        // The fresh one's worker was stopped: what is whole of its head is enough to compare with.
        leaf.load_head().await.unwrap();
        heads_agree(&leaf, &fresh);
        pages_agree(&leaf, &root).await;

        deletion(&timelines, &leaf, &scratch.dir.join("pageserver")).await;
        worker.stop();
    });
}

/// All pages of two timelines at their common head.
async fn pages_agree(one: &Rc<Timeline>, other: &Rc<Timeline>) {
    let lsn = one.store().last_record_lsn();
    let forks: Vec<_> = one.head().unwrap().relation_forks().filter(|fork| fork.1 != Fork::Fsm).collect();
    for (rel, fork, blocks) in forks {
        let state = one.fork(rel, fork, lsn).await.unwrap();
        assert_eq!(state, other.fork(rel, fork, lsn).await.unwrap());
        for block in (0..blocks).map(BlockNumber) {
            assert!(
                one.page(&state, block).await.unwrap() == other.page(&state, block).await.unwrap(),
                "{rel} {fork:?} {block:?}"
            );
        }
    }
}

async fn deletion(timelines: &Timelines, leaf: &Rc<Timeline>, dir: &Path) {
    let path = dir.join(TENANT.to_string()).join(leaf.id().to_string());
    assert!(path.join("manifest").exists());
    let last = leaf.store().last_record_lsn();
    let waiting = leaf.clone();
    let waiting = ironpage_io::spawn(async move { waiting.wait_for(last + 8, LONG).await });
    ironpage_io::yield_now().await;
    timelines.delete(TENANT, leaf.id()).await.unwrap();
    assert!(!path.exists());
    assert!(matches!(waiting.await.unwrap(), Err(WaitError::Deleted { .. })));
    assert!(matches!(leaf.wait_for(last, LONG).await, Err(WaitError::Deleted { .. })));
    let rel = RelTag { tablespace: 1663, database: 5, relation: 1259 };
    let error = leaf.fork(rel, Fork::Main, leaf.record().start_lsn).await.unwrap_err();
    assert!(error.to_string().contains("deleted"), "{error}");
    assert!(matches!(leaf.store().flush().await, Err(StoreError::Closed)));
    assert!(timelines.get(TENANT, leaf.id()).is_none());
    timelines.delete(TENANT, leaf.id()).await.expect("a repeat is no error");
    // Upwards they go one by one.
    let mut next = leaf.parent().cloned();
    while let Some(timeline) = next {
        timelines.delete(TENANT, timeline.id()).await.unwrap();
        next = timeline.parent().cloned();
    }
    assert!(timelines.all().is_empty());
    assert!(std::fs::read_dir(dir.join(TENANT.to_string())).unwrap().next().is_none());
}

/// A pageserver that is far behind, as after a restart: the safekeepers have committed WAL beyond what it asks from, and
/// hear of the last commit only after they were asked. That it takes its time to ingest must not cost a commit.
#[test]
fn now_is_all_that_was_acknowledged_however_far_behind_ingest_is() {
    let scratch = Scratch::new("behind", workload::little);
    let wal = Wal::of(&scratch);
    run(async {
        let worker = worker(&scratch.dir);
        let timelines = Rc::new(open(&scratch.dir.join("pageserver"), &worker).await);
        let root = import(&timelines, &scratch, &wal).await;
        let middle = {
            let mut stream = WalStream::new(wal.start, Verify::Headers).with_prev(wal.prev);
            stream.feed(wal.start, &wal.bytes[..wal.bytes.len() / 2]).unwrap();
            while let Ok(Next::Record(_)) = stream.next_record() {}
            stream.record_end()
        };
        assert!(wal.start < middle && middle < wal.end);
        let safekeepers: Vec<_> = (0..3).map(|_| Safekeeper::new(wal.start, Rc::new(wal.bytes.clone()), middle)).collect();
        safekeepers.iter().for_each(|safekeeper| safekeeper.flush.set(Some(wal.end)));
        let addresses: Vec<Address> = safekeepers.iter().map(|safekeeper| safekeeper.address.clone()).collect();
        let asked = {
            let (timelines, root, addresses) = (timelines.clone(), root.clone(), addresses.clone());
            ironpage_io::spawn(async move { timelines.acknowledged_head(&root, &addresses).await })
        };
        sleep(Duration::from_millis(200)).await;
        for safekeeper in &safekeepers {
            safekeeper.commit.set(wal.end);
        }
        // Longer than what a dead primary flushed is waited for.
        sleep(Duration::from_millis(2500)).await;
        feed(&root, &wal, middle).await;
        sleep(Duration::from_millis(500)).await;
        assert!(!asked.is_finished(), "it does not reach what was acknowledged");
        feed(&root, &wal, wal.end).await;
        assert_eq!(asked.await.unwrap().unwrap(), wal.end);

        // One that takes no connections is not waited for.
        safekeepers[0].close();
        let begun = now();
        assert_eq!(timelines.acknowledged_head(&root, &addresses).await.unwrap(), wal.end);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}

/// The primary is gone and has left WAL on a safekeeper that never becomes committed: what is committed is the head.
#[test]
fn what_a_dead_primary_left_uncommitted_is_not_waited_for_long() {
    let scratch = Scratch::new("dead", workload::little);
    let wal = Wal::of(&scratch);
    run(async {
        let worker = worker(&scratch.dir);
        let timelines = open(&scratch.dir.join("pageserver"), &worker).await;
        let root = import(&timelines, &scratch, &wal).await;
        let safekeeper = Safekeeper::new(wal.start, Rc::new(wal.bytes.clone()), wal.end);
        safekeeper.flush.set(Some(wal.end + 100));
        feed(&root, &wal, wal.end).await;
        let begun = now();
        assert_eq!(timelines.acknowledged_head(&root, std::slice::from_ref(&safekeeper.address)).await.unwrap(), wal.end);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    });
}
