//! What a read-only endpoint refuses, and which of them cannot be had.

use super::{lsn, start_at};
use ironpage_tests::{Cluster, eventually};
use std::time::Duration;

#[test]
fn writes_are_refused_in_the_words_of_postgres() {
    let cluster = Cluster::up("refused-writes");
    cluster.sql("create table t as select 1 i; create sequence s");
    cluster.sql("create tablespace space location '/x'");
    cluster.sql("begin; insert into t values (2); prepare transaction 'p'");
    let at = lsn(&cluster);
    cluster.sql("insert into t values (3)");
    start_at(&cluster, "past", &at);
    let cases = [
        ("insert into t values (4)", "cannot execute INSERT in a read-only transaction"),
        ("update t set i = 4", "cannot execute UPDATE in a read-only transaction"),
        ("delete from t", "cannot execute DELETE in a read-only transaction"),
        ("truncate t", "cannot execute TRUNCATE TABLE in a read-only transaction"),
        ("drop table t", "cannot execute DROP TABLE in a read-only transaction"),
        ("create table x()", "cannot execute CREATE TABLE in a read-only transaction"),
        ("create temp table x()", "cannot execute CREATE TABLE in a read-only transaction"),
        ("create unlogged table x()", "cannot execute CREATE TABLE in a read-only transaction"),
        ("create index on t(i)", "cannot execute CREATE INDEX in a read-only transaction"),
        ("select nextval('s')", "cannot execute nextval() in a read-only transaction"),
        ("select * from t for update", "cannot execute SELECT FOR UPDATE in a read-only transaction"),
        ("vacuum t", "cannot execute VACUUM during recovery"),
        ("commit prepared 'p'", "cannot execute COMMIT PREPARED during recovery"),
        ("begin; prepare transaction 'q'", "cannot execute PREPARE TRANSACTION during recovery"),
        ("create database d", "cannot execute CREATE DATABASE in a read-only transaction"),
        ("drop database template1", "cannot execute DROP DATABASE in a read-only transaction"),
        ("create tablespace y location '/y'", "cannot execute CREATE TABLESPACE in a read-only transaction"),
        ("alter database template1 set tablespace space", "cannot execute ALTER DATABASE in a read-only transaction"),
        ("set transaction read write", "cannot set transaction read-write mode during recovery"),
        ("lock table t in access exclusive mode", "cannot execute LOCK TABLE during recovery"),
        ("select txid_current()", "during recovery"),
        ("select pg_switch_wal()", "recovery is in progress"),
        ("checkpoint; select pg_create_restore_point('x')", "recovery is in progress"),
        ("select pg_promote()", "a read-only endpoint cannot be promoted"),
        ("do $$ begin perform pg_promote(false); end $$", "a read-only endpoint cannot be promoted"),
    ];
    for (sql, wanted) in cases {
        let said = cluster.try_sql_on("past", "postgres", sql).expect_err(sql);
        assert!(said.contains(wanted), "{sql}: {said}");
        assert!(!said.contains("NOTICE"), "{sql}: {said}");
    }
    assert_eq!(cluster.sql_on("past", "select i from t"), "1");
    assert_eq!(cluster.sql("select string_agg(i::text, ',' order by i) from t"), "1,3");
}

#[test]
fn a_promotion_by_other_means_ends_in_a_fresh_start() {
    let cluster = Cluster::up("promotion");
    cluster.sql("create table t as select 1 i");
    let at = lsn(&cluster);
    cluster.sql("update t set i = 2");
    start_at(&cluster, "past", &at);
    let before = cluster.process("postgres", "past");
    // What pg_ctl promote does.
    std::fs::write(before.data_dir.join("promote"), "").unwrap();
    ironpage_tests::signal(before.pid.unwrap(), libc::SIGUSR1);
    eventually("it starts anew", Duration::from_secs(60), || {
        let now = cluster.process("postgres", "past");
        (now.pid.is_some() && now.pid != before.pid && now.state == "running").then_some(())
    });
    eventually("it answers", Duration::from_secs(60), || cluster.try_sql_on("past", "postgres", "select 1").ok());
    assert_eq!(cluster.sql_on("past", "select pg_is_in_recovery(), i from t"), "t|1");
    let log = std::fs::read_to_string(&before.log).unwrap();
    assert!(log.contains("a read-only endpoint was promoted"), "{log}");
    assert_eq!(cluster.sql("select i from t"), "2", "the primary took no notice");
}

#[test]
fn moments_that_do_not_exist_are_refused_with_the_range_that_does() {
    let cluster = Cluster::up("no-moment");
    cluster.sql("create table t()");
    let at = lsn(&cluster);
    let start = |name: &str, at: &str| ["endpoint", "start", name, "--at", at].map(str::to_string);
    let refused = |code: i32, name: &str, at: &str| {
        let arguments = start(name, at);
        cluster.must_fail(code, &arguments.each_ref().map(String::as_str))
    };
    assert!(refused(1, "past", "FF/0").contains("FF/0"));
    assert!(refused(1, "past", "0/28").contains("0/28"));
    assert!(refused(1, "past", "2001-01-01T00:00:00Z").contains("200"));
    refused(2, "past", "yesterday at noon");
    refused(2, "past", "");
    assert!(refused(1, "main", &at).contains("reads and writes"));
    assert!(refused(1, &"x".repeat(63), &at).contains("60 characters"));
    let said = cluster.must_fail(1, &["endpoint", "start", "past", "--branch", "nowhere", "--at", &at]);
    assert!(said.contains("nowhere"), "{said}");
    let list = cluster.must(&["endpoint", "list"]);
    assert!(!list.contains("past"), "what could not be had leaves nothing behind: {list}");

    // One that runs stays where it is.
    start_at(&cluster, "past", &at);
    let point = cluster.must(&["endpoint", "list"]);
    let line = point.lines().find(|line| line.starts_with("past")).unwrap_or_else(|| panic!("{point}"));
    assert!(line.contains("read-only at 0/"), "{line}");
    cluster.sql("insert into t default values");
    assert!(refused(1, "past", &lsn(&cluster)).contains("endpoint stop past"));
    cluster.must(&["endpoint", "start", "past"]);
    let said = cluster.must_fail(1, &["endpoint", "start", "writer", "--branch", "at-past"]);
    assert!(said.contains("never written to"), "{said}");
    let standing = cluster.must(&["connstr"]);
    assert!(standing.contains(&cluster.port_base.to_string()), "a read-only endpoint is not where main is reached: {standing}");
}
