//! `branch delete`: the branch, its endpoints and their directories.

use crate::api::{Branch, Kind, Reach};
use crate::cluster::{Cluster, branch_in_words};
use crate::endpoint;
use crate::error::{Error, Result};
use crate::follow;
use crate::output::{self, Format};
use ironpage_layout::TimelineId;
use serde_json::json;
use std::collections::BTreeSet;

pub fn delete(cluster: &mut Cluster, tenant: &str, name: &str, reach: Reach, format: Format) -> Result<()> {
    let api = cluster.api();
    let doomed = match api.find_branch(tenant, name)? {
        Some(branch) => match reach {
            Reach::Alone => vec![branch],
            Reach::Recursive => with_descendants(&branch, api.branches(tenant)?),
        },
        None => return finish_earlier(cluster, tenant, name, format),
    };
    doomed.iter().try_for_each(|branch| refuse_if_running(cluster, tenant, &branch.name))?;
    if doomed.iter().any(|branch| branch.kind == Kind::Follow) {
        follow::check_stopped(cluster, tenant)?;
    }
    api.delete_branch(tenant, name, reach)?;
    let names: BTreeSet<&str> = doomed.iter().map(|branch| branch.name.as_str()).collect();
    cluster.forget_endpoints(|endpoint| endpoint.tenant == tenant && names.contains(endpoint.branch.as_str()))?;
    output::answer(format, &json!({ "deleted": names }), || {
        let below = names.len() - 1;
        let with = if below > 0 { format!(", with {below} branches below it") } else { String::new() };
        format!("{} is gone{with}", branch_in_words(tenant, name))
    })
}

/// The branch is gone, but a command that was cut short, or its own end at its time, left its endpoints.
fn finish_earlier(cluster: &mut Cluster, tenant: &str, name: &str, format: Format) -> Result<()> {
    if cluster.endpoints_of(tenant, name).next().is_none() {
        // Says what is missing: the tenant or the branch.
        cluster.api().branch(tenant, name)?;
    }
    refuse_if_running(cluster, tenant, name)?;
    cluster.forget_endpoints(|endpoint| endpoint.tenant == tenant && endpoint.branch == name)?;
    let said = format!("{} was gone already; what was left of its endpoints is now too", branch_in_words(tenant, name));
    output::answer(format, &json!({ "deleted": [name] }), || said)
}

pub fn refuse_if_running(cluster: &Cluster, tenant: &str, branch: &str) -> Result<()> {
    match cluster.endpoints_of(tenant, branch).find(|endpoint| endpoint::runs(cluster, endpoint)) {
        Some(endpoint) => Err(Error::EndpointRuns { endpoint: endpoint.name.clone(), on: branch_in_words(tenant, branch) }),
        None => Ok(()),
    }
}

/// A branch and all below it.
pub fn with_descendants(root: &Branch, all: Vec<Branch>) -> Vec<Branch> {
    let mut ids: BTreeSet<TimelineId> = BTreeSet::from([root.id]);
    loop {
        let below = |branch: &&Branch| branch.parent_id.is_some_and(|parent| ids.contains(&parent)) && !ids.contains(&branch.id);
        let more: Vec<_> = all.iter().filter(below).map(|branch| branch.id).collect();
        if more.is_empty() {
            return all.into_iter().filter(|branch| ids.contains(&branch.id)).collect();
        }
        ids.extend(more);
    }
}
