//! What can go wrong between a proposer and an acceptor.

use ironpage_layout::{Lsn, NodeId, Term};

/// A message that breaks the protocol, or an invariant that no longer holds. Nothing was changed by
/// the input that caused it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("history of term {term} does not end with that term, or does not grow")]
    BadHistory { term: Term },
    #[error("two histories for term {term}: two leaders were elected in one term, or a safekeeper forgot its vote")]
    TwoLeaders { term: Term },
    #[error("leader of term {term} would cut the WAL at {cut}, below what is committed ({commit_lsn}): refused")]
    CutBelowCommit { term: Term, cut: Lsn, commit_lsn: Lsn },
    #[error("WAL of term {term} came before its history: send Elected first")]
    NotElected { term: Term },
    #[error("another connection took over leadership of term {term}")]
    Superseded { term: Term },
    #[error("WAL from {begin} on leaves a gap after {end}")]
    Gap { begin: Lsn, end: Lsn },
    #[error("WAL from {begin} on lies before the start of term {term} ({start}): its leader does not have it")]
    BeforeTerm { begin: Lsn, term: Term, start: Lsn },
    #[error("safekeeper {member} holds system identifier {theirs}, expected {ours}: it belongs to another cluster")]
    OtherSystem { member: NodeId, ours: u64, theirs: u64 },
    #[error("safekeeper {member} has WAL of term {term} up to {theirs}, its leader only up to {ours}: histories mixed")]
    AheadOfLeader { member: NodeId, term: Term, ours: Lsn, theirs: Lsn },
    #[error("safekeeper {member} has {commit_lsn} committed, but the elected history ends at {start}")]
    CommittedPastElection { member: NodeId, commit_lsn: Lsn, start: Lsn },
    #[error("safekeeper {member} claims whole records up to {record_end} but has flushed only up to {flush_lsn}")]
    BadPosition { member: NodeId, flush_lsn: Lsn, record_end: Lsn },
    #[error("safekeeper {member} answers at two addresses, or another one answers at its address: each counts once")]
    TwinMember { member: NodeId },
    #[error("no safekeeper with number {member} belongs to this timeline")]
    UnknownMember { member: NodeId },
}

pub type Result<T> = std::result::Result<T, Error>;
