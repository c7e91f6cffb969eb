//! Create, list, delete, rename, diff: what they say and when they refuse.

use super::{start, stop};
use ironpage_tests::{Cluster, wait_until};
use std::time::Duration;

#[test]
fn delete_refuses_what_is_used_and_removes_the_rest() {
    let cluster = Cluster::up("branch-delete");
    cluster.sql("create table t as select generate_series(1, 1000) i");
    cluster.must(&["branch", "create", "dev"]);
    cluster.must(&["branch", "create", "child", "--from", "dev"]);
    start(&cluster, "child");
    let said = cluster.must_fail(1, &["branch", "delete", "dev"]);
    assert!(said.contains("'child'") || said.contains("child"), "{said}");
    let said = cluster.must_fail(1, &["branch", "delete", "dev", "--recursive"]);
    assert!(said.contains("'child'") && said.contains("ironpage endpoint stop child"), "{said}");
    assert_eq!(cluster.sql_on("child", "select count(*) from t"), "1000");
    let files = cluster.process("postgres", "child").data_dir;
    stop(&cluster, "child");
    let gone = cluster.json(&["branch", "delete", "dev", "--recursive"]);
    assert_eq!(gone["deleted"], serde_json::json!(["child", "dev"]));
    assert_eq!(cluster.status().branches.len(), 1);
    assert!(cluster.status().processes.iter().all(|process| process.name != "child"));
    assert!(!files.parent().unwrap().exists(), "{} is still there", files.display());
    let said = cluster.must_fail(1, &["branch", "delete", "dev"]);
    assert!(said.contains("dev"), "{said}");
    let said = cluster.must_fail(1, &["endpoint", "start", "child", "--branch", "child"]);
    assert!(said.contains("child"), "{said}");
    assert_eq!(cluster.sql("select count(*) from t"), "1000");
    // The name is free again.
    cluster.must(&["branch", "create", "dev"]);
    start(&cluster, "dev");
    assert_eq!(cluster.sql_on("dev", "select count(*) from t"), "1000");
}

#[test]
fn rename_takes_the_endpoints_along() {
    let cluster = Cluster::up("branch-rename");
    cluster.must(&["branch", "create", "dev"]);
    start(&cluster, "dev");
    cluster.sql_on("dev", "create table t(i int)");
    cluster.must(&["branch", "rename", "dev", "test"]);
    assert_eq!(cluster.branch("test").endpoint.as_deref(), Some("dev"));
    assert_eq!(cluster.branch("test").parent.as_deref(), Some("main"));
    // A crash brings Postgres back on the branch, whatever it is called now.
    let postgres = cluster.process("postgres", "dev");
    cluster.kill(&postgres);
    wait_until("Postgres is back", Duration::from_secs(20), || {
        cluster.try_sql_on("dev", "postgres", "select count(*) from t").is_ok_and(|count| count == "0")
    });
    stop(&cluster, "dev");
    cluster.must(&["endpoint", "start", "second", "--branch", "test"]);
    assert_eq!(cluster.sql_on("second", "select count(*) from t"), "0");
    cluster.must_fail(1, &["endpoint", "start", "third", "--branch", "dev"]);
}

#[test]
fn branches_go_away_at_their_time() {
    let cluster = Cluster::up("branch-ttl");
    let created = cluster.json(&["branch", "create", "short", "--ttl", "2s"]);
    assert!(created["branch"]["expires_at_us"].is_i64(), "{created}");
    let said = cluster.must(&["branch", "create", "long", "--ttl", "7d"]);
    assert!(said.contains("goes away"), "{said}");
    let gone = || cluster.status().branches.iter().all(|branch| branch.name != "short");
    wait_until("the branch is gone", Duration::from_secs(90), gone);
    assert_eq!(cluster.status().branches.len(), 2);
    for bad in ["7", "soon", "0s", "-1d"] {
        cluster.must_fail(2, &["branch", "create", "bad", "--ttl", bad]);
    }
}

#[test]
fn diff_tells_schemas_apart() {
    let cluster = Cluster::up("branch-diff");
    cluster.sql("create table t(i int primary key, name text)");
    cluster.sql("create database other");
    cluster.must(&["branch", "create", "dev"]);
    assert_eq!(cluster.ironpage(&["branch", "diff", "main", "dev"]).status.code(), Some(0));
    start(&cluster, "dev");
    cluster.sql_on("dev", "insert into t values (1, 'data is no schema')");
    assert_eq!(cluster.ironpage(&["branch", "diff", "main", "dev"]).status.code(), Some(0));
    cluster.sql_on("dev", "alter table t add column born date");
    for round in ["while it runs", "while it does not"] {
        let output = cluster.ironpage(&["branch", "diff", "main", "dev"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{round}: {text}");
        assert!(text.starts_with("--- main\n+++ dev\n") && text.contains("+    born date"), "{round}: {text}");
        stop(&cluster, "dev");
    }
    let output = cluster.ironpage(&["branch", "diff", "main", "dev", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["same"], false, "{json}");
    let said = cluster.must_fail(2, &["branch", "diff", "main", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
    let left: Vec<_> = cluster.status().processes.into_iter().filter(|process| process.name.starts_with("diff-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn usage_and_answers() {
    let cluster = Cluster::up("branch-usage");
    for arguments in [
        &["branch"] as &[&str],
        &["branch", "create"],
        &["branch", "restore", "main"],
        &["branch", "no"],
        &["lsn", "main", "soon"],
    ] {
        cluster.must_fail(2, arguments);
    }
    let said = cluster.must_fail(1, &["psql", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
    cluster.must(&["branch", "create", "dev"]);
    let said = cluster.must_fail(1, &["connstr", "dev"]);
    assert!(said.contains("ironpage endpoint start NAME --branch dev"), "{said}");
    let list = cluster.json(&["branch", "list"]);
    let dev = list.as_array().unwrap().iter().find(|branch| branch["name"] == "dev").unwrap();
    assert_eq!(
        (dev["parent"].as_str(), dev["kind"].as_str(), dev["state"].as_str()),
        (Some("main"), Some("branch"), Some("active"))
    );
    assert!(dev["endpoint"].is_null(), "{dev}");
    let status = cluster.branch("dev");
    assert_eq!(status.parent_lsn.as_deref(), dev["parent_lsn"].as_str());

    // Without the pageserver: an error that names it, the request and the way out.
    cluster.kill(&cluster.nth("pageserver", 0));
    let said = cluster.must_fail(1, &["branch", "list"]);
    assert!(said.contains("pageserver-1") && said.contains("GET /v1/") && said.contains("ironpage up"), "{said}");
    assert_eq!(cluster.status().branches.len(), 2, "its journal knows");
    assert!(cluster.must(&["connstr", "main"]).contains("postgresql://"));
    cluster.start();
    assert_eq!(cluster.json(&["branch", "list"]).as_array().unwrap().len(), 2);
}
