//! Branches and time, through the command line and SQL alone.

mod depth;
mod faults;
mod midst;
mod names;
mod points;
mod rewind;
mod tenants;
mod verbs;

use crate::load::check_on;
use ironpage_tests::{Cluster, Session};
use std::process::Child;

/// A commit of one session that nobody else's commits are told apart from: number, and what was true right after it.
#[derive(Clone, Debug)]
struct Commit {
    number: u64,
    /// Some place in the WAL after its commit record and before the next one of this session.
    lsn: String,
    /// RFC 3339, UTC, microseconds: after its commit, before the next one of this session.
    time: String,
}

/// A client that commits one number after another and takes down where and when.
struct Ledger {
    session: Session,
    commits: Vec<Commit>,
}

impl Ledger {
    fn on(cluster: &Cluster, endpoint: &str) -> Ledger {
        let mut session = cluster.session_on(endpoint);
        session.must("create table if not exists ledger(number bigint primary key, filler text)");
        Ledger { session, commits: Vec::new() }
    }

    fn commit(&mut self) -> &Commit {
        let number = self.commits.last().map_or(1, |commit| commit.number + 1);
        self.session.must(&format!("insert into ledger values ({number}, repeat('x', 200))"));
        let noted = self.session.must(
            "select pg_current_wal_insert_lsn() || ' ' || \
             to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        );
        let (lsn, time) = noted.split_once(' ').unwrap_or_else(|| panic!("noted {noted}"));
        self.commits.push(Commit { number, lsn: lsn.into(), time: time.into() });
        self.commits.last().unwrap()
    }

    fn commits(&mut self, count: usize) {
        (0..count).for_each(|_| {
            self.commit();
        });
    }
}

/// Exactly the numbers up to `last` are in the ledger that endpoint shows.
fn assert_ledger(cluster: &Cluster, endpoint: &str, last: u64) {
    let shown = cluster
        .sql_on(endpoint, "select count(*) || ' ' || coalesce(min(number), 0) || ' ' || coalesce(max(number), 0) from ledger");
    let first = u64::from(last > 0);
    assert_eq!(shown, format!("{last} {first} {last}"), "the ledger on endpoint {endpoint}");
}

/// pgbench on endpoint main until dropped.
struct Load(Child);

impl Load {
    fn on_main(cluster: &Cluster) -> Load {
        Load(cluster.pgbench_start(&["-n", "-c", "4", "-T", "600"]))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster with pgbench's tables and the checkers of [`check_on`].
fn with_pgbench(name: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.sql("create extension amcheck; create extension pg_visibility");
    cluster.pgbench(&["-i", "-q", "-s", "3"]);
    cluster
}

/// Starts an endpoint of the branch's own name on it.
fn start(cluster: &Cluster, branch: &str) {
    cluster.must(&["endpoint", "start", branch, "--branch", branch]);
}

fn stop(cluster: &Cluster, endpoint: &str) {
    cluster.must(&["endpoint", "stop", endpoint]);
}
