//! Which branches there are: as the pageserver says, or else as its journal does.

use crate::api::{self, Api, Branch, BranchState, Kind};
use crate::cluster::{Cluster, MAIN};
use crate::daemons;
use crate::error::{AtPath, Error, Result};
use ironpage_layout::metadata::{self, BranchKind, BranchRecord, Catalogue};
use ironpage_layout::{Lsn, TenantId};
use std::fs;
use std::time::Duration;

/// How long the pageserver may take to answer before its journal does.
const PATIENCE: Duration = Duration::from_secs(2);

/// All branches of all tenants: those of the cluster's own first, each tenant's in the order they were made.
pub fn branches(cluster: &Cluster) -> Result<Vec<Branch>> {
    let mut all = asked(&Api::with_patience(cluster.pageserver_http(), PATIENCE)).or_else(|_| from_journal(cluster))?;
    all.sort_by(|a, b| order(a).cmp(&order(b)));
    Ok(all)
}

fn order(branch: &Branch) -> (bool, &str, i64, &str) {
    (branch.tenant != MAIN, &branch.tenant, branch.created_at_us, &branch.name)
}

fn asked(api: &Api) -> Result<Vec<Branch>> {
    let mut all = Vec::new();
    for tenant in api.tenants()? {
        match api.branches(&tenant.name) {
            Err(Error::Api { code: api::ApiCode::NotFound, .. }) => {}
            branches => all.extend(branches?),
        }
    }
    Ok(all)
}

/// Reads the journal while nobody may be writing it; a batch that is being written is not there yet.
fn from_journal(cluster: &Cluster) -> Result<Vec<Branch>> {
    let dirs =
        daemons::all(cluster).into_iter().filter(|daemon| daemon.kind == daemons::Kind::Pageserver).map(|daemon| daemon.dir);
    let mut all = Vec::new();
    for dir in dirs {
        let path = dir.join(metadata::JOURNAL_FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.at("read", &path)?,
        };
        let journal = metadata::read(&bytes).map_err(|error| Error::Journal { path, why: error.to_string() })?;
        all.extend(present(&journal.catalogue));
    }
    Ok(all)
}

/// What was told to somebody: not what was being made or removed when the pageserver ended.
fn present(catalogue: &Catalogue) -> Vec<Branch> {
    let active = catalogue.branches.values().filter(|branch| branch.state == metadata::BranchState::Active);
    active.map(|branch| from_record(catalogue, branch)).collect()
}

fn from_record(catalogue: &Catalogue, record: &BranchRecord) -> Branch {
    let parent = record.parent.and_then(|parent| catalogue.branches.get(&(record.tenant, parent)));
    Branch {
        id: record.timeline,
        tenant: tenant_name(catalogue, record.tenant),
        name: record.name.clone(),
        kind: match record.kind {
            BranchKind::Branch => Kind::Branch,
            BranchKind::Backup => Kind::Backup,
            BranchKind::Snapshot => Kind::Snapshot,
            BranchKind::Follow => Kind::Follow,
        },
        parent: parent.map(|parent| parent.name.clone()),
        parent_id: record.parent,
        parent_lsn: record.parent.map(|_| record.start_lsn),
        start_lsn: record.start_lsn,
        readable_lsn: record.readable_lsn,
        prev_record_lsn: record.prev_record_lsn,
        state: BranchState::Active,
        system_id: record.system_id,
        postgres_version: record.postgres_version,
        created_at_us: record.created_at_us,
        expires_at_us: record.expires_at_us,
        safekeepers: record.safekeepers.iter().map(|id| id.0).collect(),
        // The journal does not know how far it has come.
        last_record_lsn: Lsn::INVALID,
        disk_consistent_lsn: Lsn::INVALID,
        logical_size: 0,
        stopped: None,
    }
}

fn tenant_name(catalogue: &Catalogue, id: TenantId) -> String {
    catalogue.tenants.get(&id).map_or_else(|| id.to_string(), |tenant| tenant.name.clone())
}
