//! The first start of a branch: its timeline comes to the safekeepers, some of which are away or die meanwhile.

use crate::crash::lsn;
use ironpage_tests::{Cluster, Outcome, Process, eventually, signal, wait_until};
use serde_json::Value;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// A cluster with table t on main: numbers from 1 to 1000.
fn with_table(name: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.sql("create table t(i bigint primary key)");
    cluster.sql("insert into t select generate_series(1, 1000)");
    cluster
}

fn start(cluster: &Cluster, branch: &str) {
    cluster.must(&["endpoint", "start", branch, "--branch", branch]);
}

fn stop(cluster: &Cluster, endpoint: &str) {
    cluster.must(&["endpoint", "stop", endpoint]);
}

fn count(cluster: &Cluster, endpoint: &str) -> String {
    cluster.sql_on(endpoint, "select count(*) || ' ' || max(i) from t")
}

/// The branch as `branch list` tells of it.
fn listed(cluster: &Cluster, name: &str) -> Value {
    let all = cluster.json(&["branch", "list"]);
    let found = all.as_array().unwrap().iter().find(|branch| branch["name"] == name);
    found.unwrap_or_else(|| panic!("no branch {name} in {all}")).clone()
}

/// The safekeepers that were given the branch, as far as the metadata knows.
fn members(cluster: &Cluster, name: &str) -> Vec<u64> {
    listed(cluster, name)["safekeepers"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

/// Where a safekeeper has the branch's files, if it does.
fn files_at(safekeeper: &Process, id: &str) -> Option<PathBuf> {
    let tenants = std::fs::read_dir(&safekeeper.data_dir).unwrap().flatten();
    tenants.map(|tenant| tenant.path().join(id)).find(|path| path.is_dir())
}

/// Starts an endpoint of the branch's name without waiting for it.
fn start_in_background(cluster: &Cluster, branch: &str) -> Child {
    let mut command = Command::new(Cluster::program("ironpage"));
    command.arg("--dir").arg(&cluster.dir).args(["endpoint", "start", branch, "--branch", branch]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("running ironpage")
}

fn log_of(cluster: &Cluster, endpoint: &str) -> String {
    let log = std::fs::read(cluster.dir.join(format!("logs/postgres-{endpoint}.log"))).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Starts a safekeeper by itself, and waits until it listens.
fn start_again(command: &mut Command, safekeeper: &Process) -> Child {
    let child = command.spawn().expect("starting the safekeeper");
    let address = safekeeper.listen.first().unwrap_or_else(|| panic!("{safekeeper:?} listens nowhere"));
    wait_until("the safekeeper listens", MINUTE, || TcpStream::connect(address).is_ok());
    child
}

fn end(mut child: Child) {
    signal(child.id() as i32, libc::SIGTERM);
    child.wait().expect("the safekeeper ends when asked to");
}

fn segment_start(position: u64) -> String {
    let start = position & !0xFF_FFFF;
    format!("{:X}/{:X}", start >> 32, start & 0xFFFF_FFFF)
}

/// Where the records that pg_waldump reads begin, from the start of `from`'s segment to the end of what is written.
fn records(cluster: &Cluster, endpoint: &str, from: u64) -> Vec<u64> {
    let until = cluster.sql_on(endpoint, "select pg_current_wal_flush_lsn()");
    let wal = cluster.process("postgres", endpoint).data_dir.join("pg_wal");
    let mut waldump = Command::new(Path::new("/usr/lib/postgresql/15/bin/pg_waldump"));
    let output =
        waldump.arg("-p").arg(&wal).args(["-s", &segment_start(from), "-e", &until]).output().expect("running pg_waldump");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "pg_waldump of {} up to {until}: {said}", wal.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| Some(lsn(line.split_once("lsn: ")?.1.split_once(',')?.0))).collect()
}

#[test]
fn a_branch_is_written_restarted_and_its_wal_reads_across_its_start() {
    let cluster = with_table("start-branch");
    cluster.must(&["branch", "create", "dev"]);
    cluster.sql("insert into t select generate_series(1001, 1500)");
    assert!(members(&cluster, "dev").is_empty());
    start(&cluster, "dev");
    assert_eq!(members(&cluster, "dev"), [1, 2, 3]);
    assert_eq!(count(&cluster, "dev"), "1000 1000");
    cluster.sql_on("dev", "insert into t select generate_series(2001, 2100)");
    let branch_point = lsn(listed(&cluster, "dev")["start_lsn"].as_str().unwrap());
    let across = |endpoint: &str| {
        let records = records(&cluster, endpoint, branch_point);
        assert!(records.iter().any(|record| *record < branch_point), "none before {branch_point:X}: {records:X?}");
        assert!(records.iter().filter(|record| **record >= branch_point).count() > 100, "{records:X?}");
    };
    across("dev");

    // Again, and again after a crash.
    stop(&cluster, "dev");
    start(&cluster, "dev");
    across("dev");
    cluster.sql_on("dev", "insert into t select generate_series(2101, 2200)");
    let postmaster = cluster.process("postgres", "dev");
    cluster.kill(&postmaster);
    eventually("endpoint dev is back", MINUTE, || cluster.try_sql_on("dev", "postgres", "select 1").ok());
    assert_eq!(count(&cluster, "dev"), "1200 2200");
    assert_eq!(count(&cluster, "main"), "1500 1500");
    across("dev");

    // A branch of it, one of that which was never written, and one of that: all the way up for the WAL.
    cluster.must(&["branch", "create", "two", "--from", "dev"]);
    cluster.must(&["branch", "create", "three", "--from", "two"]);
    cluster.must(&["branch", "create", "four", "--from", "three"]);
    start(&cluster, "four");
    assert_eq!(count(&cluster, "four"), "1200 2200");
    assert!(members(&cluster, "two").is_empty() && members(&cluster, "three").is_empty());
    cluster.sql_on("four", "insert into t select generate_series(3001, 3100)");
    across("four");
    start(&cluster, "two");
    assert_eq!(count(&cluster, "two"), "1200 2200");
    across("two");
    // Segments later.
    cluster.sql_on("two", "select pg_switch_wal()");
    cluster.sql_on("two", "insert into t select generate_series(4001, 4100)");
    stop(&cluster, "two");
    start(&cluster, "two");
    assert_eq!(count(&cluster, "two"), "1300 4100");
}

#[test]
fn a_safekeeper_that_dies_during_the_first_start_costs_nothing() {
    let cluster = with_table("start-dying");
    for (round, delay) in [0, 40, 90, 150, 220, 300].into_iter().enumerate() {
        let branch = format!("b{round}");
        cluster.must(&["branch", "create", &branch]);
        let victim = cluster.nth("safekeeper", round % 3);
        let mut starting = start_in_background(&cluster, &branch);
        std::thread::sleep(Duration::from_millis(delay));
        cluster.kill(&victim);
        assert!(starting.wait().unwrap().success(), "{}", log_of(&cluster, &branch));
        assert_eq!(count(&cluster, &branch), "1000 1000");
        cluster.sql_on(&branch, "insert into t select generate_series(2001, 2100)");
        assert!(members(&cluster, &branch).len() >= 2);
        // The safekeeper comes back, has what it lacks at the next start, and one of the others may go.
        cluster.start();
        stop(&cluster, &branch);
        start(&cluster, &branch);
        assert_eq!(members(&cluster, &branch), [1, 2, 3]);
        cluster.sql_on(&branch, "insert into t values (2101)");
        let other = cluster.nth("safekeeper", (round + 1) % 3);
        let id = cluster.branch(&branch).id;
        let flushed = |number: usize| files_at(&cluster.nth("safekeeper", number), &id).is_some();
        assert!((0..3).all(flushed));
        cluster.kill(&other);
        cluster.sql_on(&branch, "insert into t values (2102)");
        cluster.must(&["endpoint", "stop", &branch]);
        start(&cluster, &branch);
        assert_eq!(count(&cluster, &branch), "1102 2102");
        stop(&cluster, &branch);
        cluster.start();
    }
}

#[test]
fn a_safekeeper_that_was_away_is_given_the_branch_at_a_later_start() {
    let cluster = with_table("start-away");
    cluster.must(&["branch", "create", "dev"]);
    let (second, third) = (cluster.nth("safekeeper", 1), cluster.nth("safekeeper", 2));
    let (mut second_again, mut third_again) = (cluster.command_of(&second), cluster.command_of(&third));
    cluster.kill(&second);
    cluster.kill(&third);

    // One of three is no quorum: nothing is begun, nobody is registered, and the reason stands in the log.
    let mut starting = start_in_background(&cluster, "dev");
    eventually("the endpoint says what it lacks", MINUTE, || log_of(&cluster, "dev").contains("no quorum").then_some(()));
    assert!(members(&cluster, "dev").is_empty());
    let second_again = start_again(&mut second_again, &second);
    assert!(starting.wait().unwrap().success(), "{}", log_of(&cluster, "dev"));
    assert_eq!(members(&cluster, "dev"), [1, 2]);
    cluster.sql_on("dev", "insert into t select generate_series(2001, 2100)");

    // Back, but not given the branch: it is none of those that may acknowledge.
    let third_again = start_again(&mut third_again, &third);
    cluster.sql_on("dev", "insert into t values (2101)");
    let id = cluster.branch("dev").id;
    assert_eq!(files_at(&third, &id), None);
    stop(&cluster, "dev");
    start(&cluster, "dev");
    assert_eq!(members(&cluster, "dev"), [1, 2, 3]);
    assert!(files_at(&third, &id).is_some());
    cluster.sql_on("dev", "insert into t values (2102)");

    // It has caught up: it and one other are enough for everything.
    let first = cluster.nth("safekeeper", 0);
    cluster.kill(&first);
    cluster.sql_on("dev", "insert into t values (2103)");
    stop(&cluster, "dev");
    start(&cluster, "dev");
    assert_eq!(count(&cluster, "dev"), "1103 2103");
    stop(&cluster, "dev");
    [second_again, third_again].into_iter().for_each(end);
}

#[test]
fn a_member_that_lost_its_disk_is_not_begun_again() {
    let cluster = with_table("start-lost");
    cluster.must(&["branch", "create", "dev"]);
    start(&cluster, "dev");
    let third = cluster.nth("safekeeper", 2);
    let mut third_again = cluster.command_of(&third);
    cluster.kill(&third);
    cluster.sql_on("dev", "insert into t select generate_series(2001, 2100)");
    stop(&cluster, "dev");
    let id = cluster.branch("dev").id;
    std::fs::remove_dir_all(files_at(&third, &id).unwrap()).unwrap();
    let third_again = start_again(&mut third_again, &third);

    start(&cluster, "dev");
    assert_eq!(count(&cluster, "dev"), "1100 2100");
    assert_eq!(files_at(&third, &id), None, "an empty one would outvote what was acknowledged");
    // So the other two are needed, both.
    let first = cluster.nth("safekeeper", 0);
    let mut first_again = cluster.command_of(&first);
    cluster.kill(&first);
    let mut session = cluster.session_on("dev");
    assert_eq!(session.run("insert into t values (2101)", Duration::from_secs(2)), Outcome::Waiting);
    let first_again = start_again(&mut first_again, &first);
    assert_eq!(session.answer(MINUTE), Outcome::Success(String::new()));
    assert_eq!(count(&cluster, "dev"), "1101 2101");
    stop(&cluster, "dev");
    [first_again, third_again].into_iter().for_each(end);
}

#[test]
fn a_branch_starts_while_its_parent_has_no_primary() {
    let cluster = with_table("start-orphan");
    cluster.sql("insert into t select generate_series(1001, 1100)");
    cluster.must(&["branch", "create", "dev"]);
    // What the safekeepers know to be committed is persisted now and then: killed, they know less than they promised.
    cluster.must(&["endpoint", "stop", "main", "--immediate"]);
    let mut again = Vec::new();
    for number in 0..3 {
        let safekeeper = cluster.nth("safekeeper", number);
        let mut command = cluster.command_of(&safekeeper);
        cluster.kill(&safekeeper);
        again.push(start_again(&mut command, &safekeeper));
    }
    start(&cluster, "dev");
    assert_eq!(count(&cluster, "dev"), "1100 1100");
    cluster.sql_on("dev", "insert into t values (2001)");
    stop(&cluster, "dev");
    again.into_iter().for_each(end);
}

#[test]
fn an_endpoint_whose_branch_is_gone_stops_and_says_so() {
    let cluster = with_table("start-gone");
    cluster.must(&["branch", "create", "short", "--ttl", "5s"]);
    start(&cluster, "short");
    assert_eq!(count(&cluster, "short"), "1000 1000");
    let id = cluster.branch("short").id;
    let has_failed =
        || cluster.must(&["endpoint", "list"]).lines().any(|line| line.starts_with("short ") && line.contains(" failed "));
    wait_until("the endpoint of the expired branch has failed", MINUTE, has_failed);
    assert!(log_of(&cluster, "short").contains("branch 'short' is gone"), "{}", log_of(&cluster, "short"));
    let output = cluster.ironpage(&["endpoint", "start", "short"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("short"), "{said}");
    // Its WAL is gone everywhere, and main's is not.
    wait_until("its files are gone", MINUTE, || (0..3).all(|n| files_at(&cluster.nth("safekeeper", n), &id).is_none()));
    cluster.sql("insert into t values (5000)");
    assert_eq!(count(&cluster, "main"), "1001 5000");
}
