//! Why a record, an import or stored state can't be taken.

use ironpage_layout::postgres::control::ControlError;
use ironpage_layout::postgres::rmgr::rmgr_name;
use ironpage_layout::postgres::wal::DecodeRecordError;
use ironpage_layout::{Fork, Key, Lsn, RelTag};

/// Stops the timeline: nothing after it may be ingested, and the [`super::Head`] is to be thrown away.
/// `lsn` is where the record starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    #[error("record at {lsn} of resource manager {rmgr} ({name}) with info {info:#04x} is unknown to this version", name = rmgr_name(*rmgr))]
    UnknownRecord { lsn: Lsn, rmgr: u8, info: u8 },
    #[error("record at {lsn} can't be read: {error}")]
    Decode { lsn: Lsn, error: DecodeRecordError },
    #[error("record at {lsn} of resource manager {rmgr} ({name}) with info {info:#04x} makes no sense: {why}", name = rmgr_name(*rmgr))]
    Malformed { lsn: Lsn, rmgr: u8, info: u8, why: &'static str },
    #[error(
        "record at {lsn} changes block {block} of {rel} fork {fork:?}, which {}",
        blocks.map_or("does not exist".to_string(), |blocks| format!("has {blocks} blocks"))
    )]
    BlockBeyondRelation { lsn: Lsn, rel: RelTag, fork: Fork, block: u32, blocks: Option<u32> },
    #[error("record at {lsn} follows the record at {prev} by its own account, but the last one ingested began at {last}")]
    OutOfOrder { lsn: Lsn, prev: Lsn, last: Lsn },
    #[error("record at {lsn} belongs to Postgres timeline {timeline}; only 1 is supported")]
    Timeline { lsn: Lsn, timeline: u32 },
    #[error("the timeline has no pg_control: its import is incomplete, or its store is damaged")]
    NoControl,
    #[error("the timeline has no history at {lsn}: its import is incomplete, or an earlier version of Ironpage stored it")]
    NoHistory { lsn: Lsn },
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error("imported {what} is refused: {why}")]
    Import { what: String, why: &'static str },
    #[error("stored {key} makes no sense: {why}")]
    Stored { key: Key, why: &'static str },
}
