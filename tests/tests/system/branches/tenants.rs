//! Many tenants on one cluster.

use ironpage_tests::Cluster;

#[test]
fn tenants_share_nothing() {
    let cluster = Cluster::up("tenants");
    cluster.sql("create table mine(i int)");
    let acme = cluster.json(&["tenant", "create", "acme"]);
    assert_eq!((acme["name"].as_str(), acme["branches"].as_u64()), (Some("acme"), Some(1)));
    let said = cluster.must_fail(1, &["tenant", "create", "acme"]);
    assert!(said.contains("'acme'"), "{said}");
    cluster.must(&["--tenant", "acme", "endpoint", "start", "acme"]);
    assert!(cluster.try_sql_on("acme", "postgres", "select * from mine").is_err());
    cluster.sql_on("acme", "create table theirs as select generate_series(1, 100) i");
    let system = "select system_identifier from pg_control_system()";
    assert_ne!(cluster.sql(system), cluster.sql_on("acme", system));

    // Branches of one name in each.
    cluster.must(&["--tenant", "acme", "branch", "create", "dev"]);
    cluster.must(&["branch", "create", "dev"]);
    cluster.must(&["--tenant", "acme", "endpoint", "start", "acme-dev", "--branch", "dev"]);
    assert_eq!(cluster.sql_on("acme-dev", "select count(*) from theirs"), "100");
    let said = cluster.must_fail(1, &["endpoint", "start", "acme-dev", "--branch", "main"]);
    assert!(said.contains("'acme-dev'"), "{said}");
    let shown: Vec<_> = cluster.status().branches.into_iter().filter(|branch| branch.tenant == "acme").collect();
    assert_eq!(shown.len(), 2);
    assert_eq!(cluster.json(&["branch", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(cluster.json(&["tenant", "list"]).as_array().unwrap().len(), 2);
    assert!(cluster.must(&["--tenant", "acme", "connstr", "dev"]).starts_with("postgresql://"));

    // Without --tenant a known endpoint is found all the same, after everything was down.
    cluster.must(&["down"]);
    cluster.start();
    cluster.must(&["endpoint", "start", "acme-dev"]);
    assert_eq!(cluster.sql_on("acme-dev", "select count(*) from theirs"), "100");

    let said = cluster.must_fail(1, &["tenant", "delete", "acme"]);
    assert!(said.contains("ironpage endpoint stop acme-dev"), "{said}");
    cluster.must(&["endpoint", "stop", "acme-dev"]);
    let _ = cluster.ironpage(&["endpoint", "stop", "acme"]);
    let said = cluster.must_fail(1, &["tenant", "delete", "acme"]);
    assert!(said.contains("'dev'") && said.contains("--recursive"), "{said}");
    cluster.must(&["tenant", "delete", "acme", "--recursive"]);
    assert!(cluster.status().branches.iter().all(|branch| branch.tenant == "main"));
    assert!(cluster.status().processes.iter().all(|process| !process.name.starts_with("acme")));
    let said = cluster.must_fail(1, &["tenant", "delete", "main"]);
    assert!(said.contains("destroy"), "{said}");
    assert_eq!(cluster.sql("select count(*) from mine"), "0");
}
