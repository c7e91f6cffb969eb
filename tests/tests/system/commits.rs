//! Success is never reported for what is not on a quorum, whatever a client, an operator or a setting does.

use ironpage_tests::{Cluster, Outcome, signal, wait_until};
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(2);

/// A cluster with two of three safekeepers dead.
fn without_quorum(name: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.set_and_restart(&[("ironpage.fence_after_ms", "600000")]);
    cluster.sql("create table t(i int primary key)");
    let both = [cluster.nth("safekeeper", 0), cluster.nth("safekeeper", 1)];
    both.iter().for_each(|safekeeper| cluster.kill(safekeeper));
    cluster
}

fn assert_no_success(what: &str, outcome: Outcome) {
    assert!(!matches!(outcome, Outcome::Success(_)), "{what}: {outcome:?}");
}

#[test]
fn neither_cancel_nor_terminate_nor_settings_report_success_early() {
    let cluster = without_quorum("commit-gate");
    let mut cancelled = cluster.session();
    let mut interrupted = cluster.session();
    let mut terminated = cluster.session();
    let mut gone = cluster.session();
    let mut local = cluster.session();
    let mut prepared = cluster.session();
    let pids: Vec<i32> = [&mut cancelled, &mut interrupted, &mut terminated, &mut gone]
        .map(|session| session.must("select pg_backend_pid()").parse().unwrap())
        .to_vec();
    local.must("set synchronous_commit = local");
    prepared.must("begin");
    cancelled.send("insert into t values (1)");
    interrupted.send("insert into t values (2)");
    terminated.send("insert into t values (3)");
    gone.send("insert into t values (4)");
    local.send("insert into t values (5)");
    prepared.must("insert into t values (6)");
    prepared.send("prepare transaction 'six'");
    let mut operator = cluster.session();
    let waiting = |count: usize| {
        let sql = "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and backend_type = 'client backend'";
        cluster.sql(sql).parse::<usize>().unwrap() >= count
    };
    wait_until("all six wait", Duration::from_secs(10), || waiting(6));

    operator.must(&format!("select pg_cancel_backend({})", pids[0]));
    signal(interrupted.client_pid(), libc::SIGINT);
    operator.must(&format!("select pg_terminate_backend({})", pids[2]));
    signal(gone.client_pid(), libc::SIGKILL);
    assert_no_success("pg_cancel_backend", cancelled.answer(SHORT));
    assert_no_success("Ctrl-C", interrupted.answer(SHORT));
    assert_no_success("pg_terminate_backend", terminated.answer(SHORT));
    assert_no_success("client killed", gone.answer(SHORT));
    assert_no_success("synchronous_commit = local", local.answer(SHORT));
    assert_no_success("PREPARE TRANSACTION", prepared.answer(SHORT));
    operator.must(&format!("select pg_cancel_backend({})", pids[0]));
    assert_no_success("pg_cancel_backend, twice", cancelled.answer(SHORT));

    // With the quorum back those that still wait are told, and told the truth.
    cluster.start();
    assert_eq!(local.answer(Duration::from_secs(60)), Outcome::Success(String::new()));
    assert_eq!(prepared.answer(Duration::from_secs(60)), Outcome::Success(String::new()));
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_eq!(cluster.sql("select count(*) from t where i = 5"), "1");
    cluster.sql("commit prepared 'six'");
    assert_eq!(cluster.sql("select count(*) from t where i = 6"), "1");
}

#[test]
fn commit_prepared_waits_for_the_quorum() {
    let cluster = Cluster::up("commit-prepared");
    cluster.set_and_restart(&[("ironpage.fence_after_ms", "600000")]);
    cluster.sql("create table t(i int primary key)");
    cluster.sql("begin; insert into t values (1); prepare transaction 'one'");
    cluster.sql("begin; insert into t values (2); prepare transaction 'two'");
    let both = [cluster.nth("safekeeper", 1), cluster.nth("safekeeper", 2)];
    both.iter().for_each(|safekeeper| cluster.kill(safekeeper));
    let mut one = cluster.session();
    assert_eq!(one.run("commit prepared 'one'", SHORT), Outcome::Waiting);
    let mut two = cluster.session();
    two.must("set synchronous_commit = local");
    assert_eq!(two.run("commit prepared 'two'", SHORT), Outcome::Waiting);
    cluster.start();
    assert_eq!(one.answer(Duration::from_secs(60)), Outcome::Success(String::new()));
    assert_eq!(two.answer(Duration::from_secs(60)), Outcome::Success(String::new()));
    assert_eq!(cluster.sql("select count(*) from t"), "2");
}

#[test]
fn synchronous_standby_names_cannot_be_emptied() {
    let cluster = Cluster::up("standby-names");
    let error = cluster.try_sql("alter system set synchronous_standby_names = ''").unwrap_err();
    assert!(error.contains("synchronous_standby_names"), "{error}");
    assert!(cluster.try_sql("alter system reset synchronous_standby_names").is_err());
    cluster.sql("select pg_reload_conf()");
    assert_eq!(cluster.sql("show synchronous_standby_names"), "walproposer");
}

#[test]
fn asynchronous_commits_survive_a_fast_stop() {
    let cluster = Cluster::up("async-stop");
    cluster.sql("create table t(i int)");
    let mut session = cluster.session();
    session.must("set synchronous_commit = off");
    for number in 0..500 {
        session.must(&format!("insert into t values ({number})"));
    }
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_eq!(cluster.sql("select count(*) from t"), "500");
}
