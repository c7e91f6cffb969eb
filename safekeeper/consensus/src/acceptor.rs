//! The acceptor: what a safekeeper decides about one timeline.
//!
//! The daemon feeds messages (`vote_request`, `elected`, `append`) and completions of storage work
//! (`flushed`, `truncated`, `persisted`), and carries out the [`Action`]s each call appends to `out`,
//! **in order**. A reply is only asked for once everything it promises is durable.
//!
//! ```text
//! vote      FlushWal -> Persist(term)                 -> Send(VoteReply granted)
//! elected   FlushWal -> Truncate -> Persist(history)  -> Send(AppendReply), perhaps Recover
//! append    Write -> FlushWal                         -> Send(AppendReply), one for all that was flushed
//! ```
//!
//! While [`Acceptor::busy`] (a vote or an election is becoming durable) the daemon holds back further
//! messages of this timeline; completions must still be fed. Appends during a flush are welcome: they are
//! written at once, and the next flush covers them all.
//!
//! The cut comes before the history on disk. The other way round a crash in between would leave bytes of
//! a deposed leader under the new leader's name, and they would win the next election.

use crate::error::{Error, Result};
use crate::history;
use ironpage_layout::wire::append::{AppendReply, TermHistory, VoteReply};
use ironpage_layout::{Lsn, Term};
use std::collections::VecDeque;
use std::ops::Range;
use zerocopy::little_endian::U64;

/// A connection of a proposer, numbered by the daemon; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// What must survive a crash, written as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PersistentState {
    pub term: Term,
    pub history: TermHistory,
    /// At most what is really committed: it is written with the next change of the rest, or on
    /// [`Acceptor::persist_commit`]. Recovery of the WAL's end scans from here.
    pub commit_lsn: Lsn,
    /// First LSN of the timeline.
    pub start_lsn: Lsn,
}

/// A message to a proposer. The frame's term is in [`Action::Send`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Vote(VoteReply),
    Append(AppendReply),
}

/// Work for the daemon, to be carried out in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write bytes `range` of the WAL that was handed to [`Acceptor::append`] or [`Acceptor::recovered`] at `lsn`.
    Write { lsn: Lsn, range: Range<usize> },
    /// Make everything written before durable, then call [`Acceptor::flushed`].
    FlushWal,
    /// Remove all WAL from `to` on, durably, then call [`Acceptor::truncated`].
    Truncate { to: Lsn },
    /// Make the state durable, then call [`Acceptor::persisted`].
    Persist(PersistentState),
    /// Send a frame whose header holds `term`.
    Send { conn: ConnId, term: Term, reply: Reply },
    /// Pull WAL from a peer, see [`Recovery`]. It replaces any recovery before it.
    Recover(Recovery),
    /// The proposer broke the protocol: send `error` and close. Nothing was changed.
    Close { conn: ConnId, error: Error },
}

/// WAL this safekeeper lacks and the leader does not have: all before its term began. Any peer that has
/// accepted `term`'s history and flushed up to `until` has it (see [`Acceptor::may_serve_uncommitted`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovery {
    pub term: Term,
    pub from: Lsn,
    pub until: Lsn,
}

/// The storage work that stands between a message and its reply.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    /// Waiting for the flush in flight, or one asked for by the phase.
    VoteFlush(ConnId),
    VotePersist(ConnId),
    ElectedFlush(ConnId, TermHistory),
    ElectedTruncate(ConnId, TermHistory),
    ElectedPersist(ConnId),
}

/// Why a `Persist` is in flight; they complete in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Persist {
    Phase,
    Commit,
}

#[derive(Clone, Debug)]
pub struct Acceptor {
    state: PersistentState,
    system_id: u64,
    /// End of WAL handed to storage.
    written: Lsn,
    flush_lsn: Lsn,
    record_end: Lsn,
    /// What the leader says is committed; may lie past what is here.
    leader_commit: Lsn,
    /// Who gets the replies to flushes.
    leader: Option<ConnId>,
    flushing: bool,
    phase: Phase,
    persists: VecDeque<Persist>,
    /// commit_lsn of the newest Persist.
    persisted_commit: Lsn,
}

impl Acceptor {
    /// From what recovery found: the state as persisted, the end of the WAL and of its last whole record.
    /// `flush_lsn` is durable, and nothing but zeros lies behind it.
    pub fn new(state: PersistentState, system_id: u64, flush_lsn: Lsn, record_end: Lsn) -> Acceptor {
        assert!(record_end <= flush_lsn && state.commit_lsn <= record_end, "{state:?} {flush_lsn} {record_end}");
        Acceptor {
            persisted_commit: state.commit_lsn,
            state,
            system_id,
            written: flush_lsn,
            flush_lsn,
            record_end,
            leader_commit: Lsn::INVALID,
            leader: None,
            flushing: false,
            phase: Phase::Idle,
            persists: VecDeque::new(),
        }
    }

    /// A vote or an election is becoming durable: hold back messages, feed completions only.
    pub fn busy(&self) -> bool {
        self.phase != Phase::Idle
    }

    pub fn term(&self) -> Term {
        self.state.term
    }

    pub fn history(&self) -> &TermHistory {
        &self.state.history
    }

    /// Where the newest accepted term began; what `WalData.term_start_lsn` carries.
    pub fn term_start(&self) -> Lsn {
        history::last_start(&self.state.history)
    }

    pub fn start_lsn(&self) -> Lsn {
        self.state.start_lsn
    }

    pub fn flush_lsn(&self) -> Lsn {
        self.flush_lsn
    }

    pub fn record_end(&self) -> Lsn {
        self.record_end
    }

    /// End of what is committed, as far as known here: a record end, flushed here.
    pub fn commit_lsn(&self) -> Lsn {
        self.state.commit_lsn
    }

    /// The connection that leads, if it is still there.
    pub fn leader(&self) -> Option<ConnId> {
        self.leader
    }

    /// Term that wrote the end of the log.
    pub fn last_log_term(&self) -> Term {
        self.state.history.term_at(self.flush_lsn)
    }

    /// The leader of the newest accepted term was heard here and its history is durable, in `term`.
    fn accepted(&self, term: Term) -> bool {
        !self.busy() && term == self.state.term && history::last_term(&self.state.history) == term
    }

    /// Uncommitted WAL may be read by `term`'s followers: all that is flushed here is part of its log.
    pub fn may_serve_uncommitted(&self, term: Term) -> bool {
        self.accepted(term)
    }

    /// WAL that is missing between our end and the start of the accepted term, if any.
    pub fn recovery(&self) -> Option<Recovery> {
        let until = self.term_start();
        (self.accepted(self.state.term) && self.flush_lsn < until).then_some(Recovery {
            term: self.state.term,
            from: self.flush_lsn,
            until,
        })
    }

    /// What a proposer is greeted with, and the term of that frame.
    pub fn greeting(&self) -> (Term, VoteReply) {
        (self.state.term, self.vote_reply(false))
    }

    /// A candidate asks for leadership in `term`.
    pub fn vote_request(&mut self, conn: ConnId, term: Term, out: &mut Vec<Action>) {
        assert!(!self.busy(), "messages are held back while busy");
        if term <= self.state.term {
            out.push(self.send(conn, Reply::Vote(self.vote_reply(false))));
            return;
        }
        self.state.term = term;
        self.depose();
        self.phase = Phase::VoteFlush(conn);
        self.advance_phase(out);
    }

    /// `term`'s leader says how its log came to be.
    pub fn elected(&mut self, conn: ConnId, term: Term, theirs: &TermHistory, out: &mut Vec<Action>) {
        assert!(!self.busy(), "messages are held back while busy");
        if term < self.state.term {
            out.push(self.append_reply(conn));
            return;
        }
        match self.check_elected(term, theirs) {
            Err(error) => out.push(Action::Close { conn, error }),
            Ok(()) if self.accepted(term) => {
                self.leader = Some(conn);
                out.push(self.append_reply(conn));
                out.extend(self.recovery().map(Action::Recover));
            }
            Ok(()) => {
                self.state.term = term;
                self.depose();
                self.phase = Phase::ElectedFlush(conn, theirs.clone());
                self.advance_phase(out);
            }
        }
    }

    fn check_elected(&self, term: Term, theirs: &TermHistory) -> Result<()> {
        history::check(theirs, term)?;
        if history::last_term(&self.state.history) == term && self.state.history != *theirs {
            return Err(Error::TwoLeaders { term });
        }
        let cut = history::common_point(&self.state.history, self.written, theirs);
        if cut < self.state.commit_lsn {
            return Err(Error::CutBelowCommit { term, cut, commit_lsn: self.state.commit_lsn });
        }
        Ok(())
    }

    /// WAL of `length` bytes from `begin` on, or a heartbeat without any.
    pub fn append(&mut self, conn: ConnId, term: Term, begin: Lsn, commit: Lsn, length: usize, out: &mut Vec<Action>) {
        assert!(!self.busy(), "messages are held back while busy");
        if term < self.state.term {
            out.push(self.append_reply(conn));
            return;
        }
        if let Err(error) = self.check_append(conn, term, begin, length) {
            out.push(Action::Close { conn, error });
            return;
        }
        if length > 0 {
            self.write(begin, length, out);
        }
        self.leader_commit = self.leader_commit.max(commit);
        self.advance_commit();
        if cfg!(feature = "planted-ack-before-flush") {
            let reply =
                AppendReply { flush_lsn: lsn(self.written), record_end: lsn(self.written), commit_lsn: lsn(self.commit_lsn()) };
            out.push(self.send(conn, Reply::Append(reply)));
        } else if begin + length as u64 <= self.flush_lsn || length == 0 {
            out.push(self.append_reply(conn));
        }
    }

    fn check_append(&self, conn: ConnId, term: Term, begin: Lsn, length: usize) -> Result<()> {
        if !self.accepted(term) || self.leader.is_none() {
            return Err(Error::NotElected { term });
        }
        if self.leader != Some(conn) {
            return Err(Error::Superseded { term });
        }
        if length > 0 && begin < self.term_start() {
            return Err(Error::BeforeTerm { begin, term, start: self.term_start() });
        }
        if length > 0 && begin > self.written {
            return Err(Error::Gap { begin, end: self.written });
        }
        Ok(())
    }

    /// WAL from a peer for the [`Recovery`] of `term`. Bytes that are no longer wanted are ignored.
    pub fn recovered(&mut self, term: Term, begin: Lsn, length: usize, out: &mut Vec<Action>) {
        let until = self.term_start();
        if !self.accepted(term) || begin > self.written || self.written >= until {
            return;
        }
        let length = length.min(until.since(begin) as usize);
        self.write(begin, length, out);
    }

    /// Writes what is new of a run that starts at or before the end of what is written. Bytes of the same
    /// term at the same LSN are the same, so an overlap is skipped.
    fn write(&mut self, begin: Lsn, length: usize, out: &mut Vec<Action>) {
        assert!(begin <= self.written);
        let skip = self.written.since(begin) as usize;
        if skip >= length {
            return;
        }
        out.push(Action::Write { lsn: self.written, range: skip..length });
        self.written = begin + length as u64;
        if !self.flushing {
            self.flushing = true;
            out.push(Action::FlushWal);
        }
    }

    /// A [`Action::FlushWal`] is done: all before `flush_lsn` is durable, and the last whole record at or
    /// before it ends at `record_end`.
    pub fn flushed(&mut self, flush_lsn: Lsn, record_end: Lsn, out: &mut Vec<Action>) {
        assert!(self.flushing, "no flush was asked for");
        assert!(self.flush_lsn <= flush_lsn && flush_lsn <= self.written, "{} {flush_lsn} {}", self.flush_lsn, self.written);
        assert!(self.record_end <= record_end && record_end <= flush_lsn, "{} {record_end} {flush_lsn}", self.record_end);
        self.flushing = false;
        self.flush_lsn = flush_lsn;
        self.record_end = record_end;
        self.advance_commit();
        if self.busy() {
            self.advance_phase(out);
            return;
        }
        if let Some(conn) = self.leader {
            out.push(self.append_reply(conn));
        }
        if self.written > self.flush_lsn {
            self.flushing = true;
            out.push(Action::FlushWal);
        }
    }

    /// The [`Action::Truncate`] is done. `record_end` as for [`Acceptor::flushed`].
    pub fn truncated(&mut self, record_end: Lsn, out: &mut Vec<Action>) {
        assert!(matches!(self.phase, Phase::ElectedTruncate(..)), "no cut was asked for");
        assert!(self.state.commit_lsn <= record_end && record_end <= self.flush_lsn);
        self.record_end = record_end;
        self.advance_phase(out);
    }

    /// The oldest [`Action::Persist`] that was not confirmed yet is durable.
    pub fn persisted(&mut self, out: &mut Vec<Action>) {
        let why = self.persists.pop_front();
        assert!(why.is_some(), "nothing was to be persisted");
        if why == Some(Persist::Phase) {
            self.advance_phase(out);
        }
    }

    /// Asks for commit_lsn to be persisted, if it moved by at least `distance` bytes since it last was:
    /// it bounds what a restart scans.
    pub fn persist_commit(&mut self, distance: u64, out: &mut Vec<Action>) {
        if !self.busy() && self.persists.is_empty() && self.state.commit_lsn.since(self.persisted_commit) >= distance.max(1) {
            self.persist(Persist::Commit, out);
        }
    }

    /// A proposer's connection is gone.
    pub fn disconnected(&mut self, conn: ConnId) {
        if self.leader == Some(conn) {
            self.leader = None;
        }
    }

    fn depose(&mut self) {
        self.leader = None;
        self.leader_commit = Lsn::INVALID;
    }

    fn advance_commit(&mut self) {
        // While an election is under way the end of the log may be cut: only what an accepted leader of
        // the current term said counts, and `depose` forgot what others said.
        let commit = self.leader_commit.min(self.record_end);
        self.state.commit_lsn = self.state.commit_lsn.max(commit);
    }

    fn persist(&mut self, why: Persist, out: &mut Vec<Action>) {
        self.persisted_commit = self.state.commit_lsn;
        self.persists.push_back(why);
        out.push(Action::Persist(self.state.clone()));
    }

    /// Goes as far as possible without waiting for storage.
    fn advance_phase(&mut self, out: &mut Vec<Action>) {
        let needs_flush = matches!(self.phase, Phase::VoteFlush(_) | Phase::ElectedFlush(..));
        if needs_flush && self.written > self.flush_lsn && !self.flushing {
            self.flushing = true;
            out.push(Action::FlushWal);
        }
        if needs_flush && self.flushing {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {}
            Phase::VoteFlush(conn) if cfg!(feature = "planted-vote-not-persisted") => {
                out.push(self.send(conn, Reply::Vote(self.vote_reply(true))));
            }
            Phase::VoteFlush(conn) => {
                self.phase = Phase::VotePersist(conn);
                self.persist(Persist::Phase, out);
            }
            Phase::VotePersist(conn) => out.push(self.send(conn, Reply::Vote(self.vote_reply(true)))),
            Phase::ElectedFlush(conn, theirs) => {
                let cut = history::common_point(&self.state.history, self.flush_lsn, &theirs);
                assert!(cut >= self.state.commit_lsn, "checked when the message came");
                let shorter = cut < self.flush_lsn;
                self.phase = Phase::ElectedTruncate(conn, theirs);
                if shorter {
                    self.flush_lsn = cut;
                    self.written = cut;
                    self.record_end = self.record_end.min(cut);
                    out.push(Action::Truncate { to: cut });
                } else {
                    self.advance_phase(out);
                }
            }
            Phase::ElectedTruncate(conn, theirs) => {
                self.state.history = theirs;
                self.phase = Phase::ElectedPersist(conn);
                self.persist(Persist::Phase, out);
            }
            Phase::ElectedPersist(conn) => {
                self.leader = Some(conn);
                out.push(self.append_reply(conn));
                out.extend(self.recovery().map(Action::Recover));
            }
        }
    }

    fn vote_reply(&self, granted: bool) -> VoteReply {
        VoteReply {
            granted,
            start_lsn: self.state.start_lsn,
            flush_lsn: self.flush_lsn,
            record_end: self.record_end,
            commit_lsn: self.state.commit_lsn,
            system_id: self.system_id,
            history: self.state.history.clone(),
        }
    }

    fn append_reply(&self, conn: ConnId) -> Action {
        let reply = AppendReply {
            flush_lsn: lsn(self.flush_lsn),
            record_end: lsn(self.record_end),
            commit_lsn: lsn(self.state.commit_lsn),
        };
        self.send(conn, Reply::Append(reply))
    }

    fn send(&self, conn: ConnId, reply: Reply) -> Action {
        Action::Send { conn, term: self.state.term, reply }
    }
}

fn lsn(lsn: Lsn) -> U64 {
    U64::new(lsn.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);

    fn acceptor(history: &[(u64, u64)], end: u64) -> Acceptor {
        let history = TermHistory(history.iter().map(|(term, start)| (Term(*term), Lsn(*start))).collect());
        let term = history::last_term(&history);
        let state = PersistentState { term, history, commit_lsn: Lsn(16), start_lsn: Lsn(16) };
        Acceptor::new(state, 7, Lsn(end), Lsn(end))
    }

    fn history(entries: &[(u64, u64)]) -> TermHistory {
        TermHistory(entries.iter().map(|(term, start)| (Term(*term), Lsn(*start))).collect())
    }

    fn granted(actions: &[Action]) -> Vec<bool> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Send { reply: Reply::Vote(vote), .. } => Some(vote.granted),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_vote_is_granted_once_and_after_it_is_durable() {
        let (mut it, mut out) = (acceptor(&[], 16), Vec::new());
        it.vote_request(A, Term(1), &mut out);
        assert!(matches!(&out[..], [Action::Persist(state)] if state.term == Term(1)) && it.busy());
        it.persisted(&mut out);
        it.vote_request(A, Term(1), &mut out);
        assert_eq!(granted(&out), [true, false]);
    }

    #[test]
    fn an_election_cuts_before_its_history_is_persisted() {
        let (mut it, mut out) = (acceptor(&[(1, 16)], 96), Vec::new());
        it.elected(A, Term(3), &history(&[(1, 16), (3, 64)]), &mut out);
        assert_eq!(out, [Action::Truncate { to: Lsn(64) }]);
        it.truncated(Lsn(64), &mut out);
        assert!(matches!(&out[1..], [Action::Persist(state)] if state.history == history(&[(1, 16), (3, 64)])));
        assert!(!it.may_serve_uncommitted(Term(3)));
        it.persisted(&mut out);
        assert!(matches!(&out[2..], [Action::Send { term: Term(3), .. }]));
        assert!(it.may_serve_uncommitted(Term(3)) && it.leader() == Some(A));
        assert_eq!(it.last_log_term(), Term(3));
    }

    #[test]
    fn appends_are_acknowledged_when_flushed_and_flushes_cover_what_came_meanwhile() {
        let (mut it, mut out) = (acceptor(&[], 16), Vec::new());
        it.elected(A, Term(1), &history(&[(1, 16)]), &mut out);
        it.persisted(&mut out);
        out.clear();
        it.append(A, Term(1), Lsn(16), Lsn(0), 8, &mut out);
        it.append(A, Term(1), Lsn(24), Lsn(0), 8, &mut out);
        it.append(A, Term(1), Lsn(20), Lsn(32), 20, &mut out);
        let write = |lsn, range| Action::Write { lsn: Lsn(lsn), range };
        assert_eq!(out, [write(16, 0..8), Action::FlushWal, write(24, 0..8), write(32, 12..20)]);
        out.clear();
        it.flushed(Lsn(24), Lsn(24), &mut out);
        assert!(matches!(&out[..], [Action::Send { .. }, Action::FlushWal]) && it.commit_lsn() == Lsn(24));
        it.flushed(Lsn(40), Lsn(36), &mut out);
        assert_eq!((it.flush_lsn(), it.record_end(), it.commit_lsn()), (Lsn(40), Lsn(36), Lsn(32)));
    }

    #[test]
    fn what_breaks_the_protocol_closes_the_connection_and_changes_nothing() {
        let (mut it, mut out) = (acceptor(&[(1, 16)], 96), Vec::new());
        it.append(A, Term(1), Lsn(96), Lsn(0), 8, &mut out);
        it.elected(A, Term(1), &history(&[(1, 32)]), &mut out);
        it.elected(A, Term(2), &history(&[(2, 8)]), &mut out);
        it.elected(A, Term(2), &history(&[(2, 64), (3, 70)]), &mut out);
        it.elected(A, Term(1), &history(&[(1, 16)]), &mut out);
        it.append(A, Term(1), Lsn(104), Lsn(0), 8, &mut out);
        it.append(A, Term(1), Lsn(8), Lsn(0), 88, &mut out);
        it.append(ConnId(2), Term(1), Lsn(96), Lsn(0), 8, &mut out);
        let errors: Vec<_> = out
            .iter()
            .filter_map(|action| match action {
                Action::Close { error, .. } => Some(error.clone()),
                _ => None,
            })
            .collect();
        let term = Term(1);
        assert_eq!(
            errors,
            [
                Error::NotElected { term },
                Error::TwoLeaders { term },
                Error::CutBelowCommit { term: Term(2), cut: Lsn(8), commit_lsn: Lsn(16) },
                Error::BadHistory { term: Term(2) },
                Error::Gap { begin: Lsn(104), end: Lsn(96) },
                Error::BeforeTerm { begin: Lsn(8), term, start: Lsn(16) },
                Error::Superseded { term },
            ]
        );
        assert_eq!((it.term(), it.flush_lsn()), (term, Lsn(96)));
    }

    #[test]
    fn a_lagging_acceptor_recovers_up_to_the_term_from_a_peer() {
        let (mut it, mut out) = (acceptor(&[(1, 16)], 40), Vec::new());
        it.elected(A, Term(2), &history(&[(1, 16), (2, 64)]), &mut out);
        it.persisted(&mut out);
        let recovery = Recovery { term: Term(2), from: Lsn(40), until: Lsn(64) };
        assert_eq!(out.last(), Some(&Action::Recover(recovery)));
        assert_eq!((it.recovery(), it.last_log_term()), (Some(recovery), Term(1)));
        out.clear();
        it.recovered(Term(1), Lsn(40), 8, &mut out);
        it.recovered(Term(2), Lsn(48), 8, &mut out);
        assert_eq!(out, []);
        it.recovered(Term(2), Lsn(32), 100, &mut out);
        assert_eq!(out, [Action::Write { lsn: Lsn(40), range: 8..32 }, Action::FlushWal]);
        it.flushed(Lsn(64), Lsn(64), &mut out);
        assert_eq!((it.recovery(), it.last_log_term()), (None, Term(2)));
    }
}
