//! `ironpage down`: stops everything, endpoints first, so that their WAL finds its quorum.

use crate::cluster::Cluster;
use crate::daemons;
use crate::endpoint::{self, Stop, paths::Paths};
use crate::error::{Error, Result};
use crate::follow;
use crate::progress;
use std::path::PathBuf;
use std::time::Duration;

/// How long an endpoint may take to end its sessions and bring its WAL to a quorum.
const FAST_STOP: Duration = Duration::from_secs(60);
const IMMEDIATE_STOP: Duration = Duration::from_secs(30);

/// Stops all processes of the cluster. What fails to stop is named at the end; the rest is stopped all the same.
pub fn down(cluster: &Cluster) -> Result<()> {
    stop_all(cluster, Stop::Fast)
}

pub fn stop_all(cluster: &Cluster, how: Stop) -> Result<()> {
    let mut failure = None;
    let mut note = |name: &str, outcome: Result<()>| match outcome {
        Ok(()) => progress::line(&format!("{name} stopped")),
        Err(error) => {
            progress::line(&error.to_string());
            failure.get_or_insert(error);
        }
    };
    for endpoint in cluster.settings.endpoints.iter().filter(|endpoint| endpoint::runs(cluster, endpoint)) {
        if how == Stop::Fast {
            progress::line(&format!("endpoint {}: stopping, its WAL goes to a quorum first", endpoint.name));
        }
        let mut outcome = match how {
            Stop::Fast => endpoint::stop(cluster, endpoint, Stop::Fast, FAST_STOP),
            Stop::Immediate => Ok(()),
        };
        if let Err(Error::DoesNotEnd { .. }) = outcome {
            progress::line(&format!(
                "endpoint '{}' does not end, perhaps for want of a quorum: stopping it at once",
                endpoint.name
            ));
        }
        if outcome.is_err() || how == Stop::Immediate {
            outcome = endpoint::stop(cluster, endpoint, Stop::Immediate, IMMEDIATE_STOP);
        }
        note(&format!("endpoint {}", endpoint.name), outcome);
    }
    for follower in follow::all(cluster) {
        if follower.process()?.is_some() {
            note(&format!("follower of tenant {}", follower.tenant), follower.pause());
        }
    }
    // The pageserver before the safekeepers it reads from.
    for daemon in daemons::all(cluster).iter().rev() {
        if daemon.process()?.is_some() {
            note(daemon.name(), daemon.stop());
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Name of some process of the cluster that runs.
pub fn first_running(cluster: &Cluster) -> Result<Option<String>> {
    if let Some(endpoint) = cluster.settings.endpoints.iter().find(|endpoint| endpoint::runs(cluster, endpoint)) {
        return Ok(Some(format!("endpoint '{}'", endpoint.name)));
    }
    for daemon in daemons::all(cluster) {
        if daemon.process()?.is_some() {
            return Ok(Some(daemon.name().to_string()));
        }
    }
    for follower in follow::all(cluster) {
        if follower.process()?.is_some() {
            return Ok(Some(format!("the follower of tenant '{}'", follower.tenant)));
        }
    }
    Ok(None)
}

/// What should run and does not, with the logs that tell why.
pub fn not_running(cluster: &Cluster) -> Result<Vec<(String, PathBuf)>> {
    let mut missing = Vec::new();
    for daemon in daemons::all(cluster) {
        if daemon.process()?.is_none() {
            missing.push((daemon.name().to_string(), daemon.log.clone()));
        }
    }
    for endpoint in cluster.settings.endpoints.iter().filter(|endpoint| !endpoint::runs(cluster, endpoint)) {
        missing.push((format!("endpoint {}", endpoint.name), Paths::of(cluster, endpoint).log));
    }
    for follower in follow::all(cluster) {
        if follower.should_run() && follower.process()?.is_none() {
            missing.push((format!("follower of tenant {}", follower.tenant), follower.log));
        }
    }
    Ok(missing)
}
