//! Reset and restore: a branch of the same name with another past.

use super::{Ledger, Load, assert_ledger, check_on, start, stop, with_pgbench};
use ironpage_tests::{Cluster, alive, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn reset_brings_the_parents_head() {
    let cluster = with_pgbench("branch-reset");
    let load = Load::on_main(&cluster);
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(5);
    cluster.must(&["branch", "create", "dev"]);
    start(&cluster, "dev");
    cluster.sql_on("dev", "insert into ledger values (100, 'dev'); create table mess(i int)");
    ledger.commits(5);
    let old = cluster.branch("dev");
    let postmaster = cluster.process("postgres", "dev").pid.unwrap();
    let reset = cluster.json(&["branch", "reset", "dev"]);
    assert_eq!(reset["branch"]["name"], "dev");
    assert_ne!(reset["branch"]["id"], old.id.as_str());
    // Its endpoint was stopped and runs again, on what the branch is now.
    assert!(!alive(postmaster));
    assert_eq!(cluster.process("postgres", "dev").state, "running");
    assert_ledger(&cluster, "dev", 10);
    assert!(cluster.try_sql_on("dev", "postgres", "select * from mess").is_err());
    check_on(&cluster, "dev");
    cluster.sql_on("dev", "create table mess(i int)");
    drop(load);

    // What has children is not reset, nor is a root.
    cluster.must(&["branch", "create", "child", "--from", "dev"]);
    let said = cluster.must_fail(1, &["branch", "reset", "dev"]);
    assert!(said.contains("'child'") && said.contains("--recursive"), "{said}");
    assert_eq!(cluster.process("postgres", "dev").state, "running");
    start(&cluster, "child");
    let said = cluster.must_fail(1, &["branch", "reset", "dev", "--recursive"]);
    assert!(said.contains("endpoint stop child"), "{said}");
    stop(&cluster, "child");
    cluster.must(&["branch", "reset", "dev", "--recursive"]);
    assert!(cluster.status().branches.iter().all(|branch| branch.name != "child"));
    assert!(cluster.status().processes.iter().all(|process| process.name != "child"), "its endpoint is gone with it");
    let said = cluster.must_fail(1, &["branch", "reset", "main"]);
    assert!(said.contains("no parent"), "{said}");
    check_on(&cluster, "main");
}

#[test]
fn restore_goes_back_and_keeps_what_was() {
    let cluster = with_pgbench("branch-restore");
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(10);
    let good = ledger.commits[6].clone();
    cluster.must(&["branch", "create", "sibling"]);
    cluster.sql("drop table ledger");
    let restored = cluster.json(&["branch", "restore", "main", "--at", &good.time]);
    let backup = restored["backup"]["name"].as_str().unwrap().to_string();
    assert!(backup.starts_with("main-before-"), "{restored}");
    assert_ledger(&cluster, "main", good.number);
    check_on(&cluster, "main");
    cluster.sql("insert into ledger values (8, 'again')");
    assert_ledger(&cluster, "main", 8);

    // What it was until then is a branch like any other, and its children stay its children.
    cluster.must(&["endpoint", "start", "old", "--branch", &backup]);
    assert!(cluster.try_sql_on("old", "postgres", "select * from ledger").is_err(), "it was dropped there");
    check_on(&cluster, "old");
    assert_eq!(cluster.branch("sibling").parent.as_deref(), Some(backup.as_str()));
    start(&cluster, "sibling");
    assert_ledger(&cluster, "sibling", 10);

    // By LSN, and with nothing running.
    for endpoint in ["old", "sibling"] {
        stop(&cluster, endpoint);
    }
    cluster.must(&["branch", "restore", "sibling", "--at", &cluster.branch("sibling").commit_lsn]);
    assert_eq!(cluster.process("postgres", "sibling").state, "dead");
    start(&cluster, "sibling");
    assert_ledger(&cluster, "sibling", 10);
    let said = cluster.must_fail(1, &["branch", "restore", "main", "--at", "0/1"]);
    assert!(said.contains('/'), "{said}");
    assert_eq!(cluster.process("postgres", "main").state, "running", "it runs on what it was");
    assert_ledger(&cluster, "main", 8);
}

#[test]
fn up_after_down_brings_all_back() {
    let cluster = Cluster::up("branch-updown");
    let mut ledger = Ledger::on(&cluster, "main");
    ledger.commits(5);
    cluster.must(&["branch", "create", "dev"]);
    start(&cluster, "dev");
    cluster.sql_on("dev", "insert into ledger values (6, 'dev')");
    let before = cluster.status();
    drop(ledger);
    cluster.must(&["down"]);
    // The journal of a pageserver that is down tells what there is.
    let down = cluster.status();
    let names = |status: &ironpage_tests::Status| -> Vec<_> {
        let mut names: Vec<_> =
            status.branches.iter().map(|it| (it.name.clone(), it.id.clone(), it.parent.clone(), it.parent_lsn.clone())).collect();
        names.sort();
        names
    };
    assert_eq!(names(&down), names(&before));
    cluster.start();
    assert_eq!(names(&cluster.status()), names(&before));
    start(&cluster, "dev");
    assert_ledger(&cluster, "dev", 6);
    assert_ledger(&cluster, "main", 5);
}

/// A restore over HTTP tells no endpoint: what it commits from then on would be in the backup, under another name.
#[test]
fn an_endpoint_follows_a_name_that_moved_without_it() {
    let cluster = Cluster::up("branch-moved");
    cluster.sql("create table t as select 1 as i");
    let at = cluster.sql("select pg_current_wal_flush_lsn()");
    cluster.sql("insert into t values (2)");
    let body = format!("{{\"at_lsn\":\"{at}\"}}");
    let request = format!(
        "POST /v1/tenants/main/branches/main/restore HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(("127.0.0.1", cluster.port_base + 5)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    wait_until("the endpoint shows what its branch is now", Duration::from_secs(60), || {
        cluster.try_sql("select count(*) from t").is_ok_and(|count| count == "1")
    });
    cluster.sql("insert into t values (3)");
    assert_eq!(cluster.process("postgres", "main").state, "running");

    // A name that changes is no reason to do anything.
    let postmaster = cluster.process("postgres", "main").pid;
    cluster.must(&["branch", "rename", "main", "first"]);
    cluster.must(&["branch", "create", "main", "--from", "first"]);
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(cluster.process("postgres", "main").pid, postmaster);
    assert_eq!(cluster.branch("first").endpoint.as_deref(), Some("main"));
}
