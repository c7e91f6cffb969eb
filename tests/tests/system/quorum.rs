//! Safekeepers come and go.

use crate::amount;
use crate::crash::{assert_all_there, commits_during, lsn};
use ironpage_tests::{Cluster, Outcome, signal, wait_until};
use std::time::{Duration, Instant};

#[test]
fn one_safekeeper_may_die_under_load() {
    let cluster = Cluster::up("one-safekeeper");
    cluster.sql("create table acked(i bigint primary key)");
    let mut longest = Duration::ZERO;
    let told = commits_during(&cluster, 1, || {
        let mut session = cluster.session();
        session.must("create table pulse(i int)");
        for number in 0..3 {
            let safekeeper = cluster.nth("safekeeper", number);
            cluster.kill(&safekeeper);
            for beat in 0..50 {
                let asked = Instant::now();
                session.must(&format!("insert into pulse values ({beat})"));
                longest = longest.max(asked.elapsed());
            }
            cluster.start();
            let all_level = || {
                let running =
                    cluster.status().processes.iter().filter(|p| p.kind == "safekeeper" && p.state == "running").count();
                running == 3
            };
            wait_until("the safekeeper is back", Duration::from_secs(30), all_level);
            // Before the next one goes, this one must hold what the others hold.
            cluster.wait_safekeepers_level(Duration::from_secs(30));
        }
    });
    // The bound is the issue's own: a commit waits at most a second for a safekeeper that died.
    assert!(longest <= Duration::from_secs(1), "a commit waited {longest:?}");
    assert_all_there(&cluster, &told);
}

#[test]
fn without_a_quorum_commits_wait_and_reads_go_on() {
    let cluster = Cluster::up("no-quorum");
    cluster.set_and_restart(&[
        ("shared_buffers", "16MB"),
        ("ironpage.cache_size", "64MB"),
        ("ironpage.fence_after_ms", "600000"),
    ]);
    cluster.sql("create table t as select g i, repeat('x', 500) pad from generate_series(1, 200000) g");
    cluster.sql("create table acked(i bigint primary key)");
    let before = cluster.counter("fetches");
    let (one, other) = (cluster.nth("safekeeper", 0), cluster.nth("safekeeper", 1));
    let mut one_again = cluster.command_of(&one);
    cluster.kill(&one);
    cluster.kill(&other);

    let mut waiting = cluster.session();
    assert_eq!(waiting.run("insert into acked values (1)", Duration::from_secs(2)), Outcome::Waiting);
    // Reads: 100 MB through 16 MB of buffers and a cache of 64 MB.
    assert_eq!(cluster.sql("select count(*) from t"), "200000");
    assert!(cluster.counter("fetches") > before, "no read missed the cache");

    // Much that is not committed, and checkpoints: nothing that only this machine has may go.
    let mut bulk = cluster.session();
    bulk.must("begin");
    bulk.must("create table big(i int, pad text)");
    let rows = amount(20_000, 900_000);
    for part in 0..3 {
        let insert = format!(
            "insert into big select g, repeat(md5(g::text), 60) from generate_series({0}, {1}) g",
            part * rows,
            (part + 1) * rows - 1
        );
        match bulk.run(&insert, Duration::from_secs(1200)) {
            Outcome::Success(_) => {}
            other => panic!("{other:?}"),
        }
        cluster.sql("checkpoint");
    }
    assert!(bulk.run("commit", Duration::from_secs(2)) == Outcome::Waiting);
    assert_eq!(waiting.answer(Duration::from_millis(100)), Outcome::Waiting);

    // One of the two is enough.
    let mut one_again = one_again.spawn().expect("starting the safekeeper");
    assert_eq!(waiting.answer(Duration::from_secs(120)), Outcome::Success(String::new()));
    assert_eq!(bulk.answer(Duration::from_secs(120)), Outcome::Success(String::new()));
    assert_eq!(cluster.sql("select count(*) from big"), (rows * 3).to_string());
    assert_eq!(cluster.nth("safekeeper", 1).state, "dead");
    signal(one_again.id() as i32, libc::SIGTERM);
    one_again.wait().expect("the safekeeper ends when asked to");
    cluster.start();
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_eq!(cluster.sql("select count(*) from big"), (rows * 3).to_string());
    assert_eq!(cluster.sql("select count(*) from acked"), "1");
    let branch = cluster.branch("main");
    assert!(lsn(&branch.last_record_lsn) > 0);
}
