//! The safekeepers' other side: the consensus proposer, and the frames of its connections.
//!
//! The C worker (`../../shim/walproposer.c`) owns sockets, the clock and the WAL files. It hands in what
//! arrived, takes out what is to be sent, and reads the WAL that [`Work::ReadWal`] names.

mod ffi;
mod session;

use ironpage_consensus::proposer::{Action, Config, Message};
use ironpage_consensus::{Error as ConsensusError, Proposer};
use ironpage_layout::id::{TenantId, Term, TimelineId};
use ironpage_layout::wire::append::{Append, AppendReply, Elected, TermHistory, VoteReply};
use ironpage_layout::wire::hello::{Hello, HelloReply, Role};
use ironpage_layout::wire::{ErrorCode, Header, Kind, RemoteError, WireError, encode_frame};
use ironpage_layout::{Lsn, NodeId};
use session::Session;
use std::collections::VecDeque;
use zerocopy::little_endian::U64;

/// What goes wrong at one connection; it is closed and made anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposerError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    #[error("safekeeper refused us: {0}")]
    Remote(#[from] RemoteError),
    #[error("{0:?} frame where none belongs")]
    Unexpected(Kind),
    #[error("launch ticket has the history '{0}', expected term:lsn,term:lsn")]
    BadHistory(String),
}

/// Work for the C worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Read `length` bytes of local WAL from `begin` on, within one segment, and hand them to [`Worker::supply`].
    ReadWal { member: usize, begin: Lsn, length: usize },
    /// Close the connection, call [`Worker::disconnected`], and connect anew after a pause.
    Disconnect { member: usize },
}

/// Who we are, in the hello.
#[derive(Clone, Debug)]
pub struct Identity {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub system_id: u64,
    pub postgres_version: u32,
}

/// WAL that [`Work::ReadWal`] asked for and that has not come yet.
struct AwaitedWal {
    member: usize,
    term: Term,
    begin: Lsn,
    length: usize,
    commit: Lsn,
}

/// The proposer over its connections.
pub struct Worker {
    proposer: Proposer,
    identity: Identity,
    sessions: Vec<Session>,
    actions: VecDeque<Action>,
    disconnects: VecDeque<usize>,
    awaited: Option<AwaitedWal>,
    term: Term,
    /// Highest term seen above ours, 0 if none: we are fenced.
    fenced: Term,
    /// An invariant is broken: histories mixed. Nothing may be served any more.
    broken: Option<String>,
    messages: VecDeque<String>,
    /// What each connection last ended with: told once, however often it is tried.
    complaints: Vec<String>,
}

impl Worker {
    /// Continues the term the launcher won. `history` is the ticket's: `term:lsn,term:lsn`.
    pub fn new(history: &str, identity: Identity, members: usize) -> Result<Worker, ProposerError> {
        let history = parse_history(history)?;
        let term = history.0.last().map_or(Term(0), |entry| entry.0);
        let proposer = Proposer::resume(Config::new(members, identity.system_id), history)?;
        let sessions = (0..members).map(|_| Session::default()).collect();
        Ok(Worker {
            proposer,
            identity,
            sessions,
            actions: VecDeque::new(),
            disconnects: VecDeque::new(),
            awaited: None,
            term,
            fenced: Term(0),
            broken: None,
            messages: VecDeque::new(),
            complaints: vec![String::new(); members],
        })
    }

    /// The socket is open: says hello.
    pub fn connected(&mut self, member: usize) {
        let (identity, term) = (self.identity.clone(), self.term);
        let Some(session) = self.sessions.get_mut(member) else {
            return;
        };
        *session = Session { open: true, ..Session::default() };
        let hello = Hello {
            role: Role::Proposer,
            tenant: identity.tenant,
            timeline: identity.timeline,
            system_id: identity.system_id,
            postgres_version: identity.postgres_version,
            token: Vec::new(),
        };
        encode_frame(&mut session.output, Kind::Hello, 0, term, |out| hello.encode(out));
    }

    pub fn disconnected(&mut self, member: usize) {
        if let Some(session) = self.sessions.get_mut(member) {
            *session = Session::default();
        }
        self.proposer.disconnected(member);
        self.disconnects.retain(|other| *other != member);
    }

    /// Bytes came. What is wrong with them ends the connection, or, if histories mixed, everything.
    pub fn received(&mut self, member: usize, bytes: &[u8], now_ms: u64) {
        let Some(session) = self.sessions.get_mut(member).filter(|session| session.open) else {
            return;
        };
        session.input.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(next) = self.sessions.get_mut(member).map(Session::next_frame) {
            let handled = match next {
                Ok(None) => break,
                Ok(Some((header, payload))) => self.frame(member, header, &payload, now_ms, &mut out),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = handled {
                self.failed(member, &error);
                break;
            }
        }
        self.actions.extend(out);
    }

    fn frame(
        &mut self,
        member: usize,
        header: Header,
        payload: &[u8],
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Result<(), ProposerError> {
        let node = self.sessions.get(member).and_then(|session| session.node);
        match (header.kind, node) {
            (Kind::HelloReply, None) => {
                let reply = HelloReply::decode(payload)?;
                if let Some(session) = self.sessions.get_mut(member) {
                    session.node = Some(NodeId(reply.node.get()));
                }
            }
            (Kind::Greeting, Some(node)) => {
                let greeting = VoteReply::decode(payload)?;
                let (flush, term) = (greeting.flush_lsn, header.term);
                self.proposer.greeting(member, node, header.term, greeting, now_ms, out)?;
                if self.complaints.get(member).is_none_or(String::is_empty) {
                    self.messages.push_back(format!("connected to safekeeper {node}: term {term}, WAL up to {flush}"));
                }
                if let Some(session) = self.sessions.get_mut(member) {
                    session.greeted = true;
                }
            }
            (Kind::AppendReply, Some(_)) => {
                let reply = AppendReply::decode(payload)?;
                self.proposer.append_reply(member, header.term, &reply, now_ms, out)?;
                self.complaints.get_mut(member).map(String::clear);
            }
            (Kind::VoteReply, Some(_)) => {}
            (Kind::Error, _) => {
                let error = RemoteError::decode(payload)?;
                if error.code == ErrorCode::Fenced && header.term > self.term {
                    self.fenced = self.fenced.max(header.term);
                }
                return Err(error.into());
            }
            (kind, _) => return Err(ProposerError::Unexpected(kind)),
        }
        Ok(())
    }

    fn failed(&mut self, member: usize, error: &ProposerError) {
        let node = self.sessions.get(member).and_then(|session| session.node);
        let node = node.map_or("of unknown number".to_string(), |node| node.to_string());
        let message = format!("connection {member}, to safekeeper {node}, ends: {error}");
        if let Some(complaint) = self.complaints.get_mut(member).filter(|complaint| **complaint != message) {
            complaint.clone_from(&message);
            self.messages.push_back(message);
        }
        if let ProposerError::Consensus(ConsensusError::AheadOfLeader { .. }) = error {
            self.broken = Some(error.to_string());
        }
        self.disconnects.push_back(member);
    }

    pub fn wal_available(&mut self, end: Lsn, now_ms: u64) {
        let mut out = Vec::new();
        self.proposer.wal_available(end, now_ms, &mut out);
        self.actions.extend(out);
    }

    pub fn tick(&mut self, now_ms: u64) {
        let mut out = Vec::new();
        self.proposer.tick(now_ms, &mut out);
        self.actions.extend(out);
    }

    /// Encodes what needs no WAL, and returns the first thing that needs the C worker.
    pub fn next_work(&mut self) -> Option<Work> {
        if let Some(member) = self.disconnects.pop_front() {
            return Some(Work::Disconnect { member });
        }
        while let Some(action) = self.actions.pop_front() {
            match action {
                Action::Send { member, term, message } => {
                    let Some(session) = self.sessions.get_mut(member).filter(|session| session.open) else {
                        continue;
                    };
                    match message {
                        Message::VoteRequest => {}
                        Message::Elected(history) => {
                            let elected = Elected { history };
                            encode_frame(&mut session.output, Kind::Elected, 0, term, |out| elected.encode(out));
                        }
                        Message::Append { begin, length: 0, commit } => encode_append(session, term, begin, commit, &[]),
                        Message::Append { begin, length, commit } => {
                            self.awaited = Some(AwaitedWal { member, term, begin, length, commit });
                            return Some(Work::ReadWal { member, begin, length });
                        }
                    }
                }
                Action::Disconnect { member, why } => {
                    self.messages.push_back(format!("connection to safekeeper {member} ends: {why}"));
                    return Some(Work::Disconnect { member });
                }
                Action::Fenced { seen } | Action::Lost { seen } => self.fenced = self.fenced.max(seen),
                Action::Won { .. } | Action::Committed(_) => {}
            }
        }
        None
    }

    /// The WAL that [`Work::ReadWal`] asked for. False if it did not, or asked for other than so many bytes.
    pub fn supply(&mut self, wal: &[u8]) -> bool {
        let Some(awaited) = self.awaited.take().filter(|awaited| awaited.length == wal.len()) else {
            return false;
        };
        if let Some(session) = self.sessions.get_mut(awaited.member).filter(|session| session.open) {
            encode_append(session, awaited.term, awaited.begin, awaited.commit, wal);
        }
        true
    }
}

fn encode_append(session: &mut Session, term: Term, begin: Lsn, commit: Lsn, wal: &[u8]) {
    encode_frame(&mut session.output, Kind::Append, 0, term, |out| {
        Append { begin_lsn: U64::new(begin.0), commit_lsn: U64::new(commit.0) }.encode(out);
        out.extend_from_slice(wal);
    });
}

fn parse_history(text: &str) -> Result<TermHistory, ProposerError> {
    let entry = |part: &str| {
        let (term, lsn) = part.split_once(':')?;
        Some((Term(term.parse().ok()?), lsn.parse().ok()?))
    };
    let entries: Option<Vec<_>> = text.split(',').map(entry).collect();
    entries.map(TermHistory).ok_or_else(|| ProposerError::BadHistory(text.to_string()))
}

#[cfg(test)]
mod tests;
