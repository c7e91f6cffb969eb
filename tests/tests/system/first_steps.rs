//! What a user does first.

use ironpage_tests::{Cluster, alive, wait_until};
use std::time::Duration;

#[test]
fn data_survives_without_its_data_directory() {
    let cluster = Cluster::up("first-steps");
    cluster.sql("create table t(id int primary key, word text)");
    cluster.sql("insert into t select g, md5(g::text) from generate_series(1, 10000) g");
    let postgres = cluster.process("postgres", "main");
    assert_eq!(postgres.state, "running");
    cluster.must(&["endpoint", "stop", "main"]);
    assert!(!alive(postgres.pid.unwrap()));
    if postgres.data_dir.exists() {
        std::fs::remove_dir_all(&postgres.data_dir).unwrap();
    }
    cluster.must(&["endpoint", "start", "main"]);
    let right = "select count(*), sum(id), bool_and(word = md5(id::text)) from t";
    assert_eq!(cluster.sql(right), "10000|50005000|t");
    cluster.sql("insert into t values (10001, 'after')");

    // Down and up again: everything comes back, on the same ports.
    cluster.must(&["down"]);
    assert!(cluster.status().processes.iter().all(|process| process.state == "dead"), "{:?}", cluster.status());
    cluster.start();
    assert_eq!(cluster.sql("select count(*) from t"), "10001");
}

#[test]
fn two_clusters_live_side_by_side_and_up_is_idempotent() {
    let (one, other) = (Cluster::up("side-one"), Cluster::up("side-other"));
    one.sql("create table only_here(i int)");
    assert!(other.try_sql("select * from only_here").is_err());
    let before: Vec<_> = one.status().processes.iter().map(|process| process.pid).collect();
    one.start();
    let after: Vec<_> = one.status().processes.iter().map(|process| process.pid).collect();
    assert_eq!(before, after, "up leaves alone what runs");
    let pids: Vec<_> = one.status().processes.iter().filter_map(|process| process.pid).collect();
    one.must(&["destroy"]);
    assert!(!one.dir.exists());
    wait_until("all processes are gone", Duration::from_secs(10), || !pids.iter().any(|pid| alive(*pid)));
    other.sql("select 1");
}

#[test]
fn a_busy_port_is_named_with_the_way_out() {
    let cluster = Cluster::prepare("busy-port");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", cluster.port_base)).unwrap();
    let output = cluster.ironpage(&["up", "--detach", "--port-base", &cluster.port_base.to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&cluster.port_base.to_string()) && said.contains("--port-base"), "{said}");
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let cluster = Cluster::prepare("usage");
    assert_eq!(cluster.ironpage(&["frobnicate"]).status.code(), Some(2));
    let output = cluster.ironpage(&["endpoint", "start", "main"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ironpage up"), "{output:?}");
    assert_eq!(cluster.ironpage(&["status", "--json"]).status.code().map(|code| code < 2), Some(true));
}
