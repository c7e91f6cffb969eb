//! A timeline: its store, the head of its WAL, and who may ask for it.

mod branch;
mod error;
mod history;
mod import;
mod registry;

pub use branch::{At, BranchPoint, NewBranch};
pub use error::{IngestStop, Stopped, TimelineError, WaitError};
pub use history::AtTime;
pub use import::Import;
pub use registry::{Known, Timelines, TimelinesConfig};

use crate::ingest::{CopyDatabase, Head, IngestAction};
use crate::reconstruct::{self, ForkState, ReconstructError};
use crate::store::{Store, TimelineRecord};
use crate::worker::{Page, Worker};
use ironpage_daemon::{error, info};
use ironpage_io::sync::Notify;
use ironpage_io::time::{now, timeout};
use ironpage_layout::postgres::checksum;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::wal::{Next, Record, Verify, WalStream};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::{BlockNumber, Fork, Key, KeyKind, Lsn, RelTag, TenantId, Term, TimelineId, Value};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Ingest gives way to other tasks after this long.
const INGEST_TURN_MAX: Duration = Duration::from_millis(2);
/// The clock is read once in so many records.
const RECORDS_PER_CLOCK: u32 = 64;

/// One timeline, open for reading and ingest. Lives on one core.
pub struct Timeline {
    store: Store,
    head: RefCell<Head>,
    /// The head's pg_control as of the last whole record, also while a record is being taken and after one failed.
    control: Cell<ControlFile>,
    worker: Worker,
    term: Cell<Term>,
    stopped: RefCell<Option<Stopped>>,
    /// last_record_lsn moved, or ingest stopped.
    moved: Notify,
    ingest_records: Cell<u64>,
    ingest_bytes: Cell<u64>,
    /// Rung when the safekeepers may have WAL of a timeline they did not know.
    receiver_wake: Notify,
}

impl Timeline {
    /// A timeline whose store is complete up to its last record. Its head is loaded from there.
    async fn open(store: Store, worker: Worker) -> Result<Rc<Timeline>, TimelineError> {
        let lsn = store.last_record_lsn();
        let mut stored = Vec::new();
        for kind in KeyKind::ALL {
            match kind {
                KeyKind::Page => {}
                KeyKind::Slru => {
                    let keys = store.live_keys(Key::kind_range(kind), lsn).await?;
                    stored.extend(keys.into_iter().map(|key| (key, Vec::new())));
                }
                _ => {
                    let values = store.scan(Key::kind_range(kind), lsn).await?;
                    stored.extend(values.into_iter().map(|(key, version)| (key, version.bytes)));
                }
            }
        }
        let head = Head::load(lsn, store.prev_record_lsn(), stored)?;
        let timeline = Rc::new(Timeline {
            control: Cell::new(*head.control()?),
            head: RefCell::new(head),
            worker,
            term: Cell::new(Term(0)),
            stopped: RefCell::new(None),
            moved: Notify::new(),
            ingest_records: Cell::new(0),
            ingest_bytes: Cell::new(0),
            receiver_wake: Notify::new(),
            store,
        });
        let weak = Rc::downgrade(&timeline);
        timeline.store.set_freeze_hook(Rc::new(move |store| {
            if let Some(timeline) = weak.upgrade() {
                timeline.put_control(store);
            }
        }));
        Ok(timeline)
    }

    /// pg_control changes with most records and is stored only where a head may be loaded from.
    fn put_control(&self, store: &Store) {
        let control = self.control.get().to_bytes();
        store.put(Key::control(), store.last_record_lsn(), &Value::Blob(Cow::Borrowed(&control)));
    }

    pub fn head(&self) -> std::cell::Ref<'_, Head> {
        self.head.borrow()
    }

    pub fn record(&self) -> &TimelineRecord {
        self.store.timeline()
    }

    pub fn id(&self) -> TimelineId {
        self.record().timeline
    }

    pub fn tenant(&self) -> TenantId {
        self.record().tenant
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The hello by which this timeline's WAL is asked for.
    pub fn hello(&self) -> Hello {
        let record = self.record();
        Hello {
            role: Role::WalReader,
            tenant: record.tenant,
            timeline: record.timeline,
            system_id: record.system_id,
            postgres_version: 0,
            token: Vec::new(),
        }
    }

    pub fn term(&self) -> Term {
        self.term.get()
    }

    /// Whoever leads with a lower term is fenced from now on.
    pub fn learn_term(&self, term: Term) {
        if term > self.term.get() {
            info!("timeline {}: term {term} leads, lower ones are fenced", self.id());
            self.term.set(term);
        }
    }

    pub fn ingest_records(&self) -> u64 {
        self.ingest_records.get()
    }

    pub fn ingest_bytes(&self) -> u64 {
        self.ingest_bytes.get()
    }

    /// Why ingest stopped; `None` while it runs.
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped.borrow().clone()
    }

    /// Ingest goes no further. Pages up to here are served on, waits for more fail.
    pub fn stop(&self, why: &IngestStop) {
        let stopped = Stopped { code: why.code(), why: format!("ingest stopped at {}: {why}", self.store.last_record_lsn()) };
        error!("timeline {}: {}", self.id(), stopped.why);
        *self.stopped.borrow_mut() = Some(stopped);
        self.moved.notify_all();
    }

    /// The timeline was made at safekeepers just now: its receiver asks them at once.
    pub fn wake_receiver(&self) {
        self.receiver_wake.notify_one();
    }

    /// Ready after [`Timeline::wake_receiver`]. One task waits, and a call before it waits counts.
    pub async fn receiver_woken(&self) {
        self.receiver_wake.notified().await;
    }

    /// A stream that begins where ingest is to go on.
    pub fn wal_stream(&self) -> WalStream {
        WalStream::new(self.store.last_record_lsn(), Verify::Crc)
            .with_prev(self.store.prev_record_lsn())
            .with_system_id(self.record().system_id)
    }

    /// Ingests all whole records of `stream`. Each is taken wholly or not at all: after an error the
    /// timeline stands at the end of the record before.
    pub async fn ingest(&self, stream: &mut WalStream) -> Result<(), IngestStop> {
        self.store.ready_for_writes().await?;
        let mut turn_began = now();
        for count in 1u32.. {
            match stream.next_record()? {
                Next::NeedBytes => break,
                Next::EndOfWal => return Err(IngestStop::EndOfWal { at: stream.record_end() }),
                Next::Record(record) => self.ingest_record(&record).await?,
            }
            if count % RECORDS_PER_CLOCK == 0 && turn_began.elapsed() > INGEST_TURN_MAX {
                self.moved.notify_all();
                ironpage_io::yield_now().await;
                self.store.ready_for_writes().await?;
                turn_began = now();
            }
        }
        self.moved.notify_all();
        Ok(())
    }

    async fn ingest_record(&self, record: &Record<'_>) -> Result<(), IngestStop> {
        let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| self.store.put(key, lsn, &value);
        let action = self.head.borrow_mut().ingest(record, &mut sink)?;
        match action {
            IngestAction::None => {}
            IngestAction::CopyDatabase(copy) => self.copy_database(&copy, record.end).await?,
        }
        self.control.set(*self.head.borrow().control()?);
        self.store.set_last_record(record.end, record.start);
        self.ingest_records.set(self.ingest_records.get() + 1);
        self.ingest_bytes.set(self.ingest_bytes.get() + record.bytes.len() as u64);
        Ok(())
    }

    /// What the record that is being taken copies, at its end. The source has not changed since the record before.
    async fn copy_database(&self, copy: &CopyDatabase, end: Lsn) -> Result<(), IngestStop> {
        let before = self.store.last_record_lsn();
        for &(from, to, fork, blocks) in &copy.forks {
            let source = ForkState::read(&self.store, from, fork, before).await?;
            for block in (0..blocks).map(BlockNumber) {
                let page = self.page(&source, block).await?;
                let zeros = page.iter().all(|byte| *byte == 0);
                let value = if zeros { Value::ZeroPage } else { Value::Image(Cow::Borrowed(&page[..])) };
                self.store.put(Key::page(to, fork, block), end, &value);
            }
        }
        if let Some((from, to)) = copy.rel_map
            && let Some(version) = self.store.values(from, before, Lsn::INVALID).await?.first()
        {
            let value = Value::decode(&version.bytes).map_err(|error| ReconstructError::value(from, version.lsn, error))?;
            self.store.put(to, end, &value);
        }
        Ok(())
    }

    /// Returns the last record's end once it is at or behind `lsn`.
    pub async fn wait_for(&self, lsn: Lsn, wait_max: Duration) -> Result<Lsn, WaitError> {
        let there = async {
            loop {
                let moved = self.moved.notified();
                let last = self.store.last_record_lsn();
                if last >= lsn {
                    return Ok(last);
                }
                if let Some(stopped) = self.stopped() {
                    return Err(WaitError::Stopped(stopped));
                }
                moved.await;
            }
        };
        timeout(wait_max, there).await.unwrap_or_else(|_| {
            Err(WaitError::Late { wanted: lsn, last: self.store.last_record_lsn(), waited_ms: wait_max.as_millis() as u64 })
        })
    }

    /// A fork at `lsn`, which [`Timeline::page`] reads from.
    pub async fn fork(&self, rel: RelTag, fork: Fork, lsn: Lsn) -> Result<ForkState, ReconstructError> {
        // What the primary asks for, nearly always: the newest state, which needs no read.
        if let Some(state) = self.newest_fork(rel, fork, lsn) {
            return Ok(state);
        }
        ForkState::read(&self.store, rel, fork, lsn).await
    }

    /// The fork as the head knows it, if `lsn` is the head's.
    fn newest_fork(&self, rel: RelTag, fork: Fork, lsn: Lsn) -> Option<ForkState> {
        let head = self.head.borrow();
        // A head in the middle of a record, or after a failed one, is of no LSN.
        let is_whole = self.store.last_record_lsn() == head.last_record_lsn() && self.stopped.borrow().is_none();
        (is_whole && lsn == head.last_record_lsn()).then(|| ForkState {
            rel,
            fork,
            lsn,
            blocks: head.relation_blocks(rel, fork).unwrap_or_default(),
            cuts: head.relation_cuts(rel, fork).cloned().unwrap_or_default(),
        })
    }

    /// A block of a fork, as it stands in a file of a server: with its checksum if the cluster has them. Zeros at and
    /// beyond the fork's size.
    pub async fn page(&self, fork: &ForkState, block: BlockNumber) -> Result<Page, ReconstructError> {
        let mut page = reconstruct::relation_page(&self.store, &self.worker, fork, block).await?;
        if self.control.get().data_checksum_version.get() != 0 {
            checksum::set(&mut page, block);
        }
        Ok(page)
    }

    /// A page of an SLRU; `None` if it does not exist at `lsn`.
    pub async fn slru_page(&self, key: Key, lsn: Lsn) -> Result<Option<Page>, ReconstructError> {
        reconstruct::slru_page(&self.store, &self.worker, key, lsn).await
    }
}
