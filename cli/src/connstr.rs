//! How a client reaches a branch.

use crate::cluster::{Cluster, Endpoint, MAIN, branch_in_words};
use crate::endpoint::{paths::Paths, state::State};
use crate::error::{Error, Result};
use crate::place::Place;

pub fn of(cluster: &Cluster, endpoint: &Endpoint) -> String {
    format!("postgresql://postgres@{}/postgres", cluster.endpoint_address(endpoint))
}

/// The endpoint that serves the branch, or would: the one that runs, else one that reads it, else the first.
pub fn endpoint_of<'c>(cluster: &'c Cluster, tenant: &str, branch: &str) -> Result<&'c Endpoint> {
    let read_only = || cluster.endpoints_of(tenant, branch).find(|endpoint| endpoint.at.is_some() && is_up(cluster, endpoint));
    let first = || cluster.endpoints_of(tenant, branch).find(|endpoint| endpoint.at.is_none());
    if let Some(endpoint) = serving(cluster, tenant, branch).or_else(read_only).or_else(first) {
        return Ok(endpoint);
    }
    // A name that is no branch's is the likelier mistake.
    Place::find(cluster, tenant, branch)?;
    let tenant_option = if tenant == MAIN { String::new() } else { format!(" --tenant {tenant}") };
    Err(Error::NoEndpoint {
        name: branch.to_string(),
        known: format!(
            " on {}: `ironpage endpoint start NAME --branch {branch}{tenant_option}` makes one",
            branch_in_words(tenant, branch)
        ),
    })
}

/// The endpoint that runs on the branch and writes to it.
pub fn serving<'c>(cluster: &'c Cluster, tenant: &str, branch: &str) -> Option<&'c Endpoint> {
    cluster.endpoints_of(tenant, branch).find(|endpoint| endpoint.at.is_none() && is_up(cluster, endpoint))
}

fn is_up(cluster: &Cluster, endpoint: &Endpoint) -> bool {
    State::read(&Paths::of(cluster, endpoint)).ok().flatten().is_some_and(|state| state.is_up())
}
