//! Exports of a moment, and relations that are more than one file.

use super::endpoint_sql;
use ironpage_tests::stock::{amcheck, must};
use ironpage_tests::{Cluster, Stock};
use std::os::unix::fs::MetadataExt;

/// Bytes of a relation's file, when it is full.
const GIBIBYTE: u64 = 1 << 30;

#[test]
fn an_export_is_of_the_moment_asked_for() {
    let dir = Stock::scratch("moments");
    let cluster = Cluster::up("export-moments");
    cluster.pgbench(&["-i", "-s", "2", "-q"]);
    cluster.sql("create table steps (n int primary key)");
    cluster.sql("insert into steps select g from generate_series(1, 1000) g");
    let lsn = cluster.sql("select pg_current_wal_insert_lsn()");
    let time = cluster.sql("select clock_timestamp()");
    cluster.sql("insert into steps select g from generate_series(1001, 3000) g");
    cluster.sql("drop table pgbench_history");

    let out = |name: &str| dir.join(name).to_string_lossy().into_owned();
    for (name, at) in [("lsn", &lsn), ("time", &time)] {
        cluster.must(&["export", "main", &out(name), "--at", at]);
        let stock = Stock::on(&dir.join(name));
        stock.start();
        assert_eq!(stock.sql("select count(*), max(n) from steps"), "1000|1000", "{name} {at}");
        assert_eq!(stock.sql("select to_regclass('pgbench_history') is not null"), "t");
        stock.stop();
    }

    // Of a branch that is written meanwhile: of one moment all the same.
    cluster.sql("create table pgbench_history(tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))");
    let mut load = cluster.pgbench_start(&["-n", "-c", "4", "-T", "20"]);
    cluster.must(&["export", "main", &out("head")]);
    let stock = Stock::on(&dir.join("head"));
    stock.start();
    let sums = "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history), \
                (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)";
    assert_eq!(stock.sql(sums), "t|t");
    stock.sql("create extension amcheck");
    amcheck(stock.client("pg_amcheck"));
    assert!(load.wait().unwrap().success());
    // It is a server like any other: it stands up to a crash, and takes a backup.
    let pid = std::fs::read_to_string(stock.dir.join("postmaster.pid")).unwrap();
    stock.sql("insert into steps values (5000)");
    ironpage_tests::signal(pid.lines().next().unwrap().parse().unwrap(), libc::SIGQUIT);
    ironpage_tests::wait_until("it is down", std::time::Duration::from_secs(30), || !stock.dir.join("postmaster.pid").exists());
    stock.start();
    assert_eq!(stock.sql("select count(*), max(n) from steps"), "3001|5000");
    must(stock.client("pg_basebackup").arg("-D").arg(dir.join("again")).args(["--no-sync", "-c", "fast"]));
    stock.stop();

    let branches = cluster.must(&["branch", "list"]);
    assert!(!branches.contains("export"), "snapshots are gone: {branches}");
    let output = cluster.ironpage(&["export", "main", &out("beyond"), "--at", "FFFF/0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!dir.join("beyond").exists());
    drop(cluster);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_relation_of_more_than_one_file_comes_in_and_goes_out() {
    let dir = Stock::scratch("segments");
    let stock = Stock::init(&dir.join("source"), &[]);
    stock.start();
    stock.sql("create table large (id int, word text)");
    stock.sql("insert into large select g, md5(g::text) from generate_series(1, 500) g");
    stock.sql("vacuum large");
    let path = stock.sql("select pg_relation_filepath('large')");
    stock.stop();
    // Blocks of zeros are empty pages to Postgres: the first file is filled with them, the second begins like the first.
    let (first, second) = (stock.dir.join(&path), stock.dir.join(format!("{path}.1")));
    let pages = std::fs::read(&first).unwrap();
    std::fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(GIBIBYTE).unwrap();
    std::fs::write(&second, &pages).unwrap();
    let owner = std::fs::metadata(&first).unwrap();
    std::os::unix::fs::chown(&second, Some(owner.uid()), Some(owner.gid())).unwrap();

    let cluster = Cluster::up("import-segments");
    cluster.must(&["import", &stock.dir.to_string_lossy(), "--tenant", "large"]);
    cluster.must(&["endpoint", "start", "large", "--tenant", "large"]);
    let size = format!("{}", GIBIBYTE + pages.len() as u64);
    assert_eq!(endpoint_sql(&cluster, "large", "select pg_relation_size('large')"), size);
    let ends = "select count(*), sum(id) from large where ctid < '(100,0)'; select count(*), sum(id) from large where ctid >= '(131072,0)'";
    assert_eq!(endpoint_sql(&cluster, "large", ends), "500|125250\n500|125250");
    let out = dir.join("export");
    cluster.must(&["export", "main", &out.to_string_lossy(), "--tenant", "large"]);
    let exported = Stock::on(&out);
    assert!(std::fs::metadata(out.join(&path)).unwrap().blocks() < 2048, "zeros take no space");
    exported.start();
    assert_eq!(exported.sql("select pg_relation_size('large')"), size);
    assert_eq!(exported.sql(ends), "500|125250\n500|125250");
    assert_eq!(exported.sql("select count(*) from large"), "1000");
    exported.stop();
    drop(cluster);
    std::fs::remove_dir_all(dir).unwrap();
}
