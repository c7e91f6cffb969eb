//! pgbench through a cache far smaller than the data.

use crate::amount;
use ironpage_tests::Cluster;

fn small_cache(name: &str, paranoid: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.sql("create extension amcheck; create extension pg_visibility");
    let settings = [("shared_buffers", "16MB"), ("ironpage.cache_size", "64MB"), ("ironpage.paranoid", paranoid)];
    cluster.set_and_restart(&settings);
    cluster
}

/// What TPC-B keeps equal, and what Postgres's own checkers say of heaps, indexes and visibility maps.
fn check(cluster: &Cluster) {
    check_on(cluster, "main");
}

/// The same on any endpoint, whose database has amcheck and pg_visibility.
pub fn check_on(cluster: &Cluster, endpoint: &str) {
    let sql = |sql: &str| cluster.sql_on(endpoint, sql);
    let sums = "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history) \
                and (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history) \
                and (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)";
    assert_eq!(sql(sums), "t");
    let indexes = "select count(bt_index_check(c.oid, true)) from pg_class c join pg_am a on a.oid = c.relam \
                   where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'";
    assert_ne!(sql(indexes), "0");
    let heaps = "select count(*) from pg_class c, lateral verify_heapam(c.oid) where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'";
    assert_eq!(sql(heaps), "0");
    let maps = "select count(*) from pg_class c, lateral pg_check_visible(c.oid) where c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'";
    assert_eq!(sql(maps), "0");
    assert_eq!(sql(&maps.replace("pg_check_visible", "pg_check_frozen")), "0");
}

#[test]
fn pgbench_with_a_small_cache_keeps_its_sums() {
    let cluster = small_cache("load", "off");
    cluster.pgbench(&["-i", "-q", "-s", "20"]);
    cluster.pgbench(&["-n", "-c", "8", "-j", "2", "-T", amount("60", "600")]);
    check(&cluster);
    let (getpages, punches) = (cluster.pageserver_counter("getpages"), cluster.counter("punches"));
    assert!(getpages >= 50_000, "only {getpages} getpages: the cache was not small enough to test anything");
    assert!(punches >= 1_000, "only {punches} punches");
    // The same again from nothing but what was kept outside.
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    check(&cluster);
}

#[test]
fn every_unpinned_read_equals_the_pageservers_page() {
    let cluster = small_cache("paranoid", "on");
    cluster.pgbench(&["-i", "-q", "-s", amount("5", "20")]);
    cluster.pgbench(&["-n", "-c", "8", "-j", "2", "-T", amount("30", "600")]);
    check(&cluster);
    let (compared, differing) = (cluster.counter("compared"), cluster.counter("differing"));
    let unpinned = cluster.counter("paranoid_unpinned_reads");
    assert_eq!(differing, 0);
    assert!(compared >= 10_000, "only {compared} pages compared");
    assert!(compared * 10 >= unpinned * 9, "{compared} of {unpinned} unpinned reads compared");
    println!("{}", cluster.sql("select * from ironpage_stats()"));
}
