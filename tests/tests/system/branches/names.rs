//! Names: what is none, what is taken, what would be something else elsewhere.

use ironpage_tests::Cluster;

#[test]
fn bad_names_are_refused_and_nothing_is_made() {
    let cluster = Cluster::up("branch-names");
    let long = "x".repeat(64);
    let bad = [
        "",
        " ",
        ".",
        "..",
        "../main",
        "a/b",
        "a b",
        "a\nb",
        "ä",
        "名前",
        "'; drop table t; --",
        "$(id)",
        "`id`",
        "a%2Fb",
        "%00",
        "a?b=c",
        "a#b",
        "_a",
        "main ",
        "\u{202e}niam",
        "\"",
        "a\\b",
        long.as_str(),
    ];
    for name in bad {
        let said = cluster.must_fail(1, &["branch", "create", name]);
        assert!(said.contains("cannot be a name"), "{name:?}: {said}");
        let said = cluster.must_fail(1, &["branch", "rename", "main", name]);
        assert!(said.contains("cannot be a name"), "{name:?}: {said}");
        cluster.must_fail(1, &["tenant", "create", name]);
        // As names of what should be there they reach the pageserver as they are, and nothing else.
        for arguments in
            [&["branch", "delete", name] as &[&str], &["branch", "create", "ok", "--from", name], &["branch", "reset", name]]
        {
            let said = cluster.must_fail(1, arguments);
            assert!(!said.contains("no answer"), "{name:?}: {said}");
        }
    }
    cluster.must_fail(2, &["branch", "create", "-a"]);
    assert_eq!(cluster.status().branches.len(), 1);

    let longest = "x".repeat(63);
    for name in ["a", "0", "A-b_9", longest.as_str()] {
        cluster.must(&["branch", "create", name]);
        let said = cluster.must_fail(1, &["branch", "create", name]);
        assert!(said.contains(name) && said.contains("exists") || said.contains("already"), "{said}");
    }
    // Names are told apart by case.
    cluster.must(&["branch", "create", "a-B_9"]);
    let said = cluster.must_fail(1, &["branch", "create", "b", "--from", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
    let said = cluster.must_fail(1, &["--tenant", "nobody", "branch", "create", "b"]);
    assert!(said.contains("nobody"), "{said}");
    let said = cluster.must_fail(1, &["branch", "rename", "a", "0"]);
    assert!(said.contains("'0'"), "{said}");
}

#[test]
fn of_creates_of_one_name_at_once_one_wins() {
    let cluster = Cluster::up("branch-race");
    for round in 0..3 {
        let name = format!("wanted{round}");
        let won = std::thread::scope(|scope| {
            let (cluster, name) = (&cluster, name.as_str());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(move || cluster.ironpage(&["branch", "create", name]))).collect();
            let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            for lost in outcomes.iter().filter(|output| !output.status.success()) {
                let said = String::from_utf8_lossy(&lost.stderr);
                assert!(lost.status.code() == Some(1) && said.contains(name), "{said}");
            }
            outcomes.iter().filter(|output| output.status.success()).count()
        });
        assert_eq!(won, 1);
    }
    assert_eq!(cluster.status().branches.len(), 4);
}

/// Endpoints are known by the names of their tenant and branch: ids must not lead past them.
#[test]
fn an_id_is_as_good_as_a_name() {
    let cluster = Cluster::up("branch-ids");
    let main = cluster.branch("main").id;
    cluster.sql("create table t as select 1 as i");
    let at = cluster.sql("select pg_current_wal_flush_lsn()");
    cluster.sql("insert into t values (2)");
    let old = cluster.process("postgres", "main").pid.unwrap();
    cluster.must(&["branch", "restore", &main, "--at", &at]);
    assert_ne!(cluster.process("postgres", "main").pid, Some(old), "it ran on what is the backup now");
    cluster.sql("insert into t values (3)");
    assert_eq!(cluster.sql("select string_agg(i::text, ' ' order by i) from t"), "1 3");

    cluster.must(&["branch", "create", "dev"]);
    let dev = cluster.branch("dev").id;
    cluster.must(&["endpoint", "start", "dev", "--branch", &dev]);
    assert_eq!(cluster.branch("dev").endpoint.as_deref(), Some("dev"));
    let said = cluster.must_fail(1, &["branch", "delete", &dev]);
    assert!(said.contains("endpoint stop dev"), "{said}");
    cluster.must(&["branch", "rename", &dev, "test"]);
    assert_eq!(cluster.branch("test").endpoint.as_deref(), Some("dev"));
    let said = cluster.must_fail(1, &["branch", "delete", "test"]);
    assert!(said.contains("endpoint stop dev"), "{said}");
    cluster.must(&["branch", "reset", &dev]);
    assert_eq!(cluster.branch("test").endpoint.as_deref(), Some("dev"));
    assert_ne!(cluster.branch("test").id, dev);

    let tenants = cluster.json(&["tenant", "list"]);
    let id = tenants[0]["id"].as_str().unwrap().to_string();
    let said = cluster.must_fail(1, &["tenant", "delete", &id, "--recursive"]);
    assert!(said.contains("the cluster's own"), "{said}");
    let said = cluster.must_fail(1, &["--tenant", &id, "branch", "delete", "test"]);
    assert!(said.contains("endpoint stop dev"), "{said}");
    assert_eq!(cluster.sql_on("dev", "select count(*) from t"), "2");
}
