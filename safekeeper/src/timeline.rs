//! One timeline: the acceptor decides, this carries out.
//!
//! Messages and completions of storage work go into the [`Acceptor`]; what it asks for is done here, in its
//! order. A failed write or flush stops the timeline: it never acknowledges again until a restart has found
//! out what is on disk. What is committed may still be read.

use crate::context::Context;
use crate::control::{self, Control, Properties};
use crate::error::{Error, Result};
use crate::limits::COMMIT_PERSIST_BYTES;
use crate::proposer_service::Replies;
use crate::recovery;
use crate::wal::reader::Reader;
use crate::wal::scan::Scanner;
use crate::wal::writer::Wal;
use ironpage_consensus::acceptor::{Acceptor, Action, ConnId, PersistentState, Recovery};
use ironpage_daemon::{error, info};
use ironpage_io::sync::{Notified, Notify};
use ironpage_io::{fs, spawn};
use ironpage_layout::wire::append::{TermHistory, VoteReply};
use ironpage_layout::{Lsn, Term};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A loaded timeline.
pub struct Timeline {
    pub properties: Properties,
    pub context: Rc<Context>,
    dir: PathBuf,
    wal: Rc<Wal>,
    acceptor: RefCell<Acceptor>,
    /// States to be persisted, oldest first. The acceptor bounds them: one of each kind.
    persists: RefCell<VecDeque<PersistentState>>,
    persisting: Cell<bool>,
    proposers: RefCell<HashMap<ConnId, Rc<Replies>>>,
    /// Rung whenever something of this timeline changed that somebody may wait for.
    moved: Notify,
    stopped: RefCell<Option<Error>>,
    recovering: Cell<bool>,
    /// Pieces of storage work under way.
    working: Cell<usize>,
    /// Ticks in a row nobody but the registry held this timeline.
    pub idle_ticks: Cell<u32>,
}

/// WAL that came with a message, and where its records lead if it was looked at already.
#[derive(Default)]
struct Incoming<'a> {
    bytes: &'a [u8],
    checked: Option<Scanner>,
}

/// Where a timeline stands, for those who read its WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The newest term whose leader was accepted here, and where it began.
    pub term: Term,
    pub term_start: Lsn,
    pub flush_lsn: Lsn,
    pub commit_lsn: Lsn,
}

impl Timeline {
    /// Makes the timeline's files in `dir`. It exists once its control file does, which comes last.
    pub async fn create(dir: &Path, properties: &Properties, prefix: &[u8]) -> Result<()> {
        fs::create_dir_all(dir).await?;
        // What an attempt that failed left here was never acknowledged.
        for number in crate::wal::segment::list(dir).await? {
            fs::remove_file(&crate::wal::segment::path(dir, number)).await?;
        }
        Wal::create(dir, properties.start_lsn, prefix).await?;
        let state = PersistentState {
            term: Term(0),
            history: TermHistory::default(),
            commit_lsn: properties.start_lsn,
            start_lsn: properties.start_lsn,
        };
        let control = Control { properties: properties.clone(), state };
        fs::write_atomic(&dir.join(control::FILE_NAME), &control.encode()).await?;
        for parent in dir.ancestors().skip(1).take(2) {
            fs::sync_dir(parent).await?;
        }
        Ok(())
    }

    /// Reads the control file and finds the end of the WAL.
    pub async fn load(dir: &Path, context: Rc<Context>) -> Result<Rc<Timeline>> {
        let Control { properties, state } = control::read(dir).await?;
        // A process that was killed may have replaced the control file, or made the timeline, and flushed no
        // directory: a vote that is read here must not be undone by a loss of power.
        for parent in dir.ancestors().take(3) {
            fs::sync_dir(parent).await?;
        }
        let wal = Rc::new(Wal::load(dir, &properties, state.commit_lsn).await?);
        let end = wal.durable();
        let acceptor = Acceptor::new(state, properties.system_id, end, end);
        info!(
            "timeline {} of tenant {}: loaded, term {}, commit_lsn {}, WAL ends at {end}",
            properties.timeline,
            properties.tenant,
            acceptor.term(),
            acceptor.commit_lsn()
        );
        let timeline = Rc::new(Timeline {
            properties,
            context,
            dir: dir.to_path_buf(),
            wal,
            acceptor: RefCell::new(acceptor),
            persists: RefCell::default(),
            persisting: Cell::new(false),
            proposers: RefCell::default(),
            moved: Notify::new(),
            stopped: RefCell::default(),
            recovering: Cell::new(false),
            working: Cell::new(0),
            idle_ticks: Cell::new(0),
        });
        if timeline.recovery().is_some() {
            timeline.recover();
        }
        Ok(timeline)
    }

    // What proposers do.

    /// Replies for `conn` go into `replies` from now on. Returns what to greet it with.
    pub fn connect(&self, conn: ConnId, replies: Rc<Replies>) -> Result<(Term, VoteReply)> {
        self.check_running()?;
        self.proposers.borrow_mut().insert(conn, replies);
        Ok(self.acceptor.borrow().greeting())
    }

    pub fn disconnect(&self, conn: ConnId) {
        self.proposers.borrow_mut().remove(&conn);
        self.acceptor.borrow_mut().disconnected(conn);
    }

    /// Waits until a message may be handed in. What follows without an await in between may hand in one.
    pub async fn ready(&self) -> Result<()> {
        loop {
            self.check_running()?;
            if !self.acceptor.borrow().busy() && self.wal.has_room() {
                return Ok(());
            }
            self.moved.notified().await;
        }
    }

    pub fn vote_request(self: &Rc<Timeline>, conn: ConnId, term: Term) {
        self.step(Incoming::default(), |acceptor, out| acceptor.vote_request(conn, term, out));
    }

    pub fn elected(self: &Rc<Timeline>, conn: ConnId, term: Term, history: &TermHistory) {
        self.step(Incoming::default(), |acceptor, out| acceptor.elected(conn, term, history, out));
    }

    /// WAL from the leader, or a heartbeat without any. WAL that does not decode is refused and changes nothing.
    pub fn append(self: &Rc<Timeline>, conn: ConnId, term: Term, begin: Lsn, commit: Lsn, wal: &[u8]) -> Result<()> {
        let leads = {
            let acceptor = self.acceptor.borrow();
            acceptor.leader() == Some(conn) && acceptor.term() == term && begin >= acceptor.term_start()
        };
        let checked = if leads { self.wal.check(begin, wal)? } else { None };
        self.context.counters.appends.add(1);
        let incoming = Incoming { bytes: wal, checked };
        self.step(incoming, |acceptor, out| acceptor.append(conn, term, begin, commit, wal.len(), out));
        Ok(())
    }

    /// WAL from a peer that the leader of `term` does not have.
    pub fn recovered(self: &Rc<Timeline>, term: Term, begin: Lsn, wal: &[u8]) -> Result<()> {
        let checked = self.wal.check(begin, wal)?;
        self.step(Incoming { bytes: wal, checked }, |acceptor, out| acceptor.recovered(term, begin, wal.len(), out));
        Ok(())
    }

    // What readers ask.

    pub fn position(&self) -> Position {
        let acceptor = self.acceptor.borrow();
        Position {
            term: ironpage_consensus::history::last_term(acceptor.history()),
            term_start: acceptor.term_start(),
            flush_lsn: acceptor.flush_lsn(),
            commit_lsn: acceptor.commit_lsn(),
        }
    }

    /// The highest term this safekeeper has voted in or accepted.
    pub fn term(&self) -> Term {
        self.acceptor.borrow().term()
    }

    /// Whether all that is flushed here belongs to the log of `term`'s leader.
    pub fn may_serve_uncommitted(&self, term: Term) -> bool {
        self.acceptor.borrow().may_serve_uncommitted(term)
    }

    /// What this safekeeper lacks before the start of the accepted term.
    pub fn recovery(&self) -> Option<Recovery> {
        self.acceptor.borrow().recovery()
    }

    pub fn wal_reader(&self) -> Reader {
        Reader::new(&self.dir)
    }

    /// WAL from memory, if it is still there: see [`Wal::recent`].
    pub fn recent(&self, from: Lsn, max: usize) -> Option<Vec<u8>> {
        self.wal.recent(from, max)
    }

    /// End of the WAL taken in, flushed or not.
    pub fn taken_in(&self) -> Lsn {
        self.wal.end()
    }

    /// Ready once anything has changed since the call: take it, check, then await it.
    pub fn moved(&self) -> Notified {
        self.moved.notified()
    }

    /// Why the timeline stopped, if it did.
    pub fn stopped(&self) -> Option<Error> {
        self.stopped.borrow().clone()
    }

    pub fn check_running(&self) -> Result<()> {
        self.stopped().map_or(Ok(()), Err)
    }

    // Upkeep.

    /// Has commit_lsn persisted if it moved, so that a restart scans less and readers know it sooner.
    pub fn persist_commit(self: &Rc<Timeline>, distance_bytes: u64) {
        self.step(Incoming::default(), |acceptor, out| acceptor.persist_commit(distance_bytes, out));
    }

    /// Whether storage work is under way.
    pub fn at_work(&self) -> bool {
        let acceptor = self.acceptor.borrow();
        acceptor.busy()
            || self.persisting.get()
            || self.recovering.get()
            || self.wal.is_preparing()
            || self.wal.end() > acceptor.flush_lsn()
    }

    /// Returns once no storage work is under way, or none will end.
    pub async fn settled(&self) {
        loop {
            let moved = self.moved();
            let acceptor_rests = !self.acceptor.borrow().busy() && !self.persisting.get();
            if acceptor_rests || self.stopped.borrow().is_some() {
                return;
            }
            moved.await;
        }
    }

    /// Gives back memory that only a timeline in use needs.
    pub fn rest(&self) {
        self.wal.rest();
    }

    /// Stops acknowledging for good: everybody who waits is told why.
    fn stop(&self, error: Error) {
        let timeline = self.properties.timeline;
        let error = match error {
            Error::Io(error) => Error::Stopped { timeline, error },
            error => error,
        };
        if self.stopped.borrow().is_some() {
            return;
        }
        error!("{error}");
        for replies in self.proposers.borrow().values() {
            replies.close(&error, self.term());
        }
        *self.stopped.borrow_mut() = Some(error);
        self.moved.notify_all();
    }

    /// Tells everybody that the timeline is being deleted, and returns once nothing of it will write to disk any more.
    pub async fn delete(&self) {
        let error = Error::Deleted { timeline: self.properties.timeline };
        for replies in self.proposers.borrow().values() {
            replies.close(&error, self.term());
        }
        *self.stopped.borrow_mut() = Some(error);
        self.moved.notify_all();
        loop {
            let moved = self.moved();
            if self.wal.is_preparing() {
                self.wal.preparation_ended().await;
            } else if self.working.get() > 0 {
                moved.await;
            } else {
                return;
            }
        }
    }

    /// An error if the timeline is being deleted or is gone: then not even its readers are served.
    pub fn check_there(&self) -> Result<()> {
        match &*self.stopped.borrow() {
            Some(error @ Error::Deleted { .. }) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    // The acceptor's hands.

    fn step(self: &Rc<Timeline>, mut incoming: Incoming<'_>, input: impl FnOnce(&mut Acceptor, &mut Vec<Action>)) {
        if self.stopped.borrow().is_some() {
            return;
        }
        let mut actions = Vec::new();
        {
            let mut acceptor = self.acceptor.borrow_mut();
            input(&mut acceptor, &mut actions);
            acceptor.persist_commit(COMMIT_PERSIST_BYTES, &mut actions);
        }
        for action in actions {
            self.carry_out(action, &mut incoming);
        }
        self.moved.notify_all();
    }

    fn carry_out(self: &Rc<Timeline>, action: Action, incoming: &mut Incoming<'_>) {
        match action {
            Action::Write { lsn, range } => {
                assert_eq!(lsn, self.wal.end(), "the acceptor and the WAL agree on its end");
                let bytes = incoming.bytes.get(range).unwrap_or_default();
                self.context.counters.appended_bytes.add(bytes.len() as u64);
                if let Err(error) = self.wal.take(bytes, incoming.checked.take()) {
                    self.stop(error);
                }
            }
            Action::FlushWal => self.start(|timeline| async move {
                let (flush_lsn, record_end) = timeline.wal.flush().await?;
                timeline.context.counters.flushes.add(1);
                timeline.step(Incoming::default(), |acceptor, out| acceptor.flushed(flush_lsn, record_end, out));
                Ok(())
            }),
            Action::Truncate { to } => self.start(move |timeline| async move {
                timeline.wal.truncate(to).await?;
                let record_end = timeline.wal.record_end();
                timeline.step(Incoming::default(), |acceptor, out| acceptor.truncated(record_end, out));
                Ok(())
            }),
            Action::Persist(state) => {
                self.persists.borrow_mut().push_back(state);
                if !self.persisting.replace(true) {
                    self.start(|timeline| async move { timeline.persist_all().await });
                }
            }
            Action::Send { conn, term, reply } => {
                if let Some(replies) = self.proposers.borrow().get(&conn) {
                    replies.push(term, reply);
                }
            }
            Action::Recover(_) => self.recover(),
            Action::Close { conn, error } => {
                if let Some(replies) = self.proposers.borrow().get(&conn) {
                    replies.close(&error.into(), self.term());
                }
            }
        }
    }

    /// Runs storage work beside everything else; its failure stops the timeline.
    fn start<F>(self: &Rc<Timeline>, work: impl FnOnce(Rc<Timeline>) -> F)
    where
        F: Future<Output = Result<()>> + 'static,
    {
        let (timeline, work) = (self.clone(), work(self.clone()));
        self.working.set(self.working.get() + 1);
        spawn(async move {
            if let Err(error) = work.await {
                timeline.stop(error);
            }
            timeline.working.set(timeline.working.get() - 1);
            timeline.moved.notify_all();
        });
    }

    /// Writes control files, in order, until none waits.
    async fn persist_all(self: &Rc<Timeline>) -> Result<()> {
        loop {
            let Some(state) = self.persists.borrow_mut().pop_front() else { break };
            let control = Control { properties: self.properties.clone(), state };
            fs::write_atomic(&self.dir.join(control::FILE_NAME), &control.encode()).await?;
            self.context.counters.control_writes.add(1);
            self.step(Incoming::default(), |acceptor, out| acceptor.persisted(out));
        }
        self.persisting.set(false);
        self.moved.notify_all();
        Ok(())
    }

    fn recover(self: &Rc<Timeline>) {
        if !self.recovering.replace(true) {
            let timeline = self.clone();
            spawn(async move {
                recovery::run(&timeline).await;
                timeline.recovering.set(false);
                timeline.moved.notify_all();
            });
        }
    }
}
