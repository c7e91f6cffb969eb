//! How far a follower is, in a file that `ironpage status` reads. Written often, never flushed.

use crate::error::{AtPath, Result};
use ironpage_layout::Lsn;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Name of [`Progress`] in a follower's directory.
pub const PROGRESS_FILE: &str = "progress.json";

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    pub pid: u32,
    /// starting, backup, streaming, waiting, refused
    pub state: String,
    /// Why it waits or was refused; what it copies.
    pub message: String,
    /// The source without its password.
    pub source: String,
    pub slot: String,
    pub timeline: String,
    pub received_lsn: String,
    pub committed_lsn: String,
    /// End of the source's WAL as it last said.
    pub source_lsn: String,
    pub lag_bytes: u64,
    /// Age of the oldest WAL of the source that is not committed here; while the source is away, since when it is.
    pub lag_seconds: u64,
    /// Bytes of relations and all else the base backup has brought.
    pub backup_bytes: u64,
    /// Seconds since 1970.
    pub updated_at: u64,
}

impl Progress {
    pub fn write(&mut self, dir: &Path) -> Result<()> {
        self.pid = std::process::id();
        self.updated_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = serde_json::to_string(self).unwrap_or_default();
        let (path, new) = (dir.join(PROGRESS_FILE), dir.join("progress.json.new"));
        std::fs::write(&new, text).at("write", &new)?;
        std::fs::rename(&new, &path).at("rename", &new)
    }
}

/// Most points a [`Lag`] remembers; older ones between are dropped.
const POINTS_MAX: usize = 4096;

/// When the source's WAL was seen to end where: the time lag.
#[derive(Debug, Default)]
pub struct Lag {
    points: VecDeque<(Lsn, Instant)>,
}

impl Lag {
    /// The source's WAL ends at `end` now.
    pub fn seen(&mut self, end: Lsn, now: Instant) {
        if self.points.back().is_none_or(|(last, _)| end > *last) && self.points.len() < POINTS_MAX {
            self.points.push_back((end, now));
        }
    }

    /// Seconds since the oldest point that is not committed was seen.
    pub fn seconds(&mut self, committed: Lsn, now: Instant) -> u64 {
        while self.points.front().is_some_and(|(end, _)| *end <= committed) {
            self.points.pop_front();
        }
        self.points.front().map_or(0, |(_, at)| now.duration_since(*at).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lag_is_the_age_of_what_is_not_committed() {
        let (mut lag, began) = (Lag::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        lag.seen(Lsn(100), at(0));
        lag.seen(Lsn(200), at(5));
        lag.seen(Lsn(200), at(9));
        assert_eq!(lag.seconds(Lsn(50), at(10)), 10);
        assert_eq!(lag.seconds(Lsn(100), at(10)), 5);
        assert_eq!(lag.seconds(Lsn(200), at(10)), 0);
    }
}
