//! `.../lsn` and `.../timestamp`.

use super::Call;
use super::error::ApiError;
use super::types::{LsnOfTime, TimeOfLsn};
use ironpage_daemon::http::Response;
use ironpage_layout::Lsn;

impl Call<'_> {
    pub(super) async fn lsn_of_time(&self) -> Result<Response, ApiError> {
        self.query.only(&["timestamp_us"])?;
        let time: i64 = self.query.required("timestamp_us", "a number of microseconds since 1970 UTC")?;
        let at = self.service.branches().lsn_at(self.name(0), self.name(1), time).await?;
        let answer = LsnOfTime { lsn: at.lsn.to_string(), last_commit_timestamp_us: at.last_commit_time };
        Ok(Response::json(200, &answer))
    }

    pub(super) async fn time_of_lsn(&self) -> Result<Response, ApiError> {
        self.query.only(&["lsn"])?;
        let lsn: Lsn = self.query.required("lsn", "an LSN like 0/16B3748")?;
        let timestamp_us = self.service.branches().time_at(self.name(0), self.name(1), lsn).await?;
        Ok(Response::json(200, &TimeOfLsn { timestamp_us, lsn: lsn.to_string() }))
    }
}
