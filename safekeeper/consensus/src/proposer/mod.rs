//! The proposer: wins a term, or continues one, and brings WAL to a quorum.
//!
//! Two users. The **launcher** wins a term: it gathers greetings, asks for votes in a term above all it
//! saw, takes the best log among the votes as the donor and the end X of its last whole record as the
//! start of the term, tells everyone, and waits until a quorum has everything up to X; it has no WAL of
//! its own, safekeepers that lag recover from each other. The **worker inside Postgres** then continues
//! the same term and sends WAL from X on.
//!
//! The driver feeds replies and the clock, and carries out the [`Action`]s each call appends to `out`.
//! A connection begins with [`Proposer::greeting`] and ends with [`Proposer::disconnected`], which also
//! follows every [`Action::Disconnect`].

mod election;
mod member;

use crate::error::{Error, Result};
use crate::history;
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use ironpage_layout::wire::append::{AppendReply, TermHistory, VoteReply};
use ironpage_layout::{Lsn, NodeId, Term};
use member::Member;
pub use member::Stage;

/// Limits and times of a proposer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of safekeepers; they are named by their index below it.
    pub members: usize,
    /// System identifier all of them must have.
    pub system_id: u64,
    /// Most bytes of WAL in one Append.
    pub chunk_bytes: u64,
    /// Most bytes of WAL sent to a safekeeper and not acknowledged by it.
    pub window_bytes: u64,
    /// A safekeeper hears from us at least this often.
    pub heartbeat_ms: u64,
    /// commit_lsn is told with the next WAL, or alone after this time.
    pub commit_delay_ms: u64,
    /// A safekeeper that leaves a message unanswered for so long is connected to anew.
    pub reply_timeout_ms: u64,
}

impl Config {
    pub fn new(members: usize, system_id: u64) -> Config {
        Config {
            members,
            system_id,
            chunk_bytes: 256 << 10,
            window_bytes: 4 << 20,
            heartbeat_ms: 250,
            commit_delay_ms: 5,
            reply_timeout_ms: 10_000,
        }
    }

    /// Fewest safekeepers any two groups of which share one.
    pub fn quorum(&self) -> usize {
        self.members / 2 + 1
    }
}

/// What to send to a safekeeper; the frame's term stands in [`Action::Send`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    VoteRequest,
    Elected(TermHistory),
    /// `length` bytes of local WAL from `begin` on, within one segment; none is a heartbeat.
    Append {
        begin: Lsn,
        length: usize,
        commit: Lsn,
    },
}

/// Work for the driver, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Send {
        member: usize,
        term: Term,
        message: Message,
    },
    /// Close the connection to the safekeeper and connect anew; call [`Proposer::disconnected`].
    Disconnect {
        member: usize,
        why: &'static str,
    },
    /// A quorum voted for us: the term starts at `start`, and nothing before it will ever change.
    Won {
        term: Term,
        start: Lsn,
    },
    /// A quorum has all before this record end. Told once for each step.
    Committed(Lsn),
    /// The election is lost to a term at or above ours: start anew with a new proposer.
    Lost {
        seen: Term,
    },
    /// A higher term is known: we are no longer the leader, and must not serve anyone any more.
    Fenced {
        seen: Term,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Gathering,
    Voting { term: Term },
    Leading { term: Term, start: Lsn, history: TermHistory },
    Ended,
}

#[derive(Clone, Debug)]
pub struct Proposer {
    config: Config,
    state: State,
    members: Vec<Member>,
    /// End of the local WAL that may be sent.
    wal_end: Lsn,
    commit_lsn: Lsn,
}

impl Proposer {
    /// A candidate: it wins a term, and leads it without any WAL of its own.
    pub fn launch(config: Config) -> Proposer {
        let members = (0..config.members).map(|_| Member::new()).collect();
        Proposer { config, state: State::Gathering, members, wal_end: Lsn::INVALID, commit_lsn: Lsn::INVALID }
    }

    /// Continues a term that was won, and that nobody else continues. `history` ends with it.
    pub fn resume(config: Config, history: TermHistory) -> Result<Proposer> {
        let (term, start) = (history::last_term(&history), history::last_start(&history));
        history::check(&history, term)?;
        let mut it = Proposer::launch(config);
        it.state = State::Leading { term, start, history };
        it.wal_end = start;
        Ok(it)
    }

    /// The term led or stood for.
    pub fn term(&self) -> Term {
        match &self.state {
            State::Voting { term } | State::Leading { term, .. } => *term,
            State::Gathering | State::Ended => Term(0),
        }
    }

    /// The history of the term that is led, and where the term starts.
    pub fn leading(&self) -> Option<(&TermHistory, Lsn)> {
        match &self.state {
            State::Leading { history, start, .. } => Some((history, *start)),
            _ => None,
        }
    }

    /// A record end all before which a quorum has in our term; 0 until everything before the term is.
    pub fn commit_lsn(&self) -> Lsn {
        self.commit_lsn
    }

    /// What a quorum knows to be committed: the launcher is done when this has reached the term's start.
    pub fn commit_lsn_known(&self) -> Lsn {
        self.quorum_th(|member| Some(member.commit_lsn)).unwrap_or_default()
    }

    /// Every safekeeper that is connected knows `lsn` to be committed. Readers may follow any of them, so a
    /// launcher gives the others a moment after a quorum has it.
    pub fn all_connected_know(&self, lsn: Lsn) -> bool {
        self.members.iter().all(|member| member.stage == Stage::Absent || member.commit_lsn >= lsn)
    }

    /// All safekeepers have the WAL before this: nobody will ask for it again. At least the term's start,
    /// for what lies before it comes from other safekeepers.
    pub fn everywhere(&self) -> Lsn {
        let start = self.leading().map_or(Lsn::INVALID, |leading| leading.1);
        let everywhere = self.members.iter().map(|member| member.acked).min().unwrap_or_default();
        everywhere.max(start)
    }

    /// When a quorum was last heard from in our term, 0 if never.
    pub fn quorum_heard_at(&self) -> u64 {
        self.quorum_th(|member| member.replied_at).unwrap_or(0)
    }

    pub fn stage(&self, member: usize) -> Stage {
        self.members.get(member).map_or(Stage::Absent, |member| member.stage)
    }

    /// Flushed at the safekeeper, as it last said.
    pub fn flush_lsn(&self, member: usize) -> Lsn {
        self.members.get(member).map_or(Lsn::INVALID, |member| member.flush_lsn)
    }

    /// A safekeeper answered our hello on a new connection with its state, in `term`.
    pub fn greeting(
        &mut self,
        index: usize,
        node: NodeId,
        term: Term,
        greeting: VoteReply,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Result<()> {
        if self.state == State::Ended {
            return Ok(());
        }
        let twin = self.members.iter().enumerate().any(|(other, it)| other != index && it.node == Some(node));
        let member = self.members.get_mut(index).ok_or(Error::UnknownMember { member: node })?;
        if greeting.system_id != self.config.system_id {
            return Err(Error::OtherSystem { member: node, ours: self.config.system_id, theirs: greeting.system_id });
        }
        if twin || member.node.is_some_and(|known| known != node) {
            return Err(Error::TwinMember { member: node });
        }
        member.node = Some(node);
        member.disconnected();
        member.stage = Stage::Greeted;
        member.greeting = Some((term, greeting));
        match self.state {
            State::Gathering => self.gather(now_ms, out),
            State::Voting { term: ours } if term >= ours => self.end(Action::Lost { seen: term }, out),
            State::Voting { .. } => self.ask(index, now_ms, out),
            State::Leading { term: ours, .. } if term > ours => self.end(Action::Fenced { seen: term }, out),
            State::Leading { .. } => self.tell(index, now_ms, out),
            State::Ended => {}
        }
        Ok(())
    }

    /// A safekeeper answered a vote request; its term is `term` now.
    pub fn vote_reply(&mut self, index: usize, term: Term, reply: VoteReply, now_ms: u64, out: &mut Vec<Action>) -> Result<()> {
        match self.state {
            State::Voting { term: ours } => self.count_vote(ours, index, term, reply, now_ms, out),
            State::Leading { term: ours, .. } if term > ours => {
                self.end(Action::Fenced { seen: term }, out);
                Ok(())
            }
            // Votes that come after the quorum was reached.
            _ => Ok(()),
        }
    }

    /// A safekeeper says where it stands, in `term`.
    pub fn append_reply(
        &mut self,
        index: usize,
        term: Term,
        reply: &AppendReply,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Result<()> {
        let (ours, start) = match self.state {
            State::Leading { term, start, .. } => (term, start),
            _ => return Ok(()),
        };
        if term > ours {
            self.end(Action::Fenced { seen: term }, out);
            return Ok(());
        }
        let wal_end = self.wal_end;
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        if term < ours || !matches!(member.stage, Stage::Told | Stage::Accepted) {
            return Ok(());
        }
        let node = member.node.unwrap_or_default();
        let (flush_lsn, record_end) = (Lsn(reply.flush_lsn.get()), Lsn(reply.record_end.get()));
        if record_end > flush_lsn {
            return Err(Error::BadPosition { member: node, flush_lsn, record_end });
        }
        if flush_lsn > wal_end {
            return Err(Error::AheadOfLeader { member: node, term: ours, ours: wal_end, theirs: flush_lsn });
        }
        member.replied_now(now_ms);
        if member.stage == Stage::Told {
            member.stage = Stage::Accepted;
            member.sent = flush_lsn;
        }
        member.flush_lsn = flush_lsn;
        member.sent = member.sent.max(flush_lsn);
        member.commit_lsn = member.commit_lsn.max(Lsn(reply.commit_lsn.get()));
        if record_end >= start {
            member.acked = member.acked.max(record_end);
        }
        self.advance_commit(start, out);
        self.pump(now_ms, out);
        Ok(())
    }

    /// The connection to a safekeeper is gone.
    pub fn disconnected(&mut self, index: usize) {
        if let Some(member) = self.members.get_mut(index) {
            member.disconnected();
        }
    }

    /// Local WAL is flushed, and may be sent, up to `end`.
    pub fn wal_available(&mut self, end: Lsn, now_ms: u64, out: &mut Vec<Action>) {
        if end > self.wal_end {
            self.wal_end = end;
            self.pump(now_ms, out);
        }
    }

    /// Time passed. To be called at [`Proposer::deadline_ms`] at the latest.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        for (index, member) in self.members.iter_mut().enumerate() {
            let waits = member.unanswered_since.map_or(0, |since| now_ms.saturating_sub(since));
            if waits > self.config.reply_timeout_ms {
                member.disconnected();
                out.push(Action::Disconnect { member: index, why: "it leaves our messages unanswered" });
            }
        }
        self.pump(now_ms, out);
    }

    /// When [`Proposer::tick`] has something to do next, if nothing else happens.
    pub fn deadline_ms(&self) -> u64 {
        let deadline = |member: &Member| {
            let pending = member.sent_commit < self.commit_lsn;
            let wait = if pending { self.config.commit_delay_ms } else { self.config.heartbeat_ms };
            member.sent_at + wait
        };
        let accepted = self.members.iter().filter(|member| member.stage == Stage::Accepted).map(deadline);
        let asked = self.members.iter().filter_map(|member| Some(member.unanswered_since? + self.config.reply_timeout_ms + 1));
        accepted.chain(asked).min().unwrap_or(u64::MAX)
    }

    /// Sends WAL and heartbeats to whoever is due.
    fn pump(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let State::Leading { term, start, .. } = self.state else {
            return;
        };
        let (config, wal_end, commit) = (&self.config, self.wal_end, self.commit_lsn);
        for (index, member) in self.members.iter_mut().enumerate() {
            if member.stage != Stage::Accepted {
                continue;
            }
            let mut append = |member: &mut Member, length: u64| {
                let message = Message::Append { begin: member.sent, length: length as usize, commit };
                out.push(Action::Send { member: index, term, message });
                member.sent = member.sent + length;
                member.sent_commit = commit;
                member.sent_now(now_ms);
            };
            // What it lacks before the term it recovers from the others; until then it hears heartbeats.
            let has_start = member.flush_lsn >= start;
            while has_start && member.sent < wal_end && member.sent.since(member.flush_lsn) < config.window_bytes {
                let segment_left = WAL_SEGMENT_SIZE - member.sent.segment_offset();
                let length = wal_end.since(member.sent).min(config.chunk_bytes).min(segment_left);
                append(member, length);
            }
            let silent = now_ms.saturating_sub(member.sent_at);
            let commit_is_news = member.sent_commit < commit && silent >= config.commit_delay_ms;
            if commit_is_news || silent >= config.heartbeat_ms {
                append(member, 0);
            }
        }
    }

    fn advance_commit(&mut self, start: Lsn, out: &mut Vec<Action>) {
        let acked = self.quorum_th(|member| member.acked.is_valid().then_some(member.acked));
        let Some(reached) = acked.filter(|acked| *acked >= start && *acked > self.commit_lsn) else {
            return;
        };
        assert!(reached <= self.wal_end, "{reached} committed, but our WAL ends at {}", self.wal_end);
        self.commit_lsn = reached;
        out.push(Action::Committed(reached));
    }

    /// The value that a quorum has reached.
    fn quorum_th<V: Ord>(&self, value: impl Fn(&Member) -> Option<V>) -> Option<V> {
        let mut values: Vec<V> = self.members.iter().filter_map(value).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.into_iter().nth(self.config.quorum() - 1)
    }

    /// Sends our history: first thing a safekeeper hears from a leader.
    fn tell(&mut self, index: usize, now_ms: u64, out: &mut Vec<Action>) {
        let State::Leading { term, history, .. } = &self.state else {
            return;
        };
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        member.stage = Stage::Told;
        member.sent_now(now_ms);
        out.push(Action::Send { member: index, term: *term, message: Message::Elected(history.clone()) });
    }

    fn end(&mut self, why: Action, out: &mut Vec<Action>) {
        self.state = State::Ended;
        out.push(why);
    }
}

#[cfg(test)]
mod tests;
