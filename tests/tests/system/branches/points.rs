//! Where a branch begins: at the head, at an LSN, at a time, under load, right to the row.

use super::{Ledger, Load, assert_ledger, check_on, start, stop, with_pgbench};
use crate::amount;
use crate::crash::lsn;
use ironpage_tests::{Cluster, wait_until};
use std::time::Duration;

#[test]
fn branches_of_a_busy_parent_are_right_to_the_row() {
    let cluster = with_pgbench("branch-points");
    let mut ledger = Ledger::on(&cluster, "main");
    let load = Load::on_main(&cluster);
    ledger.commits(amount(150, 1500));

    // The head holds what was acknowledged before it was asked for.
    let last = ledger.commit().number;
    let head = cluster.json(&["branch", "create", "head"]);
    assert_eq!(head["rounded"], false, "{head}");
    start(&cluster, "head");
    let shown: u64 = cluster.sql_on("head", "select max(number) from ledger").parse().unwrap();
    assert_eq!(shown, last, "nothing of the ledger was committed after the branch");
    check_on(&cluster, "head");

    // Some moments of the past, under load to this moment, by LSN and by time.
    let all = ledger.commits.clone();
    for (name, commit) in [("early", &all[3]), ("middle", &all[all.len() / 2]), ("late", &all[all.len() - 2])] {
        let by_lsn = format!("{name}-lsn");
        let created = cluster.json(&["branch", "create", &by_lsn, "--at", &commit.lsn]);
        let point = created["lsn"].as_str().unwrap();
        assert!(lsn(point) <= lsn(&commit.lsn), "rounded up: {created}");
        assert_eq!(created["rounded"], lsn(point) != lsn(&commit.lsn), "{created}");
        start(&cluster, &by_lsn);
        assert_ledger(&cluster, &by_lsn, commit.number);
        check_on(&cluster, &by_lsn);
        stop(&cluster, &by_lsn);

        let by_time = format!("{name}-time");
        cluster.must(&["branch", "create", &by_time, "--at", &commit.time]);
        start(&cluster, &by_time);
        assert_ledger(&cluster, &by_time, commit.number);
        check_on(&cluster, &by_time);
        stop(&cluster, &by_time);
    }
    drop(load);
    check_on(&cluster, "main");
}

#[test]
fn a_branch_of_a_pageserver_that_catches_up_has_all_that_was_acknowledged() {
    let cluster = with_pgbench("branch-behind");
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(5);
    let load = Load::on_main(&cluster);
    for round in 0..amount(2, 10) {
        let pageserver = cluster.nth("pageserver", 0);
        let mut again = cluster.command_of(&pageserver);
        cluster.kill(&pageserver);
        // The safekeepers commit what the pageserver has never seen.
        ledger.commits(100);
        let mut again = again.spawn().expect("starting the pageserver");
        wait_until("the pageserver answers", Duration::from_secs(60), || cluster.ironpage(&["branch", "list"]).status.success());
        let name = format!("behind{round}");
        cluster.must(&["branch", "create", &name]);
        start(&cluster, &name);
        assert_ledger(&cluster, &name, ledger.commits.last().unwrap().number);
        check_on(&cluster, &name);
        stop(&cluster, &name);
        // The cluster's own again, so that it ends with it.
        again.kill().expect("it is ours");
        again.wait().expect("it was killed");
        cluster.start();
    }
    drop(load);
    check_on(&cluster, "main");
}

#[test]
fn writes_stay_on_their_side() {
    let cluster = with_pgbench("branch-isolation");
    cluster.sql("create table side(who text); insert into side values ('before'); create sequence s; select nextval('s')");
    cluster.must(&["branch", "create", "dev"]);
    start(&cluster, "dev");
    let load = Load::on_main(&cluster);
    cluster.sql("insert into side values ('main'); create table only_main(i int)");
    cluster.sql_on("dev", "insert into side values ('dev'); create table only_dev(i int); drop table pgbench_history cascade");
    assert_eq!(cluster.sql("select string_agg(who, ',' order by who) from side"), "before,main");
    assert_eq!(cluster.sql_on("dev", "select string_agg(who, ',' order by who) from side"), "before,dev");
    assert!(cluster.try_sql("select * from only_dev").is_err());
    assert!(cluster.try_sql_on("dev", "postgres", "select * from only_main").is_err());
    let sequence: i64 = cluster.sql_on("dev", "select nextval('s')").parse().unwrap();
    assert!(sequence > 1, "the sequence went back to {sequence}");

    // From nothing but what was kept outside, after both went on.
    stop(&cluster, "dev");
    start(&cluster, "dev");
    drop(load);
    stop(&cluster, "main");
    start(&cluster, "main");
    assert_eq!(cluster.sql("select string_agg(who, ',' order by who) from side"), "before,main");
    assert_eq!(cluster.sql_on("dev", "select string_agg(who, ',' order by who) from side"), "before,dev");
    check_on(&cluster, "main");
}

#[test]
fn times_and_lsns_lead_to_each_other() {
    let cluster = Cluster::up("branch-history");
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(50);
    let all = ledger.commits.clone();
    // What was just committed may not be ingested yet.
    let end = &all.last().unwrap().lsn;
    wait_until("the pageserver has all commits", Duration::from_secs(20), || {
        lsn(&cluster.branch("main").last_record_lsn) >= lsn(&ledger.commits[48].lsn)
    });
    for pair in all[..48].windows(2) {
        let (this, next) = (&pair[0], &pair[1]);
        let found = cluster.json(&["lsn", "main", &this.time]);
        let found = lsn(found["lsn"].as_str().unwrap());
        assert!(found <= lsn(&next.lsn), "{this:?} leads to {found:x}, past {next:?}");
        let previous = if this.number > 1 { lsn(&all[this.number as usize - 2].lsn) } else { 0 };
        assert!(found > previous, "{this:?} leads to {found:x}, before its own commit");
        // And back: the last commit at or before that place is this one, which was before `this.time`.
        let back = cluster.json(&["timestamp", "main", &this.lsn]);
        let back = back["timestamp"].as_str().unwrap().to_string();
        assert!(back <= this.time, "{back} is after {this:?}");
        if this.number > 1 {
            assert!(back > all[this.number as usize - 2].time, "{back} is no time of {this:?}");
        }
    }
    // Without --json one word each, which the other takes.
    let time = cluster.must(&["timestamp", "main", end]);
    let place = cluster.must(&["lsn", "main", time.trim()]);
    assert!(lsn(place.trim()) <= lsn(end), "{place}");
    // In some zone, as people write it.
    let local = cluster.must(&["lsn", "main", &all[10].time.replace('T', " ").replace('Z', "+00")]);
    assert_eq!(local, cluster.must(&["lsn", "main", &all[10].time]));
}

#[test]
fn points_that_are_none_are_rounded_or_refused_with_the_range() {
    let cluster = Cluster::up("branch-rounding");
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(20);
    let commit = ledger.commits[10].clone();
    let exact = cluster.json(&["branch", "create", "exact", "--at", &commit.lsn]);
    let point = lsn(exact["lsn"].as_str().unwrap());
    // Every byte of the next record leads back to the same place.
    for offset in [1, 7, 8, 23, 30] {
        let name = format!("inside-{offset}");
        let at = format!("{:X}/{:X}", (point + offset) >> 32, (point + offset) & 0xFFFF_FFFF);
        let created = cluster.json(&["branch", "create", &name, "--at", &at]);
        assert_eq!(lsn(created["lsn"].as_str().unwrap()), point, "{created}");
        assert_eq!(created["rounded"], true, "{created}");
    }
    let said =
        cluster.must(&["branch", "create", "said", "--at", &format!("{:X}/{:X}", (point + 8) >> 32, (point + 8) & 0xFFFF_FFFF)]);
    assert!(said.contains("rounded down") && said.contains(exact["lsn"].as_str().unwrap()), "{said}");
    start(&cluster, "inside-8");
    assert_ledger(&cluster, "inside-8", commit.number);

    let range = cluster.branch("main");
    for beyond in ["0/1", "0/1000000", "FFFF/0"] {
        let said = cluster.must_fail(1, &["branch", "create", "beyond", "--at", beyond]);
        assert!(said.matches('/').count() >= 2, "the range that exists is to be named: {said} (head {})", range.last_record_lsn);
    }
    // Before the first commit there is nothing; later than all is the head.
    cluster.must_fail(1, &["branch", "create", "before", "--at", "2001-01-01T00:00:00Z"]);
    for (code, at) in [(2, "yesterday"), (2, "0/"), (2, "")] {
        cluster.must_fail(code, &["branch", "create", "bad", "--at", at]);
    }
}
