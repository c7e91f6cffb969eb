//! From time to LSN and back.

use super::{Timeline, TimelineError};
use ironpage_layout::Lsn;
use ironpage_layout::history::{History, NO_COMMIT, bucket_of, bucket_start};

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
    ///
    /// Times before the timeline's start lie in its ancestors' history, which is its own up to there.
    pub async fn lsn_at(&self, time: i64) -> Result<AtTime, TimelineError> {
        let last = self.wait_for(Lsn::INVALID, super::branch_point::COMMITTED_WAIT).await?;
        let (start, first) = self.first_history().await?;
        if time < first.commit_time_max {
            return Err(self.time_out_of_range(time).await?);
        }
        let is_later = |found: &Option<(Lsn, History)>| matches!(found, Some((_, history)) if history.commit_time_max > time);
        // Every bucket has a version, but the last may have got none yet.
        let mut newest = self.stored_history(bucket_of(last), last).await?;
        let mut high = bucket_of(last);
        while newest.is_none() && high > bucket_of(start) {
            high -= 1;
            newest = self.stored_history(high, last).await?;
        }
        if !is_later(&newest) {
            let last_commit_time = newest.and_then(|(_, history)| commit_time(&history));
            return Ok(AtTime { lsn: last, last_commit_time, is_head: true });
        }
        // The first bucket that ends later than `time`, then the first version in it that is.
        let mut low = bucket_of(start);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.stored_history(middle, last).await?;
            if is_later(&found) {
                (high, newest) = (middle, found);
            } else {
                low = middle + 1;
            }
        }
        let damaged = || self.damaged(bucket_start(high), "its history has a gap");
        let (mut at, mut later) = newest.ok_or_else(damaged)?;
        let mut below = bucket_start(high);
        while below < at {
            let middle = Lsn(below.0 + (at.0 - below.0) / 2);
            match self.stored_history(high, middle).await? {
                found if is_later(&found) => (at, later) = found.ok_or_else(damaged)?,
                _ => below = middle + 1,
            }
        }
        let lsn = later.before;
        if lsn < self.first_readable_lsn() {
            return Err(self.time_out_of_range(time).await?);
        }
        Ok(AtTime { lsn, last_commit_time: self.time_at(lsn).await?, is_head: false })
    }

    /// When the last commit at or before `lsn` was: microseconds since 2000-01-01 UTC; `None` if none is known.
    pub async fn time_at(&self, lsn: Lsn) -> Result<Option<i64>, TimelineError> {
        let last = self.wait_for(Lsn::INVALID, super::branch_point::COMMITTED_WAIT).await?;
        if lsn < self.first_readable_lsn() || lsn.to_record_end() > last {
            return Err(self.lsn_out_of_range(lsn));
        }
        let mut bucket = bucket_of(lsn);
        loop {
            if let Some((_, history)) = self.stored_history(bucket, lsn).await? {
                return Ok(commit_time(&history));
            }
            // The bucket's first record ends behind `lsn`: the one before says it.
            bucket = bucket.checked_sub(1).ok_or_else(|| self.damaged(lsn, "its history has a gap"))?;
            if bucket_start(bucket + 1) <= self.root().record().start_lsn {
                return Err(self.damaged(lsn, "its history has a gap"));
            }
        }
    }

    /// The timeline all of this one's history begins in.
    pub(super) fn root(&self) -> &Timeline {
        let mut timeline = self;
        while let Some(parent) = timeline.parent() {
            timeline = parent;
        }
        timeline
    }

    /// The version an import puts at its start.
    async fn first_history(&self) -> Result<(Lsn, History), TimelineError> {
        let start = self.root().record().start_lsn;
        let found = self.stored_history(bucket_of(start), start).await?;
        found.ok_or_else(|| self.damaged(start, "its history does not begin at its start"))
    }

    pub(super) async fn time_out_of_range(&self, time: i64) -> Result<TimelineError, TimelineError> {
        let (_, first) = self.first_history().await?;
        Ok(TimelineError::OutOfRange {
            timeline: self.id(),
            wanted: utc(time),
            range: format!(
                "it reaches from {} to the present; in LSNs from {} to {}",
                utc(first.commit_time_max),
                self.first_readable_lsn(),
                self.store().last_record_lsn()
            ),
        })
    }
}

fn commit_time(history: &History) -> Option<i64> {
    Some(history.commit_time).filter(|time| *time != NO_COMMIT)
}

/// A time of Postgres for people: `2026-11-22T14:00:00.000000Z`.
fn utc(time: i64) -> String {
    let (days, micros) = (time.div_euclid(86_400_000_000), time.rem_euclid(86_400_000_000));
    // Days since 0000-03-01, so that leap days end years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + 730_425;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = micros / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_read_them() {
        let day = 86_400_000_000;
        assert_eq!(utc(0), "2000-01-01T00:00:00.000000Z");
        assert_eq!(utc(-1), "1999-12-31T23:59:59.999999Z");
        assert_eq!(utc(59 * day + 12_345_678), "2000-02-29T00:00:12.345678Z");
        assert_eq!(utc(366 * day), "2001-01-01T00:00:00.000000Z");
        assert_eq!(utc(848_673_067_000_000), "2026-11-22T14:31:07.000000Z");
        utc(i64::MIN);
        utc(i64::MAX);
    }
}
