//! Histories never mix: what is not the source that was followed is refused, and told.

use super::{Follower, LONG, branch, follower, number, source, wait_level, wait_state};
use ironpage_tests::stock::{Stock, dump};
use ironpage_tests::{Cluster, eventually};
use std::path::Path;
use std::process::Command;

fn refused(cluster: &Cluster) -> Follower {
    let follower = wait_state(cluster, "prod", "refused");
    assert_eq!(follower.pid, None, "a refused follower ends");
    follower
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("running cp");
    assert!(status.success());
}

#[test]
fn another_history_is_refused() {
    let stock = source("follow-histories", &[]);
    let cluster = Cluster::up("follow-histories");
    cluster.must(&["follow", &stock.url(), "--tenant", "prod"]);
    wait_state(&cluster, "prod", "streaming");
    stock.stop();
    let (data, older, other, newest) = (
        stock.dir.clone(),
        stock.dir.with_extension("older"),
        stock.dir.with_extension("other"),
        stock.dir.with_extension("newest"),
    );
    copy(&data, &older);
    stock.start();
    stock.sql("create table newer as select generate_series(1, 20000) i");
    wait_level(&cluster, &stock, "prod");
    let right = dump(stock.client("pg_dumpall"));
    stock.stop();
    std::fs::rename(&data, &newest).unwrap();

    // A copy of an earlier day in its place.
    std::fs::rename(&older, &data).unwrap();
    stock.start();
    let said = refused(&cluster).message;
    assert!(said.contains("restored to an earlier state") && said.contains("follow it anew"), "{said}");
    // The same, when it has written more than was received.
    stock.sql("create table others as select repeat('z', 900), generate_series(1, 60000)");
    let output = cluster.ironpage(&["follow", "--tenant", "prod"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = refused(&cluster).message + &told;
    assert!(said.contains("restored or replaced") || said.contains("does not continue"), "{said}");
    stock.stop();
    std::fs::remove_dir_all(&data).unwrap();

    // Another cluster in its place.
    let stranger = Stock::init(&other, &[]);
    drop(stranger);
    std::fs::rename(&other, &data).unwrap();
    stock.start();
    let _ = cluster.ironpage(&["follow", "--tenant", "prod"]);
    let said = refused(&cluster).message;
    assert!(said.contains("another cluster"), "{said}");
    stock.stop();
    std::fs::remove_dir_all(&data).unwrap();

    // The right one again: nothing is lost.
    std::fs::rename(&newest, &data).unwrap();
    stock.start();
    cluster.must(&["follow", "--tenant", "prod"]);
    wait_state(&cluster, "prod", "streaming");
    branch(&cluster, "right", None);
    assert_eq!(dump(cluster.client("pg_dumpall", "right")), right);

    // Promoted: another timeline.
    stock.stop();
    std::fs::write(stock.dir.join("standby.signal"), "").unwrap();
    stock.start();
    stock.sql("select pg_promote()");
    let said = refused(&cluster).message;
    assert!(said.contains("timeline 2") && said.contains("promotion"), "{said}");
    let output = cluster.ironpage(&["follow", "--tenant", "prod"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("timeline 2"));
    branch(&cluster, "still", None);
    assert_eq!(cluster.sql_on("still", "select count(*) from newer"), "20000");
}

/// What was received ends with a segment, so none of it comes again to be compared: the link to its last record tells.
#[test]
fn another_history_behind_a_segment_switch_is_refused() {
    let stock = source("follow-switched", &[]);
    let cluster = Cluster::up("follow-switched");
    cluster.must(&["follow", &stock.url(), "--tenant", "prod"]);
    wait_state(&cluster, "prod", "streaming");
    stock.stop();
    let older = stock.dir.with_extension("older");
    copy(&stock.dir, &older);
    stock.start();
    stock.sql("create table newer as select generate_series(1, 20000) i");
    stock.sql("select pg_switch_wal()");
    let received = eventually("the follower has a whole segment", LONG, || {
        let committed = number(&follower(&cluster, "prod").committed_lsn);
        (committed > 0 && committed.is_multiple_of(16 << 20)).then_some(committed)
    });
    cluster.must(&["follow", "--stop", "prod"]);
    stock.stop();
    std::fs::remove_dir_all(&stock.dir).unwrap();

    // A copy of an earlier day in its place writes other segments up to there, and more behind.
    std::fs::rename(&older, &stock.dir).unwrap();
    stock.start();
    while number(&stock.sql("select pg_current_wal_insert_lsn()")) < received {
        stock.sql("select pg_logical_emit_message(true, 'other', 'history')");
        stock.sql("select pg_switch_wal()");
    }
    stock.sql("create table others as select generate_series(1, 20000) i");
    let output = cluster.ironpage(&["follow", "--tenant", "prod"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = refused(&cluster).message + &told;
    assert!(said.contains("restored or replaced") || said.contains("does not continue"), "{said}");
}

#[test]
fn what_cannot_be_followed_is_refused_at_once() {
    let stock = source("follow-refusals", &[]);
    let cluster = Cluster::up("follow-refusals");
    let refuse = |arguments: &[&str], wanted: &str| {
        let output = cluster.ironpage(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(wanted), "{arguments:?}: {said}");
    };
    let url = stock.url();
    refuse(&["follow", &url], "name another");
    refuse(&["follow", "--tenant", "prod"], "say whom");
    refuse(&["follow", &url, "--tenant", "pr/od"], "cannot be a name");
    refuse(&["follow", &url, "--tenant", "prod", "--slot", "Slot"], "cannot be a slot");
    refuse(&["follow", "host=/nowhere", "--tenant", "prod"], "/nowhere");
    refuse(&["follow", "what is this", "--tenant", "prod"], "connection string");
    stock.sql("select pg_create_physical_replication_slot('ironpage_prod')");
    refuse(&["follow", &url, "--tenant", "prod"], "--slot");
    // An attempt that failed leaves nothing behind.
    cluster.must(&["follow", &url, "--tenant", "prod", "--slot", "mine"]);
    wait_state(&cluster, "prod", "streaming");
    refuse(&["follow", &url, "--tenant", "prod"], "already");
    cluster.must(&["follow", "--stop", "prod"]);
    refuse(&["follow", "--tenant", "prod", "--slot", "other"], "mine");
    assert_eq!(stock.sql("select count(*) from pg_replication_slots"), "2");

    // A slot that is gone is said so.
    stock.sql("select pg_drop_replication_slot('mine')");
    let _ = cluster.ironpage(&["follow", "--tenant", "prod"]);
    let said = wait_state(&cluster, "prod", "refused").message;
    assert!(said.contains("dropped"), "{said}");
}
