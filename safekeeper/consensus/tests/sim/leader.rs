//! A leader of the simulation: first the launcher, then Postgres with its worker, which may restart.

use super::node::{FromNode, SYSTEM_ID};
use super::random::Random;
use super::wal::Wal;
use ironpage_consensus::acceptor::Reply;
use ironpage_consensus::proposer::{Action, Config};
use ironpage_consensus::{ConnId, Error, Proposer};
use ironpage_layout::wire::append::TermHistory;
use ironpage_layout::{Lsn, NodeId, Term};

pub struct Leader {
    pub proposer: Proposer,
    /// The present connection to each node.
    pub conns: Vec<Option<ConnId>>,
    /// WAL of the term; None while the launcher runs.
    pub wal: Option<Wal>,
    /// Local WAL up to here may be sent; anywhere within a record.
    pub flushed: Lsn,
    pub dead: bool,
    writes: bool,
    pub actions: Vec<Action>,
}

fn config(nodes: usize, random: &mut Random) -> Config {
    Config {
        chunk_bytes: random.between(8, 300),
        window_bytes: random.between(200, 1500),
        heartbeat_ms: 20,
        commit_delay_ms: random.between(0, 10),
        reply_timeout_ms: 200,
        ..Config::new(nodes, SYSTEM_ID)
    }
}

impl Leader {
    pub fn new(nodes: usize, random: &mut Random) -> Leader {
        Leader {
            proposer: Proposer::launch(config(nodes, random)),
            conns: vec![None; nodes],
            wal: None,
            flushed: Lsn::INVALID,
            dead: false,
            writes: true,
            actions: Vec::new(),
        }
    }

    /// The worker starts, for the first time or again: same term, new connections.
    pub fn resume(&mut self, random: &mut Random, now: u64) {
        let nodes = self.conns.len();
        let Some((history, start)) = self.proposer.leading() else {
            return;
        };
        let history: TermHistory = history.clone();
        if self.wal.is_none() {
            self.wal = Some(Wal::new(start));
            self.flushed = start;
        }
        self.proposer = Proposer::resume(config(nodes, random), history).expect("our own history");
        self.conns.fill(None);
        self.proposer.wal_available(self.flushed, now, &mut self.actions);
    }

    pub fn term(&self) -> Term {
        self.proposer.term()
    }

    /// The launcher has done its work: a quorum knows that all up to the term's start is committed.
    pub fn launched(&self) -> bool {
        let start = self.proposer.leading().map(|leading| leading.1);
        self.wal.is_none() && start.is_some_and(|start| self.proposer.commit_lsn_known() >= start)
    }

    /// Transactions write WAL, and some of it is flushed locally.
    pub fn write(&mut self, random: &mut Random, now: u64) {
        let term = self.term();
        let Some(wal) = self.wal.as_mut().filter(|_| self.writes) else {
            return;
        };
        for _ in 0..random.below(4) {
            wal.push_record(term, random);
        }
        self.flushed = Lsn(random.between(self.flushed.0, wal.end().0));
        self.proposer.wal_available(self.flushed, now, &mut self.actions);
    }

    /// All WAL becomes flushed, and no more is written.
    pub fn stop_writing(&mut self, now: u64) {
        self.writes = false;
        if let Some(wal) = &self.wal {
            self.flushed = wal.end();
            self.proposer.wal_available(self.flushed, now, &mut self.actions);
        }
    }

    pub fn receive(&mut self, member: usize, message: FromNode, now: u64) -> Result<(), Error> {
        match message {
            FromNode::Greeting(term, greeting) => {
                self.proposer.greeting(member, NodeId(member as u64 + 1), term, greeting, now, &mut self.actions)
            }
            FromNode::Reply(term, Reply::Vote(vote)) => self.proposer.vote_reply(member, term, vote, now, &mut self.actions),
            FromNode::Reply(term, Reply::Append(reply)) => {
                self.proposer.append_reply(member, term, &reply, now, &mut self.actions)
            }
            FromNode::Closed(error) => {
                let expected = matches!(
                    error,
                    Error::Gap { .. } | Error::NotElected { .. } | Error::Superseded { .. } | Error::BeforeTerm { .. }
                );
                assert!(expected, "a node refused: {error}");
                self.conns[member] = None;
                self.proposer.disconnected(member);
                Ok(())
            }
        }
    }
}
