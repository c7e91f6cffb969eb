//! The redo worker's client: pages and WAL records to a stock Postgres in a sandbox, pages back.
//!
//! One worker process serves the core. Requests go down its pipe without waiting for earlier answers; each
//! is for one page, so that a record that kills the worker costs that page an answer and nobody else.

mod error;
mod pinned;
pub mod protocol;
mod session;
mod version;

pub use error::WorkerError;
pub use pinned::{Program, pin};
pub use protocol::{HintBits, PageTag, RedoRecord};
pub use version::check_version;

use ironpage_io::sync::{Notify, OneSender, oneshot};
use ironpage_layout::rel::PAGE_SIZE;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// A page's bytes.
pub type Page = Box<[u8; PAGE_SIZE]>;

/// Requests sent to the worker and not answered yet, at most. Enough to keep its pipe busy.
const IN_FLIGHT_MAX: usize = 64;

/// Limits of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    pub program: Program,
    /// An answer may take this long once the one before it is here; then the process is killed.
    pub timeout: Duration,
}

impl WorkerConfig {
    pub fn new(program: Program) -> WorkerConfig {
        WorkerConfig { program, timeout: Duration::from_secs(10) }
    }
}

/// What a worker has done since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WorkerCounters {
    pub batches: u64,
    pub records: u64,
    pub failures: u64,
    /// Processes started, the first included.
    pub starts: u64,
}

/// A handle to the core's redo worker, for clusters of one kind; clones are the same worker. The process is started at the first request.
#[derive(Clone)]
pub struct Worker {
    hint_bits: HintBits,
    shared: Rc<Shared>,
}

struct Shared {
    config: WorkerConfig,
    queue: RefCell<VecDeque<Job>>,
    /// Something was queued, or the worker is to stop.
    queued: Notify,
    running: Cell<bool>,
    /// Some process has answered: the program works, and what kills it is the input.
    proven: Cell<bool>,
    stopping: Cell<bool>,
    counters: Cell<WorkerCounters>,
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut WorkerCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }
}

impl Job {
    /// Whoever asked may have gone away meanwhile.
    fn finish(self, result: Result<Page, WorkerError>) {
        let _ = self.answer.send(result);
    }
}

/// A request on its way, and where its answer goes.
struct Job {
    request: Request,
    answer: OneSender<Result<Page, WorkerError>>,
    /// It was at the head when a worker died: one more death is its own doing.
    suspect: bool,
}

enum Request {
    Redo { page: PageTag, hint_bits: HintBits, base: Option<Page>, records: Vec<RedoRecord> },
    Ping,
}

impl Request {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Redo { page, hint_bits, base, records } => {
                protocol::encode_redo(out, *page, *hint_bits, base.as_deref(), records)
            }
            Request::Ping => protocol::encode_ping(out),
        }
    }
}

impl Worker {
    /// Redoes for clusters without data checksums; see [`Worker::for_hint_bits`].
    pub fn new(config: WorkerConfig) -> Worker {
        Worker {
            hint_bits: HintBits::Unlogged,
            shared: Rc::new(Shared {
                config,
                queue: RefCell::default(),
                queued: Notify::new(),
                running: Cell::new(false),
                proven: Cell::new(false),
                stopping: Cell::new(false),
                counters: Cell::default(),
            }),
        }
    }

    /// The same worker, for pages of a cluster of the other kind.
    pub fn for_hint_bits(&self, hint_bits: HintBits) -> Worker {
        Worker { hint_bits, shared: self.shared.clone() }
    }

    /// The page that `records`, in order, make of `base`, or of a page of zeros.
    ///
    /// Long chains are sent in several requests, each built on the answer to the one before.
    pub async fn redo(&self, page: PageTag, base: Option<Page>, records: Vec<RedoRecord>) -> Result<Page, WorkerError> {
        let mut base = base;
        let mut rest = records.into_iter().peekable();
        while rest.peek().is_some() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(record) =
                rest.next_if(|next| batch.is_empty() || bytes + next.request_bytes() <= protocol::MAX_BATCH_BYTES)
            {
                bytes += record.request_bytes();
                batch.push(record);
            }
            if bytes + PAGE_SIZE + 64 > protocol::MAX_REQUEST_BYTES {
                let record = batch.first().map(RedoRecord::to_string).unwrap_or_default();
                return Err(WorkerError::RecordTooLong { page, record, bytes });
            }
            self.shared.count(|counters| {
                counters.batches += 1;
                counters.records += batch.len() as u64;
            });
            let request = Request::Redo { page, hint_bits: self.hint_bits, base: base.take(), records: batch };
            base = Some(self.ask(request).await.inspect_err(|_| self.shared.count(|counters| counters.failures += 1))?);
        }
        Ok(base.unwrap_or_else(|| Box::new([0; PAGE_SIZE])))
    }

    /// Starts the process if there is none and returns once it has answered: what is wrong with the program shows here.
    pub async fn check(&self) -> Result<(), WorkerError> {
        self.ask(Request::Ping).await.map(drop)
    }

    pub fn counters(&self) -> WorkerCounters {
        self.shared.counters.get()
    }

    /// Ends the process; requests that wait, and later ones, fail.
    pub fn stop(&self) {
        self.shared.stopping.set(true);
        self.shared.queued.notify_all();
    }

    async fn ask(&self, request: Request) -> Result<Page, WorkerError> {
        if self.shared.stopping.get() {
            return Err(WorkerError::Stopped);
        }
        let (sender, answer) = oneshot();
        self.shared.queue.borrow_mut().push_back(Job { request, answer: sender, suspect: false });
        self.shared.queued.notify_all();
        if !self.shared.running.replace(true) {
            drop(ironpage_io::spawn(session::run(self.shared.clone())));
        }
        answer.await.unwrap_or(Err(WorkerError::Stopped))
    }
}

#[cfg(test)]
mod tests;
