//! How a client reaches a branch.

use crate::cluster::{Cluster, Endpoint};
use crate::endpoint::{paths::Paths, state::State};
use crate::error::{Error, Result};

pub fn of(cluster: &Cluster, endpoint: &Endpoint) -> String {
    format!("postgresql://postgres@{}/postgres", cluster.endpoint_address(endpoint))
}

/// The endpoint that serves the branch, or would: the one that runs, else the first.
pub fn endpoint_of<'c>(cluster: &'c Cluster, branch: &str) -> Result<&'c Endpoint> {
    cluster.branch(branch)?;
    let first = cluster.settings.endpoints.iter().find(|endpoint| endpoint.branch == branch);
    serving(cluster, branch).or(first).ok_or_else(|| Error::NoEndpoint {
        name: branch.to_string(),
        known: format!(" on branch '{branch}': `ironpage endpoint start NAME --branch {branch}` makes one"),
    })
}

/// The endpoint that runs on the branch.
pub fn serving<'c>(cluster: &'c Cluster, branch: &str) -> Option<&'c Endpoint> {
    cluster.settings.endpoints.iter().find(|endpoint| endpoint.branch == branch && is_up(cluster, endpoint))
}

fn is_up(cluster: &Cluster, endpoint: &Endpoint) -> bool {
    State::read(&Paths::of(cluster, endpoint)).ok().flatten().is_some_and(|state| state.is_up())
}
