//! kill -9, of everything in turn; what a client was told stays true.

use crate::amount;
use ironpage_tests::{Cluster, Outcome, Session, alive, signal, wait_until};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Inserts numbers one transaction each until told to stop or cut off; those whose COMMIT was answered.
fn insert_until(stop: &AtomicBool, mut session: Session, first: u64) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match session.run(&format!("insert into acked values ({number})"), Duration::from_secs(20)) {
            Outcome::Success(_) => acknowledged.insert(number),
            _ => break,
        };
    }
    acknowledged
}

/// Has the clients stop, also when what disturbs them panics: they would be waited for in vain.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs four inserting clients while `disturb` runs; what they were told was committed.
pub fn commits_during(cluster: &Cluster, round: u64, disturb: impl FnOnce()) -> BTreeSet<u64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (session, stop) = (cluster.session(), &stop);
                scope.spawn(move || insert_until(stop, session, round * 10_000_000 + client * 1_000_000))
            })
            .collect();
        let stopping = Stopping(&stop);
        disturb();
        drop(stopping);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

pub fn assert_all_there(cluster: &Cluster, acknowledged: &BTreeSet<u64>) {
    let there: BTreeSet<u64> = cluster.sql("select i from acked").lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<_> = acknowledged.difference(&there).take(10).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?} ... of {}", acknowledged.len());
}

#[test]
fn no_acknowledged_commit_is_lost_when_the_postmaster_dies() {
    let cluster = Cluster::up("crash-postmaster");
    cluster.sql("create table acked(i bigint primary key)");
    let mut acknowledged = BTreeSet::new();
    for round in 1..=amount(4, 20) {
        let before = cluster.sql("select count(*) from acked").parse::<usize>().unwrap();
        let told = commits_during(&cluster, round, || {
            wait_until("some commits", Duration::from_secs(30), || {
                cluster.sql("select count(*) from acked").parse::<usize>().unwrap() > before + 200
            });
            let postgres = cluster.process("postgres", "main");
            cluster.kill(&postgres);
            let _ = std::fs::remove_dir_all(&postgres.data_dir);
        });
        assert!(!told.is_empty());
        acknowledged.extend(told);
        cluster.must(&["endpoint", "start", "main"]);
        cluster.wait_ready(Duration::from_secs(30));
        assert_all_there(&cluster, &acknowledged);
    }
}

#[test]
fn a_killed_backend_has_postgres_back_in_five_seconds() {
    let cluster = Cluster::up("crash-backend");
    cluster.sql("create table t as select generate_series(1, 1000) i");
    let mut session = cluster.session();
    let backend: i32 = session.must("select pg_backend_pid()").parse().unwrap();
    let postmaster = cluster.process("postgres", "main").pid.unwrap();
    signal(backend, libc::SIGKILL);
    wait_until("the old postmaster is gone", Duration::from_secs(5), || !alive(postmaster));
    wait_until("Postgres is back", Duration::from_secs(5), || cluster.try_sql("select 1").is_ok());
    assert_eq!(cluster.sql("select count(*) from t"), "1000");
}

#[test]
fn a_killed_pageserver_catches_up_while_cached_reads_go_on() {
    let cluster = Cluster::up("crash-pageserver");
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("create table cached as select g i, repeat('x', 100) pad from generate_series(1, 20000) g");
    cluster.sql("select count(*) from cached");
    let mut reader = cluster.session();
    let told = commits_during(&cluster, 1, || {
        for _ in 0..amount(2, 10) {
            cluster.kill(&cluster.nth("pageserver", 0));
            for _ in 0..50 {
                assert_eq!(reader.run("select count(*) from cached", Duration::from_secs(5)), Outcome::Success("20000".into()));
            }
            cluster.start();
            let commit = cluster.branch("main").commit_lsn;
            let caught_up = || lsn(&cluster.branch("main").last_record_lsn) >= lsn(&commit);
            wait_until("the pageserver caught up", Duration::from_secs(60), caught_up);
        }
    });
    assert!(told.len() > 100, "commits went on: {}", told.len());
    assert_all_there(&cluster, &told);
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_all_there(&cluster, &told);
    assert_eq!(cluster.sql("select count(*) from cached"), "20000");
}

pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("'{text}' is no LSN"));
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}
