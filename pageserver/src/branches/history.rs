//! From time to LSN and back.

use super::{BranchError, Branches};
use crate::timeline::AtTime;
use ironpage_layout::Lsn;

/// Microseconds from 1970 to 2000: the API counts from the former, Postgres from the latter.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A time of the API as Postgres counts.
pub fn to_postgres_us(unix_us: i64) -> Result<i64, BranchError> {
    let why = || BranchError::BadRequest { why: format!("{unix_us} microseconds since 1970 is no time Postgres knows") };
    unix_us.checked_sub(POSTGRES_EPOCH_US).ok_or_else(why)
}

fn to_unix_us(postgres_us: i64) -> i64 {
    postgres_us.saturating_add(POSTGRES_EPOCH_US)
}

impl Branches {
    /// Where a time (microseconds since 1970 UTC) lies in a branch; so does the time in the answer count.
    pub async fn lsn_at(&self, tenant: &str, branch: &str, unix_us: i64) -> Result<AtTime, BranchError> {
        let record = self.branch(tenant, branch)?;
        let timeline = self.timeline(&record)?;
        let time = to_postgres_us(unix_us)?;
        // Nobody is to be told of a commit, and then not find it here.
        self.shared.timelines.acknowledged_head(&timeline, &self.shared.safekeepers).await?;
        let at = timeline.lsn_at(time).await?;
        Ok(AtTime { last_commit_time: at.last_commit_time.map(to_unix_us), ..at })
    }

    /// When the last commit at or before `lsn` was, in microseconds since 1970 UTC.
    pub async fn time_at(&self, tenant: &str, branch: &str, lsn: Lsn) -> Result<i64, BranchError> {
        let record = self.branch(tenant, branch)?;
        let timeline = self.timeline(&record)?;
        if lsn > timeline.store().last_record_lsn() {
            self.shared.timelines.acknowledged_head(&timeline, &self.shared.safekeepers).await?;
        }
        let time = timeline.time_at(lsn).await?;
        time.map(to_unix_us).ok_or_else(|| BranchError::NoCommit { name: record.name.clone(), lsn, start: record.readable_lsn })
    }
}
