//! What the API sends and takes. docs/openapi.json says the same; fields that are added later are passed over.

use super::text;
use ironpage_layout::{Lsn, TenantId, TimelineId};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tenant {
    #[serde(with = "text")]
    pub id: TenantId,
    pub name: String,
    pub state: BranchState,
    /// How many branches it has.
    pub branches: u64,
}

/// A safekeeper's number.
pub type Member = u64;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Branch {
    #[serde(with = "text")]
    pub id: TimelineId,
    /// Name of its tenant.
    pub tenant: String,
    pub name: String,
    pub kind: Kind,
    /// Name of the branch it came from; none of a root.
    pub parent: Option<String>,
    #[serde(default, with = "text::option")]
    pub parent_id: Option<TimelineId>,
    /// The branch point.
    #[serde(default, with = "text::option")]
    pub parent_lsn: Option<Lsn>,
    /// End of the WAL it began with; its own WAL follows.
    #[serde(with = "text")]
    pub start_lsn: Lsn,
    /// Nothing can be read below this.
    #[serde(with = "text")]
    pub readable_lsn: Lsn,
    /// Start of the record that ends at `start_lsn`.
    #[serde(with = "text")]
    pub prev_record_lsn: Lsn,
    pub state: BranchState,
    #[serde(with = "text")]
    pub system_id: u64,
    /// PG_VERSION_NUM of the server it was made by.
    pub postgres_version: u32,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// When it goes away by itself; never if null.
    pub expires_at_us: Option<i64>,
    /// The safekeepers that have its timeline; none before its first endpoint started.
    pub safekeepers: Vec<Member>,
    #[serde(with = "text")]
    pub last_record_lsn: Lsn,
    #[serde(with = "text")]
    pub disk_consistent_lsn: Lsn,
    /// Bytes of all relations at `last_record_lsn`.
    pub logical_size: u64,
    /// Why its ingest stopped.
    #[serde(default)]
    pub stopped: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Branch,
    /// The head a restore replaced.
    Backup,
    /// For a read-only endpoint; goes with it.
    Snapshot,
    /// Follows a Postgres of somebody else's: read-only.
    Follow,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Branch => "branch",
            Kind::Backup => "backup",
            Kind::Snapshot => "snapshot",
            Kind::Follow => "follow",
        })
    }
}

/// Of tenants too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BranchState {
    Creating,
    Active,
    Deleting,
}

impl fmt::Display for BranchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BranchState::Creating => "creating",
            BranchState::Active => "active",
            BranchState::Deleting => "deleting",
        })
    }
}

/// A moment in a branch's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum At {
    #[serde(rename = "at_lsn", with = "text")]
    Lsn(Lsn),
    /// Microseconds since 1970, UTC.
    #[serde(rename = "at_timestamp_us")]
    TimestampUs(i64),
}

/// A branch to be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NewBranch {
    pub name: String,
    /// The parent.
    pub from: String,
    /// The parent's head if none.
    #[serde(flatten)]
    pub at: Option<At>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    pub kind: Kind,
}

/// Answer to a create.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Created {
    pub branch: Branch,
    /// What was asked for, if that was an LSN.
    #[serde(default, with = "text::option")]
    pub requested_lsn: Option<Lsn>,
    /// The branch point: a record's end.
    #[serde(with = "text")]
    pub lsn: Lsn,
    /// Whether `requested_lsn` was none.
    pub rounded: bool,
}

#[derive(Deserialize)]
pub struct Reset {
    pub branch: Branch,
}

/// Answer to a restore.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restored {
    pub branch: Branch,
    /// What the branch was until now.
    pub backup: Branch,
    #[serde(default, with = "text::option")]
    pub requested_lsn: Option<Lsn>,
    #[serde(with = "text")]
    pub lsn: Lsn,
    pub rounded: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LsnOfTime {
    #[serde(with = "text")]
    pub lsn: Lsn,
    /// Time of the last commit before `lsn`.
    #[serde(default)]
    pub last_commit_timestamp_us: Option<i64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeOfLsn {
    /// Time of the last commit at or before `lsn`.
    pub timestamp_us: i64,
    /// End of that commit's record, or the LSN asked for.
    #[serde(with = "text")]
    pub lsn: Lsn,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiCode {
    NotFound,
    Exists,
    BadRequest,
    HasChildren,
    OutOfRange,
    Conflict,
    Unavailable,
    Internal,
    /// Of a later release.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
pub struct Failure {
    pub error: FailureBody,
}

#[derive(Deserialize)]
pub struct FailureBody {
    pub code: ApiCode,
    pub message: String,
}

#[derive(Deserialize)]
pub struct Tenants {
    pub tenants: Vec<Tenant>,
}

#[derive(Deserialize)]
pub struct Branches {
    pub branches: Vec<Branch>,
}
