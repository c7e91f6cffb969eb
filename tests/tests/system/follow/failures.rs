//! Either side goes away and comes back.

use super::{LONG, Load, branch, follower, number, source, wait_level, wait_state};
use ironpage_tests::stock::{Stock, dump};
use ironpage_tests::{Cluster, eventually, signal};

/// Bytes of WAL the slot keeps.
fn kept(stock: &Stock) -> u64 {
    let kept = stock.sql("select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint from pg_replication_slots");
    kept.parse().unwrap_or_else(|_| panic!("the slot keeps '{kept}'"))
}

fn kill_follower(cluster: &Cluster) {
    let pid = follower(cluster, "prod").pid.expect("a follower runs");
    signal(pid, libc::SIGKILL);
    wait_state(cluster, "prod", "stopped");
}

#[test]
fn a_follower_goes_on_after_any_process_was_killed() {
    let stock = source("follow-kills", &[]);
    let cluster = Cluster::up("follow-kills");
    let load = Load::on(&stock, "4");
    cluster.must(&["follow", &stock.url(), "--tenant", "prod"]);
    wait_state(&cluster, "prod", "streaming");

    for round in 0..crate::amount(1, 5) {
        // The source's servers keep what we do not have.
        kill_follower(&cluster);
        let before = kept(&stock);
        eventually("the slot keeps more", LONG, || (kept(&stock) > before + 200_000).then_some(()));
        cluster.must(&["follow", "--tenant", "prod"]);
        wait_state(&cluster, "prod", "streaming");
        eventually("the slot keeps little", LONG, || (kept(&stock) < 200_000).then_some(()));

        for number in [round % 3, (round + 1) % 3] {
            cluster.kill(&cluster.process("safekeeper", &format!("safekeeper-{}", number + 1)));
        }
        // Without a quorum nothing is confirmed, and the lag is told.
        eventually("the lag is told", LONG, || {
            let follower = follower(&cluster, "prod");
            (follower.lag_bytes > 200_000 && follower.message.contains("safekeeper")).then_some(())
        });
        cluster.start();
        eventually("the lag goes", LONG, || (follower(&cluster, "prod").lag_bytes < 200_000).then_some(()));
        cluster.kill(&cluster.nth("pageserver", 0));
        kill_follower(&cluster);
        cluster.start();
        wait_state(&cluster, "prod", "streaming");
    }
    drop(load);
    wait_level(&cluster, &stock, "prod");
    branch(&cluster, "after", None);
    assert_eq!(dump(cluster.client("pg_dumpall", "after")), dump(stock.client("pg_dumpall")));
}

#[test]
fn a_source_that_restarts_or_is_away_is_followed_on() {
    let stock = source("follow-restarts", &[]);
    let cluster = Cluster::up("follow-restarts");
    cluster.must(&["follow", &stock.url(), "--tenant", "prod"]);
    wait_state(&cluster, "prod", "streaming");
    for mode in ["fast", "immediate"] {
        let load = Load::on(&stock, "4");
        let before = number(&follower(&cluster, "prod").committed_lsn);
        eventually("some WAL", LONG, || (number(&follower(&cluster, "prod").committed_lsn) > before + 200_000).then_some(()));
        stock.stop_in(mode);
        drop(load);
        let away = wait_state(&cluster, "prod", "waiting");
        assert!(!away.message.is_empty());
        stock.start();
        wait_state(&cluster, "prod", "streaming");
    }
    // Down and up of everything of ours, too.
    cluster.must(&["down"]);
    stock.sql("create table meanwhile as select generate_series(1, 10000) i");
    cluster.start();
    wait_state(&cluster, "prod", "streaming");
    wait_level(&cluster, &stock, "prod");
    branch(&cluster, "after", None);
    assert_eq!(dump(cluster.client("pg_dumpall", "after")), dump(stock.client("pg_dumpall")));

    // Stopped for good: the source keeps nothing for us any more.
    cluster.must(&["follow", "--stop", "prod", "--drop-slot"]);
    assert_eq!(stock.sql("select count(*) from pg_replication_slots"), "0");
}
