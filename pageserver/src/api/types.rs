//! The bodies of requests and answers. docs/openapi.json says the same in its own words, and a test compares.

use crate::metadata::{BranchKind, BranchRecord, BranchState, State, TenantRecord, TenantState};
use crate::timeline::Timeline;
use ironpage_layout::Lsn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Serialize)]
pub struct Status {
    pub node: u64,
    pub version: &'static str,
    pub tenants: usize,
    pub branches: usize,
    /// Why no metadata can be changed any more.
    pub metadata_failure: Option<String>,
    pub counters: BTreeMap<String, u64>,
}

#[derive(Serialize)]
pub struct Tenants {
    pub tenants: Vec<Tenant>,
}

#[derive(Serialize)]
pub struct Tenant {
    id: String,
    name: String,
    state: &'static str,
    /// Those that are being deleted are not counted.
    branches: usize,
}

impl Tenant {
    pub fn of(tenant: &TenantRecord, state: &State) -> Tenant {
        Tenant {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            state: match tenant.state {
                TenantState::Active => "active",
                TenantState::Deleting => "deleting",
            },
            branches: state.branches_of(tenant.id).filter(|branch| branch.state != BranchState::Deleting).count(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    pub name: String,
    pub id: Option<String>,
}

#[derive(Serialize)]
pub struct BranchList {
    pub branches: Vec<Branch>,
}

#[derive(Serialize)]
pub struct Branch {
    id: String,
    tenant: String,
    name: String,
    kind: &'static str,
    parent: Option<String>,
    parent_id: Option<String>,
    parent_lsn: Option<String>,
    start_lsn: String,
    readable_lsn: String,
    prev_record_lsn: String,
    state: &'static str,
    /// Text: it does not fit the numbers of JavaScript.
    system_id: String,
    postgres_version: u32,
    created_at_us: i64,
    expires_at_us: Option<i64>,
    safekeepers: Vec<u64>,
    last_record_lsn: String,
    disk_consistent_lsn: String,
    logical_size: u64,
    stopped: Option<String>,
}

impl Branch {
    /// `timeline`: that of an active branch.
    pub fn of(branch: &BranchRecord, state: &State, timeline: Option<Rc<Timeline>>) -> Branch {
        let tenant = state.tenant(branch.tenant).map_or_else(|| branch.tenant.to_string(), |tenant| tenant.name.clone());
        let parent = branch.parent.and_then(|parent| state.branch(branch.tenant, parent));
        let lsn = |lsn: Option<Lsn>| lsn.unwrap_or(branch.start_lsn).to_string();
        Branch {
            id: branch.timeline.to_string(),
            tenant,
            name: branch.name.clone(),
            kind: kind(branch.kind),
            parent: parent.map(|parent| parent.name.clone()),
            parent_id: branch.parent.map(|parent| parent.to_string()),
            parent_lsn: branch.parent.map(|_| branch.start_lsn.to_string()),
            start_lsn: branch.start_lsn.to_string(),
            readable_lsn: branch.readable_lsn.to_string(),
            prev_record_lsn: branch.prev_record_lsn.to_string(),
            state: match branch.state {
                BranchState::Creating => "creating",
                BranchState::Active => "active",
                BranchState::Deleting => "deleting",
            },
            system_id: branch.system_id.to_string(),
            postgres_version: branch.postgres_version,
            created_at_us: branch.created_at_us,
            expires_at_us: branch.expires_at_us,
            safekeepers: branch.safekeepers.iter().map(|member| member.0).collect(),
            last_record_lsn: lsn(timeline.as_ref().map(|timeline| timeline.store().last_record_lsn())),
            disk_consistent_lsn: lsn(timeline.as_ref().map(|timeline| timeline.store().disk_consistent_lsn())),
            logical_size: timeline.as_ref().and_then(|timeline| timeline.logical_size()).unwrap_or_default(),
            stopped: timeline.and_then(|timeline| timeline.stopped()).map(|stopped| stopped.why),
        }
    }
}

fn kind(kind: BranchKind) -> &'static str {
    match kind {
        BranchKind::Branch => "branch",
        BranchKind::Backup => "backup",
        BranchKind::Snapshot => "snapshot",
        BranchKind::Follow => "follow",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchBranch {
    pub name: Option<String>,
    /// `Some(None)`: it never goes away by itself.
    #[serde(default, deserialize_with = "super::input::nullable")]
    pub ttl_seconds: Option<Option<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddSafekeepers {
    pub members: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBranch {
    pub name: String,
    pub from: String,
    pub at_lsn: Option<String>,
    pub at_timestamp_us: Option<i64>,
    pub ttl_seconds: Option<u64>,
    pub kind: Option<String>,
}

#[derive(Serialize)]
pub struct BranchCreated {
    pub branch: Branch,
    /// What was asked for, if that was an LSN.
    pub requested_lsn: Option<String>,
    pub lsn: String,
    /// Whether `requested_lsn` was no record's end, and `lsn` is the one before it.
    pub rounded: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct ResetBranch {
    #[serde(default)]
    pub recursive: bool,
}

#[derive(Serialize)]
pub struct BranchReset {
    pub branch: Branch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreBranch {
    pub at_lsn: Option<String>,
    pub at_timestamp_us: Option<i64>,
}

#[derive(Serialize)]
pub struct BranchRestored {
    pub branch: Branch,
    pub backup: Branch,
    pub requested_lsn: Option<String>,
    pub lsn: String,
    pub rounded: bool,
}

#[derive(Serialize)]
pub struct LsnOfTime {
    pub lsn: String,
    pub last_commit_timestamp_us: Option<i64>,
}

#[derive(Serialize)]
pub struct TimeOfLsn {
    pub timestamp_us: i64,
    pub lsn: String,
}
