//! `lsn` and `timestamp`: from times to places in a branch's history, and back.

use crate::cluster::Cluster;
use crate::error::Result;
use crate::moment;
use crate::output::{self, Format};
use ironpage_layout::Lsn;
use serde_json::json;

/// Prints the LSN just before the first commit after a time.
pub fn lsn(cluster: &Cluster, tenant: &str, branch: &str, timestamp_us: i64, format: Format) -> Result<()> {
    let found = cluster.api().lsn_of_time(tenant, branch, timestamp_us)?;
    let answer = json!({
        "lsn": found.lsn.to_string(),
        "last_commit_timestamp_us": found.last_commit_timestamp_us,
        "last_commit_timestamp": found.last_commit_timestamp_us.map(moment::utc),
    });
    output::answer(format, &answer, || found.lsn.to_string())
}

/// Prints the time of the last commit at or before an LSN.
pub fn timestamp(cluster: &Cluster, tenant: &str, branch: &str, lsn: Lsn, format: Format) -> Result<()> {
    let found = cluster.api().time_of_lsn(tenant, branch, lsn)?;
    let answer = json!({
        "timestamp_us": found.timestamp_us,
        "timestamp": moment::utc(found.timestamp_us),
        "lsn": found.lsn.to_string(),
    });
    output::answer(format, &answer, || moment::local(found.timestamp_us))
}
