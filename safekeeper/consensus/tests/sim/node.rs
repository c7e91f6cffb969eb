//! A safekeeper of the simulation: the acceptor over a disk that loses what was not flushed.

use super::Seen;
use super::random::Random;
use super::wal::{START, Wal};
use ironpage_consensus::acceptor::{Action, Reply};
use ironpage_consensus::{Acceptor, ConnId, Error, PersistentState, Recovery};
use ironpage_layout::wire::append::{TermHistory, VoteReply};
use ironpage_layout::{Lsn, Term};
use std::collections::VecDeque;

pub const SYSTEM_ID: u64 = 77;

#[derive(Clone, Debug)]
pub enum ToNode {
    Hello,
    Vote(Term),
    Elected(Term, TermHistory),
    Append { term: Term, begin: Lsn, commit: Lsn, wal: Vec<u8> },
    Gone,
}

#[derive(Clone, Debug)]
pub enum FromNode {
    Greeting(Term, VoteReply),
    Reply(Term, Reply),
    Closed(Error),
}

/// Work of the disk, one after the other.
#[derive(Clone, Debug)]
enum Work {
    /// Covers what was written when it began.
    Flush(Option<Lsn>),
    Truncate(Lsn),
    Persist(PersistentState),
}

pub struct Node {
    /// None while it is down.
    pub acceptor: Option<Acceptor>,
    pub boot: u64,
    /// What a read sees: flushed and not.
    pub wal: Wal,
    durable_end: Lsn,
    durable: PersistentState,
    work: VecDeque<Work>,
    held: VecDeque<(ConnId, ToNode)>,
    /// Set when the acceptor asks for WAL of its peers.
    pub wants: Option<Recovery>,
    /// What happened since the world last looked.
    pub replies: Vec<(ConnId, FromNode)>,
    pub work_began: bool,
    pub seen: Seen,
    recovered: bool,
}

impl Node {
    pub fn new() -> Node {
        let durable = PersistentState { start_lsn: START, commit_lsn: START, ..PersistentState::default() };
        let mut node = Node {
            acceptor: None,
            boot: 0,
            wal: Wal::new(START),
            durable_end: START,
            durable,
            work: VecDeque::new(),
            held: VecDeque::new(),
            wants: None,
            replies: Vec::new(),
            work_began: false,
            seen: Seen::default(),
            recovered: false,
        };
        node.start();
        node
    }

    pub fn start(&mut self) {
        let end = self.wal.record_end(self.wal.end());
        self.wal.cut(end);
        self.durable_end = end;
        self.boot += 1;
        self.acceptor = Some(Acceptor::new(self.durable.clone(), SYSTEM_ID, end, end));
    }

    /// Power is cut: of what was not flushed any prefix may be there, of what was being done any part.
    pub fn crash(&mut self, random: &mut Random) {
        let mut kept = random.between(self.durable_end.0, self.wal.end().0);
        let recovering = self.acceptor.as_ref().is_some_and(|acceptor| acceptor.recovery().is_some());
        self.seen.crashes_in_recovery += u64::from(recovering && self.recovered);
        match self.work.pop_front() {
            // The cut had zeroed some of the tail.
            Some(Work::Truncate(to)) => {
                self.seen.crashes_in_cut += 1;
                kept = random.between(to.0, self.durable_end.0);
            }
            Some(Work::Persist(state)) if random.chance(500) => self.durable = state,
            _ => {}
        }
        self.wal.cut(Lsn(kept));
        self.acceptor = None;
        self.boot += 1;
        self.work.clear();
        self.held.clear();
        self.replies.clear();
        self.wants = None;
    }

    pub fn receive(&mut self, conn: ConnId, message: ToNode) {
        let Some(acceptor) = self.acceptor.as_mut() else {
            return;
        };
        match message {
            ToNode::Hello => {
                let (term, greeting) = acceptor.greeting();
                self.replies.push((conn, FromNode::Greeting(term, greeting)));
            }
            ToNode::Gone => acceptor.disconnected(conn),
            message => {
                self.held.push_back((conn, message));
                self.take_held();
            }
        }
    }

    fn take_held(&mut self) {
        while let Some(acceptor) = self.acceptor.as_mut().filter(|acceptor| !acceptor.busy()) {
            let Some((conn, message)) = self.held.pop_front() else {
                return;
            };
            let (mut out, mut bytes) = (Vec::new(), Vec::new());
            match message {
                ToNode::Vote(term) => acceptor.vote_request(conn, term, &mut out),
                ToNode::Elected(term, history) => acceptor.elected(conn, term, &history, &mut out),
                ToNode::Append { term, begin, commit, wal } => {
                    acceptor.append(conn, term, begin, commit, wal.len(), &mut out);
                    bytes = wal;
                }
                ToNode::Hello | ToNode::Gone => {}
            }
            self.carry_out(out, &bytes);
        }
    }

    pub fn recovered(&mut self, term: Term, begin: Lsn, wal: &[u8]) {
        let mut out = Vec::new();
        if let Some(acceptor) = self.acceptor.as_mut().filter(|acceptor| !acceptor.busy()) {
            acceptor.recovered(term, begin, wal.len(), &mut out);
        }
        if !out.is_empty() {
            self.seen.pulled += 1;
            self.recovered = true;
        }
        self.carry_out(out, wal);
    }

    pub fn persist_commit(&mut self) {
        let mut out = Vec::new();
        if let Some(acceptor) = self.acceptor.as_mut() {
            acceptor.persist_commit(100, &mut out);
        }
        self.carry_out(out, &[]);
    }

    fn carry_out(&mut self, actions: Vec<Action>, bytes: &[u8]) {
        for action in actions {
            match action {
                Action::Write { lsn, range } => {
                    assert_eq!(lsn, self.wal.end(), "writes follow each other");
                    self.wal.bytes.extend_from_slice(&bytes[range]);
                }
                Action::FlushWal => self.add_work(Work::Flush(None)),
                Action::Truncate { to } => self.add_work(Work::Truncate(to)),
                Action::Persist(state) => self.add_work(Work::Persist(state)),
                Action::Send { conn, term, reply } => self.replies.push((conn, FromNode::Reply(term, reply))),
                Action::Recover(recovery) => {
                    self.recovered = false;
                    self.wants = Some(recovery);
                }
                Action::Close { conn, error } => self.replies.push((conn, FromNode::Closed(error))),
            }
        }
    }

    fn add_work(&mut self, work: Work) {
        self.work.push_back(work);
        if self.work.len() == 1 {
            self.begin_work();
        }
    }

    fn begin_work(&mut self) {
        let end = self.wal.end();
        if let Some(work) = self.work.front_mut() {
            self.work_began = true;
            if let Work::Flush(covers) = work {
                *covers = Some(end);
            }
        }
    }

    /// The oldest work is done.
    pub fn work_done(&mut self) {
        let Some(work) = self.work.pop_front() else {
            return;
        };
        let mut out = Vec::new();
        let acceptor = self.acceptor.as_mut().expect("work of a node that is down is dropped");
        match work {
            Work::Flush(covers) => {
                self.durable_end = covers.expect("begun");
                acceptor.flushed(self.durable_end, self.wal.record_end(self.durable_end), &mut out);
            }
            Work::Truncate(to) => {
                self.seen.cuts += 1;
                self.wal.cut(to);
                self.durable_end = to;
                acceptor.truncated(self.wal.record_end(to), &mut out);
            }
            Work::Persist(state) => {
                self.durable = state;
                acceptor.persisted(&mut out);
            }
        }
        self.begin_work();
        self.carry_out(out, &[]);
        self.take_held();
    }
}
