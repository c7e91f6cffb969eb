//! A timeline: its store, the head of its WAL, and who may ask for it.

mod branch;
mod branch_point;
mod error;
mod head;
mod history;
mod import;
mod registry;

pub use branch::NewBranch;
pub use branch_point::{At, BranchPoint};
pub use error::{IngestStop, Stopped, TimelineError, WaitError};
pub use head::HeadError;
pub use history::AtTime;
pub use import::Import;
pub use registry::{Known, Timelines, TimelinesConfig};

use crate::ingest::{CopyDatabase, Head, IngestAction, IngestError};
use crate::reconstruct::{self, ForkState, ReconstructError};
use crate::store::{Store, TimelineRecord};
use crate::worker::{HintBits, Page, Worker};
use head::{Whole, read_head};
use ironpage_daemon::{error, info};
use ironpage_io::sync::Notify;
use ironpage_io::time::{now, timeout};
use ironpage_layout::postgres::checksum;
use ironpage_layout::postgres::wal::{Next, Record, Verify, WalStream};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::{BlockNumber, Fork, Key, Lsn, RelTag, TenantId, Term, TimelineId, Value};
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
    /// The timeline it came off, if it did.
    parent: Option<Rc<Timeline>>,
    head: RefCell<Option<Head>>,
    /// There with the head.
    whole: Cell<Option<Whole>>,
    /// Somebody loads the head.
    loading: Cell<bool>,
    /// What is known of the size without a head.
    logical_size_at_start: Cell<Option<u64>>,
    /// Whether pages are served with checksums: a property of the cluster, which only a shut down one can change.
    checksums: bool,
    worker: Worker,
    term: Cell<Term>,
    stopped: RefCell<Option<Stopped>>,
    deleted: Cell<bool>,
    /// last_record_lsn moved, ingest stopped, the head was loaded, or the timeline is deleted.
    moved: Notify,
    ingest_records: Cell<u64>,
    ingest_bytes: Cell<u64>,
    /// Rung when the safekeepers may have WAL of a timeline they did not know.
    receiver_wake: Notify,
}

/// What a timeline is opened with besides its store.
enum Above {
    /// It was imported: all its head needs is in its own store.
    Nothing,
    /// It came off this one.
    Parent(Rc<Timeline>),
}

impl Timeline {
    /// A timeline whose store is complete up to its last record. Its head is loaded from there: at once if it was
    /// imported, else when it is needed.
    async fn open(store: Store, worker: Worker, above: Above) -> Result<Rc<Timeline>, TimelineError> {
        match above {
            Above::Parent(parent) => Ok(Timeline::start(store, worker, Some(parent), None)?),
            Above::Nothing => {
                let head = read_head(&store, store.last_record_lsn(), store.prev_record_lsn()).await?;
                Ok(Timeline::start(store, worker, None, Some(head))?)
            }
        }
    }

    fn start(
        store: Store,
        worker: Worker,
        parent: Option<Rc<Timeline>>,
        head: Option<Head>,
    ) -> Result<Rc<Timeline>, IngestError> {
        let whole = head.as_ref().map(Whole::of).transpose()?;
        let own = whole.map(|whole| whole.control.data_checksum_version.get() != 0);
        let checksums = own.or(parent.as_ref().map(|parent| parent.checksums)).unwrap_or_default();
        let timeline = Rc::new(Timeline {
            checksums,
            head: RefCell::new(head),
            whole: Cell::new(whole),
            loading: Cell::new(false),
            logical_size_at_start: Cell::new(None),
            parent,
            worker: worker.for_hint_bits(if checksums { HintBits::Logged } else { HintBits::Unlogged }),
            term: Cell::new(Term(0)),
            stopped: RefCell::new(None),
            deleted: Cell::new(false),
            moved: Notify::new(),
            ingest_records: Cell::new(0),
            ingest_bytes: Cell::new(0),
            receiver_wake: Notify::new(),
            store,
        });
        let weak = Rc::downgrade(&timeline);
        timeline.store.set_freeze_hook(Rc::new(move |store| {
            // Without a head nothing was ingested, and the last mark is where the store is.
            if let Some(whole) = weak.upgrade().and_then(|timeline| timeline.whole.get()) {
                whole.put_mark(store);
            }
        }));
        Ok(timeline)
    }

    /// The timeline it came off, if it did.
    pub fn parent(&self) -> Option<&Rc<Timeline>> {
        self.parent.as_ref()
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

    /// Whether [`Timelines::delete`] was called for it: nothing is served any more.
    pub fn is_deleted(&self) -> bool {
        self.deleted.get()
    }

    /// Returns once the timeline is deleted.
    pub async fn wait_deleted(&self) {
        while !self.deleted.get() {
            let moved = self.moved.notified();
            if !self.deleted.get() {
                moved.await;
            }
        }
    }

    fn set_deleted(&self) {
        self.deleted.set(true);
        self.moved.notify_all();
    }

    fn check_not_deleted(&self) -> Result<(), WaitError> {
        if self.deleted.get() { Err(WaitError::Deleted { timeline: self.id() }) } else { Ok(()) }
    }

    /// Ingest goes no further. Pages up to here are served on, waits for more fail.
    pub fn stop(&self, why: &IngestStop) {
        let stopped = Stopped { code: why.code(), why: format!("ingest stopped at {}: {why}", self.store.last_record_lsn()) };
        if self.deleted.get() {
            return;
        }
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
        self.load_head().await?;
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
        let action = self.head.borrow_mut().as_mut().ok_or(IngestError::NoControl)?.ingest(record, &mut sink)?;
        match action {
            IngestAction::None => {}
            IngestAction::CopyDatabase(copy) => self.copy_database(&copy, record.end).await?,
        }
        self.whole.set(self.head.borrow().as_ref().map(Whole::of).transpose()?);
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

    /// Returns the last record's end once it is at or behind `lsn`, and the ancestors are where this timeline came off.
    pub async fn wait_for(&self, lsn: Lsn, wait_max: Duration) -> Result<Lsn, WaitError> {
        let there = async {
            self.ancestors_there().await?;
            self.there(lsn).await
        };
        timeout(wait_max, there).await.unwrap_or_else(|_| {
            Err(WaitError::Late { wanted: lsn, last: self.store.last_record_lsn(), waited_ms: wait_max.as_millis() as u64 })
        })
    }

    async fn there(&self, lsn: Lsn) -> Result<Lsn, WaitError> {
        loop {
            let moved = self.moved.notified();
            self.check_not_deleted()?;
            let last = self.store.last_record_lsn();
            if last >= lsn {
                return Ok(last);
            }
            if let Some(stopped) = self.stopped() {
                return Err(WaitError::Stopped(stopped));
            }
            moved.await;
        }
    }

    /// Each ancestor has what is read of it. Only after a restart it may not: then its WAL comes again.
    async fn ancestors_there(&self) -> Result<(), WaitError> {
        let mut timeline = self;
        while let (Some(parent), Some(ancestor)) = (&timeline.parent, timeline.record().ancestor) {
            parent.there(ancestor.lsn).await?;
            timeline = parent;
        }
        Ok(())
    }

    /// A fork at `lsn`, which [`Timeline::page`] reads from.
    pub async fn fork(&self, rel: RelTag, fork: Fork, lsn: Lsn) -> Result<ForkState, ReconstructError> {
        // What the primary asks for, nearly always: the newest state, which needs no read.
        if let Some(state) = self.newest_fork(rel, fork, lsn) {
            return Ok(state);
        }
        let state = ForkState::read(&self.store, rel, fork, lsn).await;
        self.unless_deleted(state)
    }

    /// A read of a timeline that was deleted meanwhile says so, and not that its files are missing.
    fn unless_deleted<T>(&self, result: Result<T, ReconstructError>) -> Result<T, ReconstructError> {
        if self.deleted.get() { Err(ReconstructError::Deleted { timeline: self.id() }) } else { result }
    }

    /// The fork as the head knows it, if `lsn` is the head's.
    fn newest_fork(&self, rel: RelTag, fork: Fork, lsn: Lsn) -> Option<ForkState> {
        let head = self.head()?;
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
        let page = reconstruct::relation_page(&self.store, &self.worker, fork, block).await;
        let mut page = self.unless_deleted(page)?;
        if self.checksums {
            checksum::set(&mut page, block);
        }
        Ok(page)
    }

    /// A page of an SLRU; `None` if it does not exist at `lsn`.
    pub async fn slru_page(&self, key: Key, lsn: Lsn) -> Result<Option<Page>, ReconstructError> {
        let page = reconstruct::slru_page(&self.store, &self.worker, key, lsn).await;
        self.unless_deleted(page)
    }
}
