//! Consensus: a proposer and a safekeeper. The term of each frame is in its header.
//!
//! ```text
//! proposer                                  safekeeper
//! VoteRequest (term T)                  ->  flush, persist T
//!                                       <-  VoteReply (term, granted, log end, history)
//! Elected (term T, history)             ->  cut at the common point, persist the history
//!                                       <-  AppendReply (flush, record end)
//! Append (begin, commit) wal            ->  write, flush
//!                                       <-  AppendReply, one for any number of appends
//! ```
//!
//! `Greeting` is what a safekeeper sends unasked right after `HelloReply` on a `Proposer` connection:
//! a `VoteReply` payload with `granted` 0, so that a candidate knows the term to beat.

use super::{WireError, payload};
use crate::id::Term;
use crate::lsn::Lsn;
use zerocopy::little_endian::{U32, U64};

/// Most entries a term history may have; one election adds one.
pub const MAX_HISTORY: usize = 65_536;

/// Which term wrote from which LSN on; grows in both.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TermHistory(pub Vec<(Term, Lsn)>);

impl TermHistory {
    fn encode(&self, out: &mut Vec<u8>) {
        for (term, start) in &self.0 {
            out.extend_from_slice(&term.0.to_le_bytes());
            out.extend_from_slice(&start.0.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8], entries: usize, what: &'static str) -> Result<TermHistory, WireError> {
        let bad = |why| WireError::BadPayload { what, why };
        if entries > MAX_HISTORY || bytes.len() != entries * 16 {
            return Err(bad("term history does not fit the frame"));
        }
        let word = |eight: &[u8]| eight.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let history: Vec<_> = bytes.chunks_exact(16).map(|entry| (Term(word(&entry[..8])), Lsn(word(&entry[8..])))).collect();
        if history.windows(2).any(|pair| pair[0].0 >= pair[1].0 || pair[0].1 > pair[1].1) {
            return Err(bad("term history does not grow"));
        }
        Ok(TermHistory(history))
    }

    /// Term that wrote the WAL just before `end`, and at `end` if an entry starts there: the "last log term".
    pub fn term_at(&self, end: Lsn) -> Term {
        self.0.iter().rev().find(|entry| entry.1 <= end).map_or(Term(0), |entry| entry.0)
    }
}

payload! {
    /// Asks for leadership in the header's term. Nothing follows.
    VoteRequest, 8 { reserved: U64 }
}

payload! {
    RawVoteReply, 48 {
        granted: U32,
        history_entries: U32,
        start_lsn: U64,
        flush_lsn: U64,
        record_end: U64,
        commit_lsn: U64,
        system_id: U64,
    }
}

/// A safekeeper's state, and whether it votes for the asker. Payload of `VoteReply` and `Greeting`;
/// the header's term is the safekeeper's, after the vote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VoteReply {
    pub granted: bool,
    /// First LSN this safekeeper keeps.
    pub start_lsn: Lsn,
    /// All before it is on disk here.
    pub flush_lsn: Lsn,
    /// End of the last whole record at or before `flush_lsn`.
    pub record_end: Lsn,
    pub commit_lsn: Lsn,
    pub system_id: u64,
    pub history: TermHistory,
}

impl VoteReply {
    pub fn encode(&self, out: &mut Vec<u8>) {
        RawVoteReply {
            granted: U32::new(u32::from(self.granted)),
            history_entries: U32::new(self.history.0.len() as u32),
            start_lsn: U64::new(self.start_lsn.0),
            flush_lsn: U64::new(self.flush_lsn.0),
            record_end: U64::new(self.record_end.0),
            commit_lsn: U64::new(self.commit_lsn.0),
            system_id: U64::new(self.system_id),
        }
        .encode(out);
        self.history.encode(out);
    }

    pub fn decode(payload: &[u8]) -> Result<VoteReply, WireError> {
        let (raw, rest) = RawVoteReply::decode_prefix(payload)?;
        Ok(VoteReply {
            granted: raw.granted.get() == 1,
            start_lsn: Lsn(raw.start_lsn.get()),
            flush_lsn: Lsn(raw.flush_lsn.get()),
            record_end: Lsn(raw.record_end.get()),
            commit_lsn: Lsn(raw.commit_lsn.get()),
            system_id: raw.system_id.get(),
            history: TermHistory::decode(rest, raw.history_entries.get() as usize, "VoteReply")?,
        })
    }
}

payload! {
    RawElected, 8 { history_entries: U32, reserved: U32 }
}

/// The header's term won: its whole history, the last entry its own. The safekeeper cuts what differs
/// and answers with an `AppendReply` that says where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elected {
    pub history: TermHistory,
}

impl Elected {
    pub fn encode(&self, out: &mut Vec<u8>) {
        RawElected { history_entries: U32::new(self.history.0.len() as u32), reserved: U32::ZERO }.encode(out);
        self.history.encode(out);
    }

    pub fn decode(payload: &[u8]) -> Result<Elected, WireError> {
        let (raw, rest) = RawElected::decode_prefix(payload)?;
        Ok(Elected { history: TermHistory::decode(rest, raw.history_entries.get() as usize, "Elected")? })
    }
}

payload! {
    /// WAL from `begin_lsn` on follows, `MAX_WAL_CHUNK` bytes at most; none is a heartbeat.
    Append, 16 {
        begin_lsn: U64,
        /// What the leader knows to be committed; may lie behind the end of this chunk, or before it.
        commit_lsn: U64,
    }
}

payload! {
    /// Where the safekeeper stands. The header's term is its own: higher than the proposer's means fenced.
    AppendReply, 24 {
        flush_lsn: U64,
        /// End of the last whole record at or before `flush_lsn`.
        record_end: U64,
        commit_lsn: U64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_round_trip_and_histories_must_grow() {
        let mut reply = VoteReply {
            granted: true,
            start_lsn: Lsn(1),
            flush_lsn: Lsn(90),
            record_end: Lsn(88),
            commit_lsn: Lsn(80),
            system_id: 5,
            history: TermHistory(vec![(Term(1), Lsn(1)), (Term(4), Lsn(50))]),
        };
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        assert_eq!(VoteReply::decode(&bytes), Ok(reply.clone()));
        assert!(VoteReply::decode(&bytes[..bytes.len() - 1]).is_err());
        assert_eq!((reply.history.term_at(Lsn(49)), reply.history.term_at(Lsn(50))), (Term(1), Term(4)));
        reply.history.0.reverse();
        bytes.clear();
        reply.encode(&mut bytes);
        assert!(VoteReply::decode(&bytes).is_err());
    }
}
