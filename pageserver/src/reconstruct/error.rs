//! Why a page cannot be had.

use crate::ingest::ApplyError;
use crate::store::StoreError;
use crate::worker::WorkerError;
use ironpage_layout::value::DecodeValueError;
use ironpage_layout::{Key, Lsn, TimelineId};

/// Error of reading one page. It concerns that page alone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReconstructError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("timeline {timeline} was deleted")]
    Deleted { timeline: TimelineId },
    #[error("{key} at {lsn}: {error}")]
    Value { key: Key, lsn: Lsn, error: DecodeValueError },
    #[error("{key} at {lsn} makes no sense: {why}")]
    Corrupt { key: Key, lsn: Lsn, why: &'static str },
}

impl ReconstructError {
    pub(crate) fn value(key: Key, lsn: Lsn, error: DecodeValueError) -> ReconstructError {
        ReconstructError::Value { key, lsn, error }
    }
}
