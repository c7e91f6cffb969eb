//! Two primaries of one branch: the later one wins, whole.

use crate::amount;
use crate::crash::{assert_all_there, commits_during};
use crate::durability::children;
use ironpage_tests::{Cluster, Outcome, signal, wait_until};
use std::time::{Duration, Instant};

#[test]
fn an_old_primary_is_fenced_within_a_second() {
    let cluster = Cluster::up("fencing");
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("create table old(i int)");
    let mut reader = cluster.session();
    let told = commits_during(&cluster, 1, || {
        wait_until("some commits", Duration::from_secs(30), || {
            cluster.sql("select count(*) from acked").parse::<u64>().unwrap() > 100
        });
        cluster.must(&["endpoint", "start", "second", "--branch", "main"]);
        let begun = Instant::now();
        let fenced = || !matches!(reader.run("select count(*) from old", Duration::from_secs(5)), Outcome::Success(_));
        wait_until("the old primary answers no more", Duration::from_secs(10), fenced);
        // The bound is the issue's own.
        assert!(begun.elapsed() <= Duration::from_secs(1), "fenced after {:?}", begun.elapsed());
    });
    wait_until("the old endpoint shows as dead", Duration::from_secs(10), || cluster.process("postgres", "main").state == "dead");
    let mut second = cluster.session_on("second");
    let there = second.must("select i from acked");
    let there: std::collections::BTreeSet<u64> = there.lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<_> = told.difference(&there).take(5).collect();
    assert!(lost.is_empty(), "acknowledged by the old primary and gone: {lost:?}");
    second.must("insert into acked values (1)");

    // And back: main starts again, and the second is fenced in turn.
    cluster.must(&["endpoint", "start", "main"]);
    wait_until("the second endpoint shows as dead", Duration::from_secs(10), || {
        cluster.process("postgres", "second").state == "dead"
    });
    assert_all_there(&cluster, &told);
    assert_eq!(cluster.sql("select count(*) from acked where i = 1"), "1");
}

#[test]
fn a_takeover_while_the_old_walproposer_is_killed_mixes_no_histories() {
    let cluster = Cluster::up("fencing-killed");
    cluster.sql("create table acked(i bigint primary key)");
    let mut told = std::collections::BTreeSet::new();
    for round in 1..=amount(2, 10) {
        told.extend(commits_during(&cluster, round, || {
            let before = cluster.sql("select count(*) from acked").parse::<u64>().unwrap();
            wait_until("some commits", Duration::from_secs(30), || {
                cluster.sql("select count(*) from acked").parse::<u64>().unwrap() > before + 100
            });
            let postmaster = cluster.process("postgres", "main").pid.unwrap();
            // Its supervisor starts main again at once, against the one who takes over.
            children(postmaster, "walproposer").into_iter().for_each(|pid| signal(pid, libc::SIGKILL));
            cluster.must(&["endpoint", "start", "second", "--branch", "main"]);
        }));
        wait_until("main shows as dead", Duration::from_secs(20), || cluster.process("postgres", "main").state == "dead");
        let mut second = cluster.session_on("second");
        second.must(&format!("insert into acked values ({round})"));
        told.insert(round);
        drop(second);
        cluster.must(&["endpoint", "start", "main"]);
        wait_until("second shows as dead", Duration::from_secs(20), || cluster.process("postgres", "second").state == "dead");
        assert_all_there(&cluster, &told);
    }
}
