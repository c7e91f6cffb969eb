//! From time to LSN and back.

use super::{Timeline, TimelineError};
use ironpage_layout::Lsn;

/// Where a moment lies in a timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtTime {
    /// The record end just before the first commit that is later; the last record's if none is.
    pub lsn: Lsn,
    /// When the last commit at or before `lsn` was; `None` if none is known.
    pub last_commit_time: Option<i64>,
    /// Whether no commit known so far is later.
    pub is_head: bool,
}

impl Timeline {
    /// Where `time` lies in what is ingested: microseconds since 2000-01-01 UTC, as Postgres counts. For commits that
    /// were acknowledged a moment ago see [`super::Timelines::acknowledged_head`].
    pub async fn lsn_at(&self, _time: i64) -> Result<AtTime, TimelineError> {
        Err(TimelineError::Unavailable { timeline: self.id(), why: "branches are being built".into() })
    }

    /// When the last commit at or before `lsn` was: microseconds since 2000-01-01 UTC; `None` if none is known.
    pub async fn time_at(&self, _lsn: Lsn) -> Result<Option<i64>, TimelineError> {
        Err(TimelineError::Unavailable { timeline: self.id(), why: "branches are being built".into() })
    }
}
