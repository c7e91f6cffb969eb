//! The first start of a branch: its timeline is made at the safekeepers, with the WAL before it.
//!
//! A branch is metadata and a timeline of the pageserver; no safekeeper hears of it before it is to be written. Then each
//! safekeeper gets its timeline, which begins at the branch point X with the WAL of X's segment up to X, so that the segment
//! reads from its start on like any other.
//!
//! **No acknowledged commit is lost by this.** A member of an election that had acknowledged WAL and comes back empty would
//! let a quorum win that does not have that WAL. So what must never happen is that a safekeeper which took part, and lost its
//! disk, is given the timeline again: it has to answer NotFound until somebody replaces it knowingly. What keeps it so:
//!
//! 1. The metadata holds, durably, the set of safekeepers that were given the timeline. Elections, and the Postgres that
//!    follows one, use the members of that set and no others; the set never shrinks. Nobody stands for election before
//!    the set it uses is durable and has a quorum of all safekeepers. So a safekeeper outside the set has acknowledged nothing.
//! 2. Only safekeepers outside the set are given the timeline. The set that is asked for this is read *after* the connection
//!    over which the creation goes was answered: between that reading and the creation the same process runs at the other
//!    end, on the same disk. If it was not in the set then, it had acknowledged nothing that its disk could have lost; if it
//!    takes part by now, because another launcher was faster, it has its files, and the creation is a repeat that changes
//!    nothing. Without that order a launcher that slept could empty a member which lost its disk meanwhile.
//! 3. A larger set keeps what a smaller one promised. Sets have two or three of three members, quorums of both have two, so
//!    any two of them share a member: a new term is won with one that has all that was acknowledged before, and fences the old.
//!    What was made here and not registered, because this process or the pageserver ended in between, is empty, votes
//!    nowhere, and is made again without effect.
//!
//! A safekeeper that is away at the first start is given the timeline at a later one; until then two of two must answer.

use super::settled;
use crate::api::{Api, ApiCode, Branch, BranchState, Kind, Member};
use crate::client::{Client, Identity, Peer};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::log;
use crate::place::Place;
use crate::safekeeper::{self, Start};
use ironpage_layout::Lsn;
use std::time::Duration;

/// How long a safekeeper may take to answer a hello.
const CONNECT: Duration = Duration::from_secs(1);
/// How long the pageserver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line of ancestors that is followed.
const ANCESTORS_MAX: usize = 10_000;

/// The safekeepers that keep the branch's timeline, a quorum of all at least. Those it can be given are given it first.
pub fn members(cluster: &Cluster, place: &Place) -> Result<Vec<Peer>> {
    let all: Vec<(Member, Peer)> = (1..).zip(cluster.safekeepers()).collect();
    refuse_read_only(&place.branch)?;
    if all.iter().all(|(id, _)| place.branch.safekeepers.contains(id)) {
        return Ok(all.into_iter().map(|(_, peer)| peer).collect());
    }
    let mut trouble = Vec::new();
    // Before the set is read: see the module.
    let strangers = all.iter().filter(|(id, _)| !place.branch.safekeepers.contains(id));
    let connected = each(strangers, &mut trouble, |(id, peer)| Ok((*id, safekeeper::connect(peer, place.identity(), CONNECT)?)));
    let branch = present(cluster, place)?;
    let candidates: Vec<_> = connected.into_iter().filter(|(id, _)| !branch.safekeepers.contains(id)).collect();
    let made = give(cluster, place, &branch, candidates, &mut trouble);

    let set: Vec<Member> = branch.safekeepers.iter().chain(&made).copied().collect();
    let quorum = all.len() / 2 + 1;
    if set.len() < quorum {
        return Err(Error::NoQuorum {
            branch: branch.name.clone(),
            answered: set.len(),
            members: all.len(),
            needed: quorum,
            reasons: format!("The branch was never written, and is to be made at the others: {}", trouble.join("; ")),
        });
    }
    if !made.is_empty() {
        register(cluster, place, &branch, &made)?;
        let names: Vec<_> = made.iter().map(|id| format!("safekeeper-{id}")).collect();
        log::line("INFO", &format!("branch '{}' begins at {} on {}", branch.name, branch.start_lsn, names.join(", ")));
    }
    if !trouble.is_empty() {
        let text =
            format!("branch '{}' is not on all safekeepers, a later start tries again: {}", branch.name, trouble.join("; "));
        log::line("WARN", &text);
    }
    Ok(all.into_iter().filter(|(id, _)| set.contains(id)).map(|(_, peer)| peer).collect())
}

/// The branch as it is now, by its id; an error that says so if it is gone.
pub fn present(cluster: &Cluster, place: &Place) -> Result<Branch> {
    let (tenant, id) = (place.tenant.to_string(), place.branch.id.to_string());
    match api(cluster).branch(&tenant, &id) {
        Ok(branch) if branch.state == BranchState::Deleting => Err(Error::BranchGone(branch.name)),
        Err(Error::Api { code: ApiCode::NotFound, .. }) => Err(Error::BranchGone(place.branch.name.clone())),
        found => found,
    }
}

fn api(cluster: &Cluster) -> Api {
    Api::with_patience(cluster.pageserver_http(), PATIENCE)
}

fn refuse_read_only(branch: &Branch) -> Result<()> {
    let why = match branch.kind {
        Kind::Branch | Kind::Backup => return Ok(()),
        Kind::Snapshot => "is the lease of a read-only endpoint",
        Kind::Follow => "follows another server",
    };
    let name = &branch.name;
    Err(Error::Refused(format!(
        "branch '{name}' {why}, nobody writes to it: `ironpage branch create NAME --from {name}` makes one that can be written"
    )))
}

/// Makes the timeline at all of `candidates`; the ids of those that have it now.
fn give(
    cluster: &Cluster,
    place: &Place,
    branch: &Branch,
    candidates: Vec<(Member, Client)>,
    trouble: &mut Vec<String>,
) -> Vec<Member> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let wal = match prefix(cluster, place, branch) {
        Ok(wal) => wal,
        Err(error) => {
            trouble.push(error.to_string());
            return Vec::new();
        }
    };
    let start = Start { lsn: branch.start_lsn, prev_record_lsn: branch.prev_record_lsn };
    each(candidates, trouble, |(id, client)| {
        safekeeper::create_timeline(client, place.identity(), &branch.name, start, &wal)?;
        Ok(id)
    })
}

/// Makes durable who has the timeline.
fn register(cluster: &Cluster, place: &Place, branch: &Branch, made: &[Member]) -> Result<()> {
    match api(cluster).add_safekeepers(&place.tenant.to_string(), &branch.id.to_string(), made) {
        Err(Error::Api { code: ApiCode::NotFound, .. }) => {
            // Deleted meanwhile, and its id never comes again: what was made just now would stay for ever.
            for peer in cluster.safekeepers() {
                if let Err(error) = safekeeper::delete_timeline(&peer, place.identity()) {
                    log::line("WARN", &format!("timeline {} may be left over: {error}", branch.id));
                }
            }
            Err(Error::BranchGone(branch.name.clone()))
        }
        done => done,
    }
}

/// The WAL from the start of the branch point's segment to the branch point.
fn prefix(cluster: &Cluster, place: &Place, branch: &Branch) -> Result<Vec<u8>> {
    let (from, until) = (branch.start_lsn.segment_start(), branch.start_lsn);
    if from == until {
        return Ok(Vec::new());
    }
    let tenant = place.tenant.to_string();
    let mut reasons = Vec::new();
    let mut source = branch.clone();
    let quorum = cluster.safekeepers().len() / 2 + 1;
    for _ in 0..ANCESTORS_MAX {
        let identity = Identity { timeline: source.id, ..place.identity() };
        let peers: Vec<_> =
            (1..).zip(cluster.safekeepers()).filter(|(id, _)| source.safekeepers.contains(id)).map(|(_, peer)| peer).collect();
        if peers.is_empty() {
            reasons.push(format!("'{}' was never written", source.name));
        } else {
            match settled::read(&peers, quorum, identity, from, until) {
                Ok(wal) => return Ok(wal),
                Err(error) => reasons.push(format!("'{}': {error}", source.name)),
            }
        }
        // A timeline that begins before the branch point has the WAL that leads there; its own ancestors have another.
        let parent = source.parent_id.filter(|_| source.start_lsn == until);
        let Some(parent) = parent else { break };
        source = api(cluster).branch(&tenant, &parent.to_string())?;
    }
    Err(no_prefix(branch, from, &reasons))
}

fn no_prefix(branch: &Branch, from: Lsn, reasons: &[String]) -> Error {
    let text = format!(
        "the WAL from {from} to {}, where branch '{}' begins, cannot be had: {}",
        branch.start_lsn,
        branch.name,
        reasons.join("; ")
    );
    Error::Endpoint(text)
}

/// Does `what` with all of `items` at once. What failed goes into `trouble`.
fn each<I: Send, O: Send>(
    items: impl IntoIterator<Item = I>,
    trouble: &mut Vec<String>,
    what: impl Fn(I) -> Result<O> + Sync,
) -> Vec<O> {
    let what = &what;
    let results: Vec<Result<O>> = std::thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || what(item))).collect();
        let ended = |_| Err(Error::Endpoint("a thread of the creation panicked".into()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(ended)).collect()
    });
    let mut done = Vec::new();
    for result in results {
        match result {
            Ok(output) => done.push(output),
            Err(error) => trouble.push(error.to_string()),
        }
    }
    done
}
