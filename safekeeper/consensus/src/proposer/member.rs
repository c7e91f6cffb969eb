//! What a proposer knows of one safekeeper.

use ironpage_layout::wire::append::VoteReply;
use ironpage_layout::{Lsn, NodeId, Term};

/// How far the conversation on the present connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Absent,
    /// Greeted us; nothing was asked yet.
    Greeted,
    /// Was asked for its vote.
    Asked,
    /// Was sent our history.
    Told,
    /// Holds our history: what it acknowledges counts.
    Accepted,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Who is behind the address, once it told; the same number behind two addresses is refused.
    pub node: Option<NodeId>,
    pub stage: Stage,
    pub greeting: Option<(Term, VoteReply)>,
    pub vote: Option<VoteReply>,
    /// End of the WAL it has on disk, as of the newest reply on this connection.
    pub flush_lsn: Lsn,
    /// Highest record end it ever acknowledged in our term: durable there, whatever the connection does.
    pub acked: Lsn,
    pub commit_lsn: Lsn,
    /// End of what was sent on this connection.
    pub sent: Lsn,
    pub sent_commit: Lsn,
    pub sent_at: u64,
    pub replied_at: Option<u64>,
    /// When the oldest message was sent that no reply came after.
    pub unanswered_since: Option<u64>,
}

impl Member {
    pub fn new() -> Member {
        Member {
            node: None,
            stage: Stage::Absent,
            greeting: None,
            vote: None,
            flush_lsn: Lsn::INVALID,
            acked: Lsn::INVALID,
            commit_lsn: Lsn::INVALID,
            sent: Lsn::INVALID,
            sent_commit: Lsn::INVALID,
            sent_at: 0,
            replied_at: None,
            unanswered_since: None,
        }
    }

    /// Forgets the connection, keeps what is durable at the other side.
    pub fn disconnected(&mut self) {
        self.stage = Stage::Absent;
        self.greeting = None;
        self.sent_commit = Lsn::INVALID;
        self.unanswered_since = None;
    }

    pub fn sent_now(&mut self, now_ms: u64) {
        self.sent_at = now_ms;
        self.unanswered_since.get_or_insert(now_ms);
    }

    pub fn replied_now(&mut self, now_ms: u64) {
        self.replied_at = Some(now_ms);
        self.unanswered_since = None;
    }
}
