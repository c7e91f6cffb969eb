//! What can go wrong with a timeline.

use super::HeadError;
use crate::ingest::IngestError;
use crate::reconstruct::ReconstructError;
use crate::store::StoreError;
use ironpage_layout::postgres::wal::WalError;
use ironpage_layout::wire::ErrorCode;
use ironpage_layout::{Lsn, TenantId, TimelineId};

/// Why ingest cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IngestStop {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("zeros at {at}, where committed WAL should be")]
    EndOfWal { at: Lsn },
    /// The record cannot be taken by this version.
    #[error(transparent)]
    Record(#[from] IngestError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The head the records are to be added to cannot be had.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A page that a record copies could not be had.
    #[error("copying a database: {0}")]
    Copy(#[from] ReconstructError),
}

impl IngestStop {
    /// Whether the bytes are not the WAL they should be, so that another safekeeper may have better ones.
    pub fn is_of_the_stream(&self) -> bool {
        matches!(self, IngestStop::Wal(_) | IngestStop::EndOfWal { .. })
    }

    pub fn code(&self) -> ErrorCode {
        match self {
            IngestStop::Record(_) => ErrorCode::UnknownRecord,
            IngestStop::Wal(_) | IngestStop::EndOfWal { .. } | IngestStop::Copy(_) => ErrorCode::Corrupt,
            IngestStop::Store(_) | IngestStop::Head(HeadError::Store(_)) => ErrorCode::Storage,
            IngestStop::Head(HeadError::Ancestor(_)) => ErrorCode::Unavailable,
            IngestStop::Head(_) => ErrorCode::Corrupt,
        }
    }
}

/// Why a timeline takes no more WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stopped {
    pub code: ErrorCode,
    pub why: String,
}

/// Why an LSN did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    #[error("{}", .0.why)]
    Stopped(Stopped),
    #[error("timeline {timeline} was deleted")]
    Deleted { timeline: TimelineId },
    #[error("waited {waited_ms} ms for {wanted}; ingest is at {last}")]
    Late { wanted: Lsn, last: Lsn, waited_ms: u64 },
}

/// Why a timeline cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimelineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Import(#[from] IngestError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A branch could not be brought to its start.
    #[error(transparent)]
    Ingest(#[from] IngestStop),
    #[error(transparent)]
    Io(#[from] ironpage_io::IoError),
    #[error("timeline {timeline} of tenant {tenant} is there already, with another {what}")]
    Exists { tenant: TenantId, timeline: TimelineId, what: &'static str },
    #[error("timeline {timeline} is being made by another connection")]
    Busy { timeline: TimelineId },
    #[error("PG_VERSION_NUM {found} is not supported: Ironpage stores clusters of PostgreSQL 15")]
    PostgresVersion { found: u32 },
    #[error("start_lsn {start_lsn} and prev_record_lsn {prev_record_lsn} are not those of a record")]
    StartLsn { start_lsn: Lsn, prev_record_lsn: Lsn },
    #[error("{}: this timeline is not in the metadata: either {} is of another time or cluster, then restore it, or this directory does not belong here, then move it away", path.display(), ironpage_layout::metadata::JOURNAL_FILE)]
    Unknown { path: std::path::PathBuf },
    #[error("no timeline {timeline} of tenant {tenant} is open here")]
    NotFound { tenant: TenantId, timeline: TimelineId },
    /// The history that exists is named.
    #[error("{wanted} is outside the history of timeline {timeline}: {range}")]
    OutOfRange { timeline: TimelineId, wanted: String, range: String },
    #[error("timeline {timeline} has children, which read it: {}", list(children))]
    HasChildren { timeline: TimelineId, children: Vec<TimelineId> },
    #[error("timeline {timeline} at {lsn}: {why}: its store is damaged")]
    Damaged { timeline: TimelineId, lsn: Lsn, why: &'static str },
    /// Nothing can be promised for now.
    #[error("timeline {timeline}: {why}; try again")]
    Unavailable { timeline: TimelineId, why: String },
    #[error("the import says it sent {sent} items, {received} are here")]
    Incomplete { sent: u64, received: u64 },
    #[error("item {item} of the import: {why}")]
    Item { item: u64, why: String },
}

fn list(timelines: &[TimelineId]) -> String {
    timelines.iter().map(TimelineId::to_string).collect::<Vec<_>>().join(", ")
}
