//! Read-only endpoints beside a primary that is at work, and what happens to them.

use super::{digest, lsn, start_at};
use crate::amount;
use ironpage_tests::{Cluster, Outcome, Process, alive, eventually, signal, wait_until};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// pgbench's books: all transfers add up at any moment.
const BOOKS: &str = "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history), \
    (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history), \
    (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)";

#[test]
fn several_moments_beside_a_primary_under_load() {
    let cluster = Cluster::up("beside");
    cluster.pgbench(&["-i", "-q", "-s", "2"]);
    cluster.sql("create table log(n int primary key)");
    let seconds = amount(20, 120);
    let mut load = cluster.pgbench_start(&["-c", "4", "-j", "2", "-T", &seconds.to_string()]);

    // The only one who writes to the log knows what was in it at its own commits.
    let mut noted = Vec::new();
    for n in 1..=amount(40, 400) {
        cluster.sql(&format!("insert into log values ({n})"));
        noted.push((n, lsn(&cluster)));
    }
    let names = ["r1", "r2", "r3", "r4"];
    let chosen: Vec<_> = [0, noted.len() / 3, noted.len() * 2 / 3, noted.len() - 1].map(|index| noted[index].clone()).to_vec();
    for (name, (_, at)) in names.iter().zip(&chosen) {
        start_at(&cluster, name, at);
    }
    let mut histories = Vec::new();
    for (name, (n, at)) in names.iter().zip(&chosen) {
        assert_eq!(cluster.sql_on(name, "select count(*), max(n) from log"), format!("{n}|{n}"), "{name} at {at}");
        assert_eq!(cluster.sql_on(name, BOOKS), "t|t|t", "{name} at {at}");
        histories.push(cluster.sql_on(name, "select count(*) from pgbench_history").parse::<u64>().unwrap());
    }
    assert!(histories.is_sorted(), "{histories:?}");
    load.wait().expect("pgbench ends");
    for (name, history) in names.iter().zip(&histories) {
        let now: u64 = cluster.sql_on(name, "select count(*) from pgbench_history").parse().unwrap();
        assert_eq!(now, *history, "{name} stays where it is");
    }
    assert_eq!(cluster.sql(BOOKS), "t|t|t");
}

#[test]
fn a_read_only_endpoint_comes_back_where_it_was() {
    let cluster = Cluster::up("comes-back");
    cluster.sql("create table t as select g id, md5(g::text) word from generate_series(1, 30000) g");
    let (then, at) = (digest(&cluster, "main"), lsn(&cluster));
    cluster.sql("update t set word = 'new'");
    start_at(&cluster, "past", &at);
    assert_eq!(digest(&cluster, "past"), then);

    // Its postmaster is killed.
    let before = cluster.process("postgres", "past");
    cluster.kill(&before);
    eventually("it answers again", MINUTE, || cluster.try_sql_on("past", "postgres", "select 1").ok());
    assert_ne!(cluster.process("postgres", "past").data_dir, before.data_dir, "in a new directory");
    assert_eq!(digest(&cluster, "past"), then);

    // A backend is killed.
    let mut session = cluster.session_on("past");
    let backend: i32 = session.must("select pg_backend_pid()").parse().unwrap();
    signal(backend, libc::SIGKILL);
    drop(session);
    eventually("it answers again", MINUTE, || {
        let pid = cluster.process("postgres", "past").pid;
        (pid.is_some() && pid != before.pid && cluster.try_sql_on("past", "postgres", "select 1").is_ok()).then_some(())
    });
    assert_eq!(digest(&cluster, "past"), then);

    // The pageserver is killed: reads wait for it.
    let pageserver = cluster.nth("pageserver", 0);
    cluster.kill(&pageserver);
    let mut waiting = cluster.session_on("past");
    waiting.send("select count(*), count(distinct word) from t");
    cluster.start();
    assert_eq!(waiting.answer(MINUTE), Outcome::Success("30000|30000".into()));

    // No safekeeper is needed to read history that a snapshot holds.
    for number in 0..3 {
        cluster.kill(&cluster.nth("safekeeper", number));
    }
    let before = cluster.process("postgres", "past");
    cluster.kill(&before);
    eventually("it answers again", MINUTE, || {
        let pid = cluster.process("postgres", "past").pid;
        (pid != before.pid && cluster.try_sql_on("past", "postgres", "select 1").is_ok()).then_some(())
    });
    assert_eq!(digest(&cluster, "past"), then);
    cluster.start();

    // Without --at it shows what it showed before.
    cluster.must(&["endpoint", "stop", "past"]);
    cluster.must(&["endpoint", "start", "past"]);
    assert_eq!(digest(&cluster, "past"), then);

    // The whole cluster goes down and comes up.
    cluster.must(&["down"]);
    cluster.start();
    cluster.must(&["endpoint", "start", "past"]);
    assert_eq!(digest(&cluster, "past"), then);
    assert_eq!(cluster.sql("select count(*) from t where word = 'new'"), "30000");
}

#[test]
fn a_branch_that_is_being_read_is_not_deleted() {
    let cluster = Cluster::up("lease");
    cluster.sql("create table t as select 1 i");
    cluster.must(&["branch", "create", "dev"]);
    cluster.must(&["endpoint", "start", "dev", "--branch", "dev"]);
    cluster.sql_on("dev", "update t set i = 2");
    let at = cluster.sql_on("dev", "select pg_current_wal_insert_lsn()");
    cluster.sql_on("dev", "update t set i = 3");
    cluster.must(&["endpoint", "start", "past", "--branch", "dev", "--at", &at]);
    assert_eq!(cluster.sql_on("past", "select i from t"), "2");
    cluster.must(&["endpoint", "stop", "dev"]);
    let said = cluster.must_fail(1, &["branch", "delete", "dev"]);
    assert!(said.contains("endpoint stop past"), "{said}");
    assert_eq!(cluster.sql_on("past", "select i from t"), "2");

    // Its lease holds on for a while if nobody could give it back.
    let past = cluster.process("postgres", "past").pid.expect("it runs");
    let supervisor = parent(past);
    signal(supervisor, libc::SIGKILL);
    wait_until("both are gone", MINUTE, || !alive(supervisor) && !alive(past));
    let said = cluster.must_fail(1, &["branch", "delete", "dev"]);
    assert!(said.contains("at-past"), "{said}");
    cluster.must(&["endpoint", "start", "past"]);
    assert_eq!(cluster.sql_on("past", "select i from t"), "2");
    cluster.must(&["endpoint", "stop", "past"]);
    cluster.must(&["branch", "delete", "dev"]);
    assert!(!cluster.must(&["endpoint", "list"]).contains("past"), "it goes with its branch");
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a parent")
}

/// Regular files below the cluster that the processes of an endpoint have open, but for what all share by design.
fn open_files(cluster: &Cluster, postgres: &Process) -> BTreeSet<PathBuf> {
    let postmaster = postgres.pid.expect("it runs");
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
    let pids = children.split_whitespace().map(str::to_string).chain([postmaster.to_string()]);
    let links = pids.flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten());
    links.filter_map(|link| std::fs::read_link(link.path()).ok()).filter(|path| path.starts_with(&cluster.dir)).collect()
}

fn sockets(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn endpoints_share_no_file() {
    let cluster = Cluster::up("apart");
    cluster.sql("create tablespace space location '/somewhere'");
    cluster.sql("create table t tablespace space as select g id from generate_series(1, 1000) g");
    let at = lsn(&cluster);
    cluster.must(&["branch", "create", "dev"]);
    cluster.must(&["endpoint", "start", "dev", "--branch", "dev"]);
    start_at(&cluster, "past", &at);
    cluster.must(&["endpoint", "start", "older", "--branch", "dev", "--at", &at]);
    let names = ["main", "dev", "past", "older"];
    cluster.sql_on("dev", "insert into t select 5");
    cluster.sql("delete from t");
    for (name, count) in names.iter().zip(["0", "1001", "1000", "1000"]) {
        assert_eq!(cluster.sql_on(name, "select count(*) from t"), count, "{name}");
    }
    let all: Vec<_> = names.iter().map(|name| cluster.process("postgres", name)).collect();
    let mut sessions: Vec<_> = names.iter().map(|name| cluster.session_on(name)).collect();
    for session in &mut sessions {
        session.must("select count(*) from t");
    }
    for (index, one) in all.iter().enumerate() {
        let files = open_files(&cluster, one);
        assert!(files.iter().any(|path| path.starts_with(&one.data_dir)), "{files:?}");
        let spaces: Vec<_> = std::fs::read_dir(one.data_dir.join("pg_tblspc")).unwrap().flatten().collect();
        assert_eq!(spaces.len(), 1);
        assert!(
            spaces.iter().all(|space| space.file_type().unwrap().is_dir()),
            "a tablespace is a directory inside the endpoint"
        );
        for other in &all[index + 1..] {
            assert_ne!((&one.data_dir, &one.log, &one.listen), (&other.data_dir, &other.log, &other.listen));
            assert!(one.data_dir != other.data_dir && one.log != other.log && one.listen != other.listen);
            let shared: Vec<_> = files.intersection(&open_files(&cluster, other)).cloned().collect();
            assert!(shared.is_empty(), "{} and {} share {shared:?}", one.name, other.name);
            let dirs = [one, other].map(|postgres| postgres.data_dir.parent().unwrap().join("socket"));
            assert!(dirs[0] != dirs[1] && dirs.iter().all(|dir| !sockets(dir).is_empty()), "{dirs:?}");
        }
    }
}
