//! What holds a moment of history for a read-only endpoint: a branch of kind snapshot, which nobody writes to.
//!
//! It has a time to live that the endpoint's supervisor renews as long as it runs, so that one whose supervisor was
//! killed goes away by itself. No safekeeper ever hears of it.

use crate::api::{Api, ApiCode, At, Branch, Created, Kind, NewBranch, Reach};
use crate::cluster::{Cluster, Endpoint, Point};
use crate::error::{Error, Result};
use crate::log;
use crate::progress;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long a snapshot outlives the last word of its supervisor: long enough for a pageserver that is restarted, and for
/// this machine being busy.
const TTL_SECONDS: u64 = 300;
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How long one renewal may take; the next one is not far.
const RENEW_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop waits for the pageserver: without it, the snapshot's time to live does the rest.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
/// What the names of snapshots begin with.
const PREFIX: &str = "at-";
/// Longest name of a branch.
const NAME_LENGTH_MAX: usize = 63;

/// Name of the branch that is the endpoint's lease.
pub fn snapshot_name(endpoint: &str) -> Result<String> {
    let name = format!("{PREFIX}{endpoint}");
    match name.len() <= NAME_LENGTH_MAX {
        true => Ok(name),
        false => Err(Error::Refused(format!(
            "the name '{endpoint}' is too long for a read-only endpoint: {} characters at most",
            NAME_LENGTH_MAX - PREFIX.len()
        ))),
    }
}

/// Makes the snapshot of a new start, from the branch `from` (a name or an id), as it is now unless `at` says when. One that
/// an earlier start left goes first.
pub fn create(cluster: &Cluster, tenant: &str, endpoint: &str, from: &str, at: Option<At>) -> Result<Created> {
    let (api, name) = (cluster.api(), snapshot_name(endpoint)?);
    remove_if_there(&api, tenant, &name)?;
    let new = NewBranch { name, from: from.into(), at, ttl_seconds: Some(TTL_SECONDS), kind: Kind::Snapshot };
    api.create_branch(tenant, &new)
}

/// The endpoint's snapshot, renewed; made again if it went away meanwhile.
pub fn obtain(cluster: &Cluster, endpoint: &Endpoint, point: Point) -> Result<Branch> {
    let (api, name) = (cluster.api(), snapshot_name(&endpoint.name)?);
    if let Some(there) = api.find_branch(&endpoint.tenant, &name)?
        && is_of(&there, point)
    {
        match api.set_ttl(&endpoint.tenant, &there.id.to_string(), Some(TTL_SECONDS)) {
            Err(Error::Api { code: ApiCode::NotFound, .. }) => {}
            renewed => return renewed,
        }
    }
    let from = point.timeline.to_string();
    let made = create(cluster, &endpoint.tenant, &endpoint.name, &from, Some(At::Lsn(point.lsn)))?;
    if !is_of(&made.branch, point) {
        return Err(Error::Endpoint(format!(
            "the history of branch '{}' no longer has {}: a snapshot there would be one at {}",
            endpoint.branch, point.lsn, made.lsn
        )));
    }
    Ok(made.branch)
}

/// Gives the snapshot of an endpoint that does not run back.
pub fn release(cluster: &Cluster, endpoint: &Endpoint) -> Result<()> {
    let api = Api::with_patience(cluster.pageserver_http(), RELEASE_PATIENCE);
    remove_if_there(&api, &endpoint.tenant, &snapshot_name(&endpoint.name)?)
}

/// For an endpoint whose supervisor may have been killed. What cannot be done now, time does.
pub fn release_of_stopped(cluster: &Cluster, endpoint: &Endpoint) {
    if endpoint.at.is_some()
        && let Err(error) = release(cluster, endpoint)
    {
        progress::line(&format!("endpoint {}: its snapshot is left to go away by itself: {error}", endpoint.name));
    }
}

/// What a snapshot shows.
pub fn point_of(snapshot: &Branch) -> Result<Point> {
    let timeline = snapshot.parent_id.ok_or_else(|| {
        Error::Endpoint(format!("the pageserver says that snapshot '{}' has no parent: it is none", snapshot.name))
    })?;
    Ok(Point { timeline, lsn: snapshot.start_lsn })
}

fn is_of(snapshot: &Branch, point: Point) -> bool {
    snapshot.kind == Kind::Snapshot && snapshot.start_lsn == point.lsn && snapshot.parent_id == Some(point.timeline)
}

/// A branch of that name that is no snapshot is somebody's data: it stays, and a create says that it is there.
fn remove_if_there(api: &Api, tenant: &str, name: &str) -> Result<()> {
    match api.find_branch(tenant, name)? {
        Some(there) if there.kind == Kind::Snapshot => match api.delete_branch(tenant, &there.id.to_string(), Reach::Alone) {
            Err(Error::Api { code: ApiCode::NotFound, .. }) => Ok(()),
            done => done,
        },
        _ => Ok(()),
    }
}

/// Renews a snapshot until dropped.
pub struct Renewal {
    gone: Arc<AtomicBool>,
    #[expect(dead_code, reason = "its drop ends the thread")]
    running: Sender<()>,
}

impl Renewal {
    pub fn start(cluster: &Cluster, tenant: &str, snapshot: &Branch) -> Renewal {
        let (running, stopped) = channel::<()>();
        let gone = Arc::new(AtomicBool::new(false));
        let api = Api::with_patience(cluster.pageserver_http(), RENEW_PATIENCE);
        let (tenant, snapshot, told) = (tenant.to_string(), snapshot.clone(), Arc::clone(&gone));
        std::thread::spawn(move || {
            let id = snapshot.id.to_string();
            let mut troubled = false;
            while stopped.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
                match api.set_ttl(&tenant, &id, Some(TTL_SECONDS)) {
                    Ok(_) => troubled = false,
                    Err(Error::Api { code: ApiCode::NotFound, .. }) => {
                        told.store(true, Ordering::Relaxed);
                        return;
                    }
                    Err(error) if !troubled => {
                        log::line("WARN", &format!("cannot renew snapshot '{}': {error}; trying again", snapshot.name));
                        troubled = true;
                    }
                    Err(_) => {}
                }
            }
        });
        Renewal { gone, running }
    }

    /// Whether the snapshot does not exist any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leaves_room_for_the_prefix() {
        assert_eq!(snapshot_name("report").unwrap(), "at-report");
        assert_eq!(snapshot_name(&"a".repeat(60)).unwrap().len(), 63);
        let error = snapshot_name(&"a".repeat(61)).unwrap_err().to_string();
        assert!(error.contains("60 characters at most"), "{error}");
    }
}
