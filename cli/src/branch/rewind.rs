//! `branch reset` and `branch restore`: another timeline takes the branch's name, and its endpoint goes along.

use super::create::which_point;
use super::remove::{refuse_if_running, with_descendants};
use crate::api::{At, Reach};
use crate::cluster::{Cluster, Endpoint, branch_in_words};
use crate::endpoint::{self, Stop};
use crate::error::{Error, Result};
use crate::output::{self, Format};
use crate::programs::Programs;
use crate::progress;
use crate::sys::Signals;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a running endpoint may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(120);

pub fn reset(cluster: &mut Cluster, tenant: &str, name: &str, reach: Reach, format: Format) -> Result<()> {
    let api = cluster.api();
    let branch = api.branch(tenant, name)?;
    let Some(parent) = branch.parent.clone() else {
        return Err(Error::Refused(format!(
            "{} has no parent to be reset to; `ironpage branch restore {name} --at` brings it back to a moment of its own past",
            branch_in_words(tenant, name)
        )));
    };
    // Before anything is stopped.
    let below = with_descendants(&branch, api.branches(tenant)?);
    let children: BTreeSet<String> = below.iter().filter(|child| child.id != branch.id).map(|child| child.name.clone()).collect();
    if !children.is_empty() && reach == Reach::Alone {
        let names: Vec<_> = children.iter().map(|child| format!("'{child}'")).collect();
        return Err(Error::Refused(format!(
            "{} has branches below it that read what it holds: {}. `--recursive` deletes them too",
            branch_in_words(tenant, name),
            names.join(", ")
        )));
    }
    children.iter().try_for_each(|child| refuse_if_running(cluster, tenant, child))?;
    // What reads the branch's past goes with it; what writes to it starts again.
    refuse_readers(cluster, tenant, name)?;
    let reset = while_stopped(cluster, tenant, name, || api.reset_branch(tenant, name, reach));
    let (branch, restarted) = (reset.0?, reset.1);
    cluster.forget_endpoints(|endpoint| endpoint.tenant == tenant && children.contains(&endpoint.branch))?;
    restarted?;
    output::answer(format, &json!({ "branch": branch }), || {
        let now = branch_in_words(tenant, name);
        format!("{now} is what '{parent}' is at {}", branch.start_lsn)
    })
}

pub fn restore(cluster: &Cluster, tenant: &str, name: &str, at: At, format: Format) -> Result<()> {
    let api = cluster.api();
    api.branch(tenant, name)?;
    let (restored, restarted) = while_stopped(cluster, tenant, name, || api.restore_branch(tenant, name, at));
    let restored = restored?;
    restarted?;
    output::answer(format, &restored, || {
        let why = which_point(Some(at), restored.requested_lsn, restored.lsn, restored.rounded);
        let (now, backup) = (branch_in_words(tenant, name), &restored.backup.name);
        format!("{now} is what it was at {}{why}\nwhat it was until now is branch '{backup}'", restored.lsn)
    })
}

fn refuse_readers(cluster: &Cluster, tenant: &str, name: &str) -> Result<()> {
    match cluster.endpoints_of(tenant, name).find(|endpoint| endpoint.at.is_some() && endpoint::runs(cluster, endpoint)) {
        Some(reader) => Err(Error::EndpointRuns { endpoint: reader.name.clone(), on: branch_in_words(tenant, name) }),
        None => Ok(()),
    }
}

/// Does `work` while no endpoint writes to the branch, and starts those that ran again, whatever came of it.
fn while_stopped<T>(cluster: &Cluster, tenant: &str, name: &str, work: impl FnOnce() -> Result<T>) -> (Result<T>, Result<()>) {
    let stopped = match Stopped::on(cluster, tenant, name) {
        Ok(stopped) => stopped,
        Err(error) => return (Err(error), Ok(())),
    };
    let done = work();
    let restarted = stopped.start_again(cluster);
    if let (Err(_), Err(error)) = (&done, &restarted) {
        // The first failure is the one to return.
        progress::line(&error.to_string());
    }
    (done, restarted)
}

/// Endpoints that ran.
struct Stopped {
    endpoints: Vec<Endpoint>,
    programs: Programs,
    signals: Signals,
}

impl Stopped {
    fn on(cluster: &Cluster, tenant: &str, branch: &str) -> Result<Stopped> {
        // From here on Ctrl-C leaves nothing half done.
        let signals = Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
            .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
        let programs = Programs::find()?;
        let writers = cluster.endpoints_of(tenant, branch).filter(|endpoint| endpoint.at.is_none());
        let running = writers.filter(|endpoint| endpoint::runs(cluster, endpoint));
        let mut stopped = Stopped { endpoints: Vec::new(), programs, signals };
        for endpoint in running {
            progress::line(&format!("endpoint {}: stopping, it starts again on what the branch will be", endpoint.name));
            if let Err(error) = endpoint::stop(cluster, endpoint, Stop::Fast, STOP_PATIENCE) {
                let _ = stopped.start_again(cluster);
                return Err(error);
            }
            stopped.endpoints.push(endpoint.clone());
        }
        Ok(stopped)
    }

    fn start_again(&self, cluster: &Cluster) -> Result<()> {
        let mut failure = None;
        for endpoint in &self.endpoints {
            match endpoint::start(cluster, endpoint, &self.programs, &self.signals) {
                Ok(_) => progress::line(&format!("endpoint {} runs again", endpoint.name)),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
