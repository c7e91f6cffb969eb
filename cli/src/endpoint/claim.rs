//! Which endpoint a start is for: one that reads and writes its branch, or one that shows a moment of it.

use super::lease;
use super::paths::Paths;
use super::state;
use crate::api::{At, Kind};
use crate::cluster::{Cluster, Endpoint, MAIN, branch_in_words};
use crate::error::{Error, Result};
use crate::follow;
use crate::place::{Place, branch_name};
use crate::progress;

/// What a user asks for.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub tenant: &'a str,
    /// The endpoint's own if `None`, or else main.
    pub branch: Option<&'a str>,
    /// Of a read-only endpoint.
    pub at: Option<At>,
}

/// The endpoint of that name, with a port and, if it is to be read-only, a snapshot. A new one is made only on a branch
/// that exists. Saved.
pub fn claim(cluster: &mut Cluster, wanted: &Wanted<'_>) -> Result<Endpoint> {
    let known = cluster.endpoint(wanted.name).ok().cloned();
    // Without `--tenant` a known endpoint is its own tenant's.
    let tenant = match &known {
        Some(known) if wanted.tenant == MAIN => known.tenant.as_str(),
        _ => wanted.tenant,
    };
    let named = wanted.branch.map(|branch| branch_name(cluster, tenant, branch)).transpose()?;
    let branch = named.as_deref().or(known.as_ref().map(|known| known.branch.as_str())).unwrap_or(MAIN);
    let read_only = wanted.at.is_some() || known.as_ref().is_some_and(|known| known.at.is_some());
    match Place::find(cluster, tenant, branch) {
        // Its supervisor waits for the pageserver.
        Err(error) if known.is_some() && wanted.at.is_none() && error.may_pass() => {}
        // The snapshot has a parent of its own, whatever its branch has become.
        Err(_) if known.is_some() && read_only && wanted.at.is_none() => {}
        found => refuse_writes(&found?, read_only)?,
    }
    let mut endpoint = cluster.endpoint_for(wanted.name, tenant, branch)?;
    if let Some(at) = wanted.at {
        take_snapshot(cluster, &mut endpoint, known.as_ref(), at)?;
        cluster.update_endpoint(&endpoint);
    }
    cluster.save()?;
    Ok(endpoint)
}

/// Nobody changes what is kept for a read-only endpoint, or what follows another server.
fn refuse_writes(place: &Place, read_only: bool) -> Result<()> {
    let name = &place.branch.name;
    match place.branch.kind {
        _ if read_only => Ok(()),
        Kind::Snapshot => Err(Error::Refused(format!(
            "{} is kept for a read-only endpoint and is never written to: `ironpage branch create NEW --from {name}` makes one that is",
            branch_in_words(&place.branch.tenant, name)
        ))),
        _ => follow::check_writable(place),
    }
}

/// The snapshot that `at` leads to, noted in the endpoint. One that runs stays where it is.
fn take_snapshot(cluster: &Cluster, endpoint: &mut Endpoint, known: Option<&Endpoint>, at: At) -> Result<()> {
    let name = &endpoint.name;
    if known.is_some_and(|known| known.at.is_none()) {
        return Err(Error::Refused(format!(
            "endpoint '{name}' reads and writes {}: choose another name for a read-only one",
            branch_in_words(&endpoint.tenant, &endpoint.branch)
        )));
    }
    if let Some(point) = endpoint.at
        && state::is_supervised(&Paths::of(cluster, endpoint))?
    {
        return match at {
            At::Lsn(lsn) if lsn == point.lsn => Ok(()),
            _ => Err(Error::Refused(format!(
                "endpoint '{name}' runs and shows {}: `ironpage endpoint stop {name}` first, or choose another name",
                point.lsn
            ))),
        };
    }
    let created = lease::create(cluster, &endpoint.tenant, name, &endpoint.branch, Some(at))?;
    endpoint.at = Some(lease::point_of(&created.branch)?);
    match at {
        At::Lsn(asked) if asked != created.lsn => {
            progress::line(&format!("endpoint {name}: {asked} is no record's end, so it was rounded down to {}", created.lsn));
        }
        At::Lsn(_) => {}
        At::TimestampUs(_) => progress::line(&format!("endpoint {name}: the branch was at {} then", created.lsn)),
    }
    Ok(())
}
