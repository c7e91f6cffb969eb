//! `ironpage status`: what runs, and how far each branch has come. Works when nothing runs.

use crate::api::Branch;
use crate::catalogue;
use crate::cluster::{Cluster, branch_in_words, branch_label};
use crate::connstr;
use crate::daemons::{self, State as DaemonState};
use crate::endpoint::{self, paths::Paths, state::State as EndpointState};
use crate::error::Result;
use crate::follow::{self, FollowerStatus};
use crate::output::{self, Format};
use ironpage_layout::wire::admin::{StatusReply, TimelineStatus};
use ironpage_layout::{Lsn, TimelineId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How long a daemon may take to answer before it counts as starting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The contract of `status --json`.
#[derive(Serialize)]
struct Status {
    processes: Vec<ProcessStatus>,
    branches: Vec<BranchStatus>,
    followers: Vec<FollowerStatus>,
    /// Why the branches are not known. Not part of the contract.
    #[serde(skip)]
    remark: String,
}

#[derive(Serialize)]
struct ProcessStatus {
    kind: &'static str,
    name: String,
    /// Null if there is no such process.
    pid: Option<i32>,
    state: &'static str,
    listen: Vec<String>,
    /// Of an endpoint that never started, where its data directories will be.
    data_dir: PathBuf,
    log: PathBuf,
    /// Of a read-only endpoint, the LSN it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only_at: Option<String>,
    /// What a daemon that answers counts, by name; LSNs as plain numbers.
    counters: BTreeMap<String, u64>,
    /// For people: why it is not running. Not part of the contract.
    #[serde(skip)]
    remark: String,
}

#[derive(Serialize)]
struct BranchStatus {
    name: String,
    tenant: String,
    id: String,
    parent: Option<String>,
    parent_lsn: Option<String>,
    // Of what it is now. `0/0` and 0 if nobody can tell now.
    last_record_lsn: String,
    commit_lsn: String,
    disk_consistent_lsn: String,
    logical_size: u64,
    /// The endpoint that runs on it.
    endpoint: Option<String>,
    #[serde(skip)]
    remark: String,
}

pub fn status(cluster: &Cluster, format: Format) -> Result<()> {
    let status = collect(cluster)?;
    match format {
        Format::Json => output::answer(format, &status, String::new)?,
        Format::People => print_tables(&status),
    }
    Ok(())
}

fn collect(cluster: &Cluster) -> Result<Status> {
    let daemons = daemons::all(cluster);
    let (known, remark) = match catalogue::branches(cluster) {
        Ok(known) => (known, String::new()),
        // What runs is worth telling all the same.
        Err(error) => (Vec::new(), error.to_string()),
    };
    // All at once: one that hangs does not add to the others.
    let states: Vec<Result<DaemonState>> = std::thread::scope(|scope| {
        let asked: Vec<_> = daemons.iter().map(|daemon| scope.spawn(|| daemon.state(ANSWER_TIMEOUT))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap_or(Ok(DaemonState::Dead))).collect()
    });
    let mut processes = Vec::new();
    for endpoint in &cluster.settings.endpoints {
        processes.push(postgres(cluster, endpoint)?);
    }
    let (mut safekeepers, mut pageserver) = (Vec::new(), None);
    for (daemon, state) in daemons.iter().zip(states).rev() {
        let (pid, state, reply) = match state? {
            DaemonState::Dead => (None, "dead", None),
            DaemonState::Starting(process) => (Some(process.pid), "starting", None),
            DaemonState::Running(process, reply) => (Some(process.pid), "running", Some(reply)),
        };
        let counters = reply.as_ref().map(|reply| counters(&known, reply)).unwrap_or_default();
        match daemon.kind {
            daemons::Kind::Safekeeper => safekeepers.extend(reply),
            daemons::Kind::Pageserver => pageserver = reply,
        }
        processes.push(ProcessStatus {
            kind: daemon.kind.name(),
            name: daemon.name().to_string(),
            pid,
            state,
            listen: vec![daemon.peer.address.to_string()],
            data_dir: daemon.dir.clone(),
            log: daemon.log.clone(),
            read_only_at: None,
            counters,
            remark: String::new(),
        });
    }
    // Endpoints, pageserver, safekeepers in their order.
    let first_daemon = processes.len() - daemons.len();
    if let Some(safekeepers) = processes.get_mut(first_daemon + 1..) {
        safekeepers.reverse();
    }
    let branches = known.iter().map(|branch| branch_status(cluster, branch, &safekeepers, pageserver.as_ref())).collect();
    let followers = follow::all(cluster).iter().map(follow::Follower::status).collect();
    Ok(Status { processes, branches, followers, remark })
}

/// A daemon's own counters, and where its timelines stand in the form `flush_lsn:BRANCH` (of other tenants
/// `flush_lsn:TENANT/BRANCH`).
fn counters(known: &[Branch], reply: &StatusReply) -> BTreeMap<String, u64> {
    let mut counters: BTreeMap<_, _> = reply.counters.iter().cloned().collect();
    for branch in known {
        if let Some(timeline) = find(reply, branch.id) {
            let label = branch_label(&branch.tenant, &branch.name);
            counters.insert(format!("flush_lsn:{label}"), timeline.flush_lsn.0);
            counters.insert(format!("term:{label}"), timeline.term.0);
        }
    }
    counters
}

fn postgres(cluster: &Cluster, endpoint: &crate::cluster::Endpoint) -> Result<ProcessStatus> {
    let paths = Paths::of(cluster, endpoint);
    let state = EndpointState::read(&paths)?;
    let words = endpoint::phase_in_words(state.as_ref());
    let postmaster = state.as_ref().and_then(|state| state.postmaster.as_ref()).filter(|postmaster| postmaster.is_alive());
    Ok(ProcessStatus {
        kind: "postgres",
        name: endpoint.name.clone(),
        pid: postmaster.map(|postmaster| postmaster.pid),
        state: match words {
            "running" | "stopping" => "running",
            "starting" => "starting",
            _ => "dead",
        },
        listen: vec![cluster.endpoint_address(endpoint).to_string()],
        data_dir: state.as_ref().and_then(|state| state.data_dir.clone()).unwrap_or(paths.dir),
        log: paths.log,
        read_only_at: endpoint.at.map(|point| point.lsn.to_string()),
        counters: BTreeMap::new(),
        remark: match words {
            "running" if endpoint.at.is_some() => {
                format!("{} of {}", endpoint::shows(endpoint), branch_in_words(&endpoint.tenant, &endpoint.branch))
            }
            "running" | "stopped" => String::new(),
            other => format!("{other} {}", state.map(|state| state.message).unwrap_or_default()),
        },
    })
}

fn find(reply: &StatusReply, id: TimelineId) -> Option<&TimelineStatus> {
    reply.timelines.iter().find(|timeline| timeline.timeline == id)
}

fn branch_status(
    cluster: &Cluster,
    branch: &Branch,
    safekeepers: &[StatusReply],
    pageserver: Option<&StatusReply>,
) -> BranchStatus {
    let pages = pageserver.and_then(|reply| find(reply, branch.id)).cloned().unwrap_or_default();
    let kept = safekeepers.iter().filter_map(|reply| find(reply, branch.id));
    // One that no safekeeper has yet ends where it began.
    let committed = kept.map(|timeline| timeline.commit_lsn).max();
    let commit_lsn = committed.unwrap_or(if branch.safekeepers.is_empty() { branch.start_lsn } else { Lsn::INVALID });
    BranchStatus {
        name: branch.name.clone(),
        tenant: branch.tenant.clone(),
        id: branch.id.to_string(),
        parent: branch.parent.clone(),
        parent_lsn: branch.parent_lsn.map(|lsn| lsn.to_string()),
        last_record_lsn: pages.last_record_lsn.max(branch.last_record_lsn).to_string(),
        commit_lsn: commit_lsn.to_string(),
        disk_consistent_lsn: pages.disk_consistent_lsn.max(branch.disk_consistent_lsn).to_string(),
        logical_size: if pages.logical_size > 0 { pages.logical_size } else { branch.logical_size },
        endpoint: connstr::serving(cluster, &branch.tenant, &branch.name).map(|endpoint| endpoint.name.clone()),
        remark: if pages.stopped.is_empty() { String::new() } else { format!("ingest stopped: {}", pages.stopped) },
    }
}

fn print_tables(status: &Status) {
    println!("{:<11} {:<14} {:<8} {:<9} {:<22} LOG", "KIND", "NAME", "PID", "STATE", "LISTENS ON");
    for process in &status.processes {
        let pid = process.pid.map_or("-".into(), |pid| pid.to_string());
        let listen = process.listen.join(",");
        println!(
            "{:<11} {:<14} {pid:<8} {:<9} {listen:<22} {}",
            process.kind,
            process.name,
            process.state,
            process.log.display()
        );
        if !process.remark.is_empty() {
            println!("{:<11} {}", "", process.remark);
        }
    }
    println!();
    if !status.remark.is_empty() {
        println!("the branches are not known: {}", status.remark);
        return;
    }
    let label = |branch: &BranchStatus| branch_label(&branch.tenant, &branch.name);
    let width = status.branches.iter().map(|branch| label(branch).len()).max().unwrap_or(0).max(12);
    let parents = status.branches.iter().filter_map(|branch| branch.parent.as_ref()).map(String::len).max().unwrap_or(0).max(12);
    println!(
        "{:<width$} {:<32} {:<parents$} {:<14} {:<14} {:<14} {:>14} ENDPOINT",
        "BRANCH", "ID", "PARENT", "COMMIT", "INGESTED", "ON DISK", "BYTES"
    );
    for branch in &status.branches {
        println!(
            "{:<width$} {:<32} {:<parents$} {:<14} {:<14} {:<14} {:>14} {}",
            label(branch),
            branch.id,
            branch.parent.as_deref().unwrap_or("-"),
            branch.commit_lsn,
            branch.last_record_lsn,
            branch.disk_consistent_lsn,
            branch.logical_size,
            branch.endpoint.as_deref().unwrap_or("-")
        );
        if !branch.remark.is_empty() {
            println!("{:<width$} {}", "", branch.remark);
        }
    }
    print_followers(&status.followers);
}

fn print_followers(followers: &[FollowerStatus]) {
    if followers.is_empty() {
        return;
    }
    println!();
    println!(
        "{:<12} {:<8} {:<10} {:<14} {:<14} {:<14} {:>12} {:>9} SOURCE",
        "FOLLOWED", "PID", "STATE", "RECEIVED", "COMMITTED", "SOURCE AT", "LAG BYTES", "LAG"
    );
    for follower in followers {
        let pid = follower.pid.map_or("-".into(), |pid| pid.to_string());
        println!(
            "{:<12} {pid:<8} {:<10} {:<14} {:<14} {:<14} {:>12} {:>7} s {}",
            follower.tenant,
            follower.state,
            follower.received_lsn,
            follower.committed_lsn,
            follower.source_lsn,
            follower.lag_bytes,
            follower.lag_seconds,
            follower.source
        );
        if follower.state == "backup" {
            println!("{:<12} {} bytes copied", "", follower.backup_bytes);
        }
        if !follower.message.is_empty() {
            println!("{:<12} {}", "", follower.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_fields_and_order_that_scripts_rely_on() {
        let process = ProcessStatus {
            kind: "postgres",
            name: "main".into(),
            pid: Some(1),
            state: "running",
            listen: vec!["127.0.0.1:5432".into()],
            data_dir: "/d".into(),
            log: "/l".into(),
            read_only_at: None,
            counters: BTreeMap::from([("getpages".into(), 3)]),
            remark: "not shown".into(),
        };
        let branch = BranchStatus {
            name: "main".into(),
            tenant: "main".into(),
            id: "00".into(),
            parent: None,
            parent_lsn: None,
            last_record_lsn: "0/1".into(),
            commit_lsn: "0/1".into(),
            disk_consistent_lsn: "0/0".into(),
            logical_size: 1,
            endpoint: Some("main".into()),
            remark: String::new(),
        };
        let text = serde_json::to_string(&Status {
            processes: vec![process],
            branches: vec![branch],
            followers: Vec::new(),
            remark: "not shown".into(),
        })
        .unwrap();
        let wanted = concat!(
            r#"{"processes":[{"kind":"postgres","name":"main","pid":1,"state":"running","listen":["127.0.0.1:5432"],"data_dir":"/d","log":"/l","counters":{"getpages":3}}],"#,
            r#""branches":[{"name":"main","tenant":"main","id":"00","parent":null,"parent_lsn":null,"last_record_lsn":"0/1","commit_lsn":"0/1","#,
            r#""disk_consistent_lsn":"0/0","logical_size":1,"endpoint":"main"}],"followers":[]}"#
        );
        assert_eq!(text, wanted);
    }
}
