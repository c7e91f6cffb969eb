//! Native redo beside the stock one, record by record: all 8192 bytes of every page, nothing masked.
//!
//! A scratch cluster writes WAL of every kind. For each record and each block it references, the page before it
//! goes to the redo worker with the record, and through `ironpage_redo` with the delta made of it; both answers must
//! be the same. In the end the pages are also those that a recovery of the same WAL by Postgres leaves in its files.

use crate::datadir::DataDir;
use crate::scratch::{Scratch, Setup, run, worker};
use crate::wal::Wal;
use crate::{oracle, workload};
use ironpage_layout::postgres::checksum;
use ironpage_layout::postgres::page::Page;
use ironpage_layout::postgres::rmgr::{Rmgr, database, storage};
use ironpage_layout::postgres::wal::record::Block;
use ironpage_layout::postgres::wal::{DecodedRecord, Next, Verify, WalStream};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{BlockNumber, Fork, Lsn, RelTag};
use ironpage_pageserver::worker::{PageTag, RedoRecord, Worker, WorkerError};
use ironpage_redo::{Encoded, HintBits, Kind, POSTGRES_15, Place, RecordType, planted};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;
use std::path::Path;

/// Comparisons under way at the worker.
const AHEAD: usize = 128;
/// Cases of each record type and kind of delta kept for the planted bugs.
const CASES: usize = 3;
/// After as many the test has seen enough.
const DIFFERENCES_MAX: usize = 40;

#[test]
fn native_redo_is_the_stock_one() {
    let scratch = Scratch::new("native", everything);
    lockstep(&scratch, HintBits::Unlogged);
}

#[test]
fn native_redo_is_the_stock_one_with_checksums_images_and_logical_decoding() {
    let setup = Setup {
        initdb: &["--data-checksums"],
        settings: "full_page_writes = on\nwal_level = logical\nwal_compression = lz4\ncheckpoint_timeout = 30s\n",
    };
    let scratch = Scratch::with("native-logical", &setup, everything);
    lockstep(&scratch, HintBits::Logged);
}

/// What every lockstep test has, and the records that are rare.
fn everything(scratch: &Scratch) {
    workload::everything_but_the_end(scratch);
    scratch.sql("postgres", &include_str!("native.sql").replace("@DIR@", &scratch.dir.display().to_string()));
    for (compression, transactions) in [("pglz", "60"), ("zstd", "60"), ("off", "300")] {
        // Each page that follows a checkpoint is logged whole, if any is.
        scratch.sql("postgres", &format!("ALTER SYSTEM SET wal_compression = {compression}"));
        scratch.sql("postgres", "SELECT pg_reload_conf(); CHECKPOINT; SELECT pg_sleep(0.2)");
        let upsert = scratch.dir.join("upsert.sql");
        std::fs::write(&upsert, include_str!("upsert.sql")).unwrap();
        run(scratch.client("pgbench").args(["-n", "-c", "8", "-j", "2", "-t", transactions, "-f"]).arg(&upsert).arg("postgres"));
        run(scratch.client("pgbench").args(["-n", "-c", "4", "-j", "2", "-t", transactions, "postgres"]));
        // No row changes but hint bits, and those of a page anew.
        scratch.sql("postgres", "SELECT count(*) FROM pgbench_history; SELECT count(*) FROM locked");
    }
    workload::end(scratch);
}

fn lockstep(scratch: &Scratch, hint_bits: HintBits) {
    let wal = Wal::of(scratch);
    let mut lockstep = Lockstep::new(&scratch.initial, hint_bits);
    let worker = worker(&scratch.dir).for_hint_bits(match hint_bits {
        HintBits::Logged => ironpage_pageserver::worker::HintBits::Logged,
        HintBits::Unlogged => ironpage_pageserver::worker::HintBits::Unlogged,
    });
    let outcome = ironpage_io::run(ironpage_io::Config::default(), || async {
        lockstep.run(&wal, &worker).await;
        worker.stop();
        lockstep
    });
    let mut lockstep = outcome.unwrap();
    eprintln!("{}", lockstep.table());
    assert_eq!(lockstep.differences, Vec::<String>::new());

    lockstep.compare_with_recovery(&oracle::recover(scratch, wal.last_record));
    assert_eq!(lockstep.differences, Vec::<String>::new());

    // Only with data checksums does a hint bit write an image.
    let seldom = |record: &RecordType| record.name == "FPI_FOR_HINT" && hint_bits == HintBits::Unlogged;
    let never: Vec<_> = POSTGRES_15.records.iter().filter(|record| !seldom(record) && !lockstep.has_compared(record)).collect();
    assert!(never.is_empty(), "native, but never compared: {never:?}");
    if let Some(corpus) = std::env::var_os("IRONPAGE_REDO_CORPUS") {
        lockstep.write_corpus(Path::new(&corpus));
    }
    let missed = lockstep.planted_bugs_that_stay_unseen();
    assert!(missed.is_empty(), "a planted bug was not seen in: {missed:?}");
}

/// What was compared of one type of record, and how.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    records: u64,
    bytes: u64,
    /// Blocks redone here, by a delta or an image.
    native: u64,
    images: u64,
    unchanged: u64,
    worker: u64,
}

/// A comparison that came out equal: what a bug must spoil.
struct Case {
    before: Box<Page>,
    after: Box<Page>,
    place: Place,
    delta: Vec<u8>,
}

/// A comparison whose other half is still at the worker.
struct Pending {
    what: String,
    name: (Rmgr, &'static str),
    case: Case,
    answer: ironpage_io::JoinHandle<Result<Box<Page>, WorkerError>>,
}

struct Lockstep {
    hint_bits: HintBits,
    pages: HashMap<PageTag, Box<Page>>,
    counts: BTreeMap<(Rmgr, String), Counts>,
    /// Blocks of native records that were compared, by type, kind of delta and block reference.
    compared: BTreeMap<(Rmgr, &'static str, Kind, u8), u64>,
    cases: BTreeMap<(Rmgr, &'static str, Kind), Vec<Case>>,
    pending: VecDeque<Pending>,
    differences: Vec<String>,
    recovered: u64,
}

impl Lockstep {
    fn new(initial: &DataDir, hint_bits: HintBits) -> Lockstep {
        let mut pages = HashMap::new();
        for (rel, fork) in initial.relations() {
            for (block, page) in initial.relation(rel, fork).chunks_exact(PAGE_SIZE).enumerate() {
                let tag = PageTag { rel, fork, block: BlockNumber(block as u32) };
                pages.insert(tag, Box::new(page.try_into().unwrap()));
            }
        }
        Lockstep {
            hint_bits,
            pages,
            counts: BTreeMap::new(),
            compared: BTreeMap::new(),
            cases: BTreeMap::new(),
            pending: VecDeque::new(),
            differences: Vec::new(),
            recovered: 0,
        }
    }

    async fn run(&mut self, wal: &Wal, worker: &Worker) {
        let mut stream = WalStream::new(wal.start, Verify::Crc).with_prev(wal.prev).with_system_id(wal.system_id);
        stream.feed(wal.start, &wal.bytes).unwrap();
        while let Next::Record(record) = stream.next_record().unwrap() {
            let (end, bytes) = (record.end, record.bytes.to_vec());
            let record = DecodedRecord::decode(&bytes).unwrap();
            self.count(&record, |counts| {
                counts.records += 1;
                counts.bytes += bytes.len() as u64;
            });
            self.files(&record);
            for block in &record.blocks {
                self.block(&record, block, end, worker).await;
                if self.differences.len() > DIFFERENCES_MAX {
                    return;
                }
            }
        }
        self.settle(0).await;
        assert!(wal.end.since(stream.record_end()) == 0, "the WAL was read to its end");
    }

    fn count(&mut self, record: &DecodedRecord<'_>, change: impl FnOnce(&mut Counts)) {
        if record.blocks.is_empty() {
            return;
        }
        let rmgr = record.rmgr().unwrap();
        let known = POSTGRES_15.record_type(rmgr, record.rmgr_info());
        let name = known.map_or_else(|| format!("{:#04x}", record.rmgr_info()), |known| known.name.to_string());
        change(self.counts.entry((rmgr, name)).or_default());
    }

    /// What records do to pages without naming them: files come, go and are copied.
    fn files(&mut self, record: &DecodedRecord<'_>) {
        let word = |at: usize| u32::from_le_bytes(record.main_data[at..at + 4].try_into().unwrap());
        let rel = |at: usize| RelTag { tablespace: word(at), database: word(at + 4), relation: word(at + 8) };
        match (record.rmgr().unwrap(), record.rmgr_info()) {
            (Rmgr::Storage, storage::CREATE) => {
                let (rel, fork) = (rel(0), Fork::from_number(word(12) as u8).unwrap());
                self.pages.retain(|tag, _| tag.rel != rel || tag.fork != fork);
            }
            (Rmgr::Storage, storage::TRUNCATE) => {
                let (blocks, rel) = (word(0), rel(4));
                self.pages.retain(|tag, _| tag.rel != rel || tag.fork != Fork::Main || tag.block.0 < blocks);
            }
            (Rmgr::Database, database::CREATE_FILE_COPY) => {
                let (to, from) = ((word(4), word(0)), (word(12), word(8)));
                let of = |tag: &PageTag| (tag.rel.tablespace, tag.rel.database) == from;
                let copies: Vec<_> =
                    self.pages.iter().filter(|(tag, _)| of(tag)).map(|(tag, page)| (*tag, page.clone())).collect();
                for (mut tag, page) in copies {
                    (tag.rel.tablespace, tag.rel.database) = to;
                    self.pages.insert(tag, page);
                }
            }
            _ => {}
        }
    }

    async fn block(&mut self, record: &DecodedRecord<'_>, block: &Block<'_>, end: Lsn, worker: &Worker) {
        let tag = PageTag { rel: block.rel, fork: block.fork, block: block.block };
        let before = self.pages.get(&tag).cloned().unwrap_or_else(|| Box::new([0; PAGE_SIZE]));
        let place = Place { block: tag.block, end_lsn: end };
        let redo = RedoRecord { end_lsn: end, bytes: record.bytes.to_vec() };
        let what = format!("{tag} after {redo}");

        let mut delta = Vec::new();
        let encoded = ironpage_redo::encode(&POSTGRES_15, self.hint_bits, record, block, &mut delta);
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(error) => return self.differences.push(format!("{what}: {error}")),
        };
        if encoded == Encoded::Worker {
            self.count(record, |counts| counts.worker += 1);
            match worker.redo(tag, Some(before), vec![redo]).await {
                Ok(page) => drop(self.pages.insert(tag, page)),
                Err(error) => self.differences.push(format!("{what}: {error}")),
            }
            return;
        }
        let known = POSTGRES_15.record_type(record.rmgr().unwrap(), record.rmgr_info());
        let name = (record.rmgr().unwrap(), known.map_or("image", |known| known.name));
        let mut after = before.clone();
        if encoded == Encoded::Unchanged {
            self.count(record, |counts| counts.unchanged += 1);
            delta.clear();
        } else {
            if let Err(error) = ironpage_redo::apply(&mut after, place, &delta) {
                return self.differences.push(format!("{what}: {error}"));
            }
            let kind = Kind::of(&delta).unwrap();
            self.count(record, |counts| {
                counts.native += 1;
                counts.images += u64::from(kind == Kind::Image);
            });
            *self.compared.entry((name.0, name.1, kind, block.id)).or_default() += 1;
        }
        self.pages.insert(tag, after.clone());
        let asked = (worker.clone(), before.clone());
        let answer = ironpage_io::spawn(async move { asked.0.redo(tag, Some(asked.1), vec![redo]).await });
        self.pending.push_back(Pending { what, name, case: Case { before, after, place, delta }, answer });
        self.settle(AHEAD).await;
    }

    /// Takes the worker's answers until at most `left` are missing.
    async fn settle(&mut self, left: usize) {
        while self.pending.len() > left {
            let Some(Pending { what, name, case, answer }) = self.pending.pop_front() else { return };
            match answer.await.unwrap() {
                Ok(theirs) => match difference(&case.after, &theirs) {
                    Some(difference) => self.differences.push(format!("{what}: {difference}")),
                    None => self.keep(name, case),
                },
                Err(error) => self.differences.push(format!("{what}: {error}")),
            }
        }
    }

    fn keep(&mut self, name: (Rmgr, &'static str), case: Case) {
        if let Ok(kind) = Kind::of(&case.delta) {
            let cases = self.cases.entry((name.0, name.1, kind)).or_default();
            if cases.len() < CASES {
                cases.push(case);
            }
        }
    }

    fn has_compared(&self, record: &RecordType) -> bool {
        // An image proves nothing about the record it is in, unless images are all that such records have.
        let image_is_all = record.rmgr == Rmgr::Xlog || (record.rmgr == Rmgr::Hash && record.name == "SPLIT_PAGE");
        let of = |(rmgr, name, kind, _): &&(Rmgr, &'static str, Kind, u8)| {
            *rmgr == record.rmgr && *name == record.name && (*kind != Kind::Image) != image_is_all
        };
        self.compared.keys().any(|key| of(&key))
    }

    /// Every block of every relation that both have. Recovery wrote its pages with checksums, if the cluster has them.
    fn compare_with_recovery(&mut self, oracle: &DataDir) {
        let checksums = oracle.control().data_checksum_version.get() != 0;
        for (rel, fork) in oracle.relations().into_iter().filter(|(_, fork)| matches!(fork, Fork::Main | Fork::Init)) {
            for (number, theirs) in oracle.relation(rel, fork).chunks_exact(PAGE_SIZE).enumerate() {
                let tag = PageTag { rel, fork, block: BlockNumber(number as u32) };
                let Some(ours) = self.pages.get_mut(&tag) else { continue };
                if checksums && !ironpage_layout::postgres::page::is_new(ours) {
                    checksum::set(ours, tag.block);
                }
                self.recovered += 1;
                if let Some(difference) = difference(ours, theirs.try_into().unwrap()) {
                    self.differences.push(format!("{tag} after recovery: {difference}"));
                }
            }
        }
        eprintln!("{} pages are those of recovery", self.recovered);
        assert!(self.recovered > 4_000, "the pages of recovery are there");
    }

    /// With each kind of delta wrong in turn, every case of it must differ from what the worker made. Those that do not.
    fn planted_bugs_that_stay_unseen(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for ((rmgr, name, kind), cases) in &self.cases {
            planted::plant(Some(*kind));
            for case in cases {
                let mut page = case.before.clone();
                let applied = ironpage_redo::apply(&mut page, case.place, &case.delta);
                if applied.is_err() || difference(&page, &case.after).is_none() {
                    missed.push(format!("{}/{name} {kind:?} at {}: {applied:?}", rmgr.name(), case.place.end_lsn));
                }
            }
            planted::plant(None);
        }
        missed
    }

    /// Inputs for the fuzz target `redo`: the page before as an image without its hole, then the delta.
    fn write_corpus(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        for ((rmgr, name, kind), cases) in &self.cases {
            let Some(case) = cases.iter().min_by_key(|case| case.delta.len()) else { continue };
            let pointer = |at: usize| usize::from(u16::from_le_bytes([case.before[at], case.before[at + 1]]));
            let (lower, upper) = (pointer(12), pointer(14));
            let hole = if lower >= 24 && lower < upper && upper <= PAGE_SIZE { lower..upper } else { 24..24 };
            let mut image = vec![Kind::Image as u8 | 0x80, 0];
            for field in [hole.start, hole.len(), PAGE_SIZE - hole.len()] {
                image.extend((field as u16).to_le_bytes());
            }
            image.extend([&case.before[..hole.start], &case.before[hole.end..]].concat());
            let mut input = Vec::new();
            for delta in [&image, &case.delta] {
                input.extend((delta.len() as u16).to_le_bytes());
                input.extend(delta);
            }
            std::fs::write(dir.join(format!("{}-{name}-{kind:?}", rmgr.name()).to_lowercase()), input).unwrap();
        }
    }

    fn table(&self) -> String {
        let mut table = String::from("record | records | bytes | blocks native | of them images | unchanged | worker\n");
        let mut sum = Counts::default();
        for ((rmgr, name), counts) in &self.counts {
            let Counts { records, bytes, native, images, unchanged, worker } = *counts;
            writeln!(table, "{}/{name} | {records} | {bytes} | {native} | {images} | {unchanged} | {worker}", rmgr.name())
                .unwrap();
            sum.records += records;
            sum.bytes += bytes;
            sum.native += native;
            sum.images += images;
            sum.unchanged += unchanged;
            sum.worker += worker;
        }
        writeln!(table, "all: {sum:?}").unwrap();
        for ((rmgr, name, kind, block), count) in &self.compared {
            writeln!(table, "{}/{name} block {block}: {kind:?} {count}", rmgr.name()).unwrap();
        }
        table
    }
}

/// Where two pages differ, if they do.
fn difference(ours: &Page, theirs: &Page) -> Option<String> {
    let at = ours.iter().zip(theirs).position(|(one, other)| one != other)?;
    let count = ours.iter().zip(theirs).filter(|(one, other)| one != other).count();
    let end = (at + 16).min(PAGE_SIZE);
    Some(format!("{count} bytes differ, the first at {at}: {:02x?} instead of {:02x?}", &ours[at..end], &theirs[at..end]))
}
