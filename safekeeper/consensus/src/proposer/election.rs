//! How a launcher wins a term.

use super::{Action, Message, Proposer, Stage, State};
use crate::error::{Error, Result};
use crate::history;
use ironpage_layout::wire::append::VoteReply;
use ironpage_layout::{Lsn, Term};

impl Proposer {
    /// Once a quorum has greeted, stands for the term above all of theirs.
    pub(super) fn gather(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let terms: Vec<Term> = self.members.iter().filter_map(|member| Some(member.greeting.as_ref()?.0)).collect();
        if terms.len() < self.config.quorum() {
            return;
        }
        let highest = terms.into_iter().max().unwrap_or_default();
        self.state = State::Voting { term: Term(highest.0.saturating_add(1)) };
        for index in 0..self.members.len() {
            self.ask(index, now_ms, out);
        }
    }

    pub(super) fn ask(&mut self, index: usize, now_ms: u64, out: &mut Vec<Action>) {
        let term = self.term();
        if let Some(member) = self.members.get_mut(index).filter(|member| member.stage == Stage::Greeted) {
            member.stage = Stage::Asked;
            member.sent_now(now_ms);
            out.push(Action::Send { member: index, term, message: Message::VoteRequest });
        }
    }

    pub(super) fn count_vote(
        &mut self,
        ours: Term,
        index: usize,
        term: Term,
        vote: VoteReply,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Result<()> {
        if !vote.granted && term >= ours {
            self.end(Action::Lost { seen: term }, out);
            return Ok(());
        }
        let Some(member) = self.members.get_mut(index) else {
            return Ok(());
        };
        if !vote.granted || term != ours {
            return Ok(());
        }
        let (flush_lsn, record_end) = (vote.flush_lsn, vote.record_end);
        if record_end > flush_lsn {
            return Err(Error::BadPosition { member: member.node.unwrap_or_default(), flush_lsn, record_end });
        }
        member.unanswered_since = None;
        member.vote = Some(vote);
        if self.members.iter().filter(|member| member.vote.is_some()).count() < self.config.quorum() {
            return Ok(());
        }
        let (start, history) = self.choose_donor(ours)?;
        self.wal_end = start;
        self.state = State::Leading { term: ours, start, history };
        out.push(Action::Won { term: ours, start });
        for index in 0..self.members.len() {
            if self.stage(index) != Stage::Absent {
                self.tell(index, now_ms, out);
            }
        }
        Ok(())
    }

    /// The log that was written in the latest term, and of those the longest, holds all that was ever
    /// committed; its incomplete last record never was.
    fn choose_donor(&self, term: Term) -> Result<(Lsn, ironpage_layout::wire::append::TermHistory)> {
        let voters = || self.members.iter().filter_map(|member| Some((member.node?, member.vote.as_ref()?)));
        let donor = voters().max_by_key(|(_, vote)| (vote.history.term_at(vote.flush_lsn), vote.flush_lsn));
        let Some((_, donor)) = donor else {
            return Err(Error::BadHistory { term });
        };
        let start = donor.record_end;
        if let Some((member, vote)) = voters().find(|(_, vote)| vote.commit_lsn > start) {
            return Err(Error::CommittedPastElection { member, commit_lsn: vote.commit_lsn, start });
        }
        let history = history::extended(&donor.history, term, start);
        history::check(&history, term)?;
        Ok((start, history))
    }
}
