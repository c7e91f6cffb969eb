//! A stock Postgres comes in, and goes out again: the same by pg_dump, sound by amcheck, without a trace of the way.

mod backups;
mod moments;
mod refusals;

use ironpage_tests::stock::{amcheck, dump, must};
use ironpage_tests::{Cluster, Stock};
use std::path::Path;

const EVERYTHING: &str = include_str!("everything.sql");

/// What each kind of index finds, when nothing else may be used.
const BY_INDEX: &str = "set enable_seqscan = off; set enable_indexonlyscan = off;\
    select count(*), min(id), max(id) from kinds where word = md5('4711');\
    select count(*), sum(id) from kinds where numbers @> array[3, 33];\
    select count(*), sum(id) from kinds where span && int4range(500, 900);\
    select count(*), sum(id) from kinds where place <@ box '((10,10),(40,60))';\
    select count(*), sum(id) from kinds where day between '2021-02-03' and '2022-03-04';\
    select count(*), sum(length(long)), sum(length(packed)) from toasted where id > 50";

/// A stock cluster with one of each kind of thing, `tables` tables, a second database, and a tablespace; running.
fn source(dir: &Path, tables: u32, initdb: &[&str]) -> Stock {
    let stock = Stock::init(&dir.join("source"), initdb);
    let conf = stock.dir.join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text + "max_prepared_transactions = 10\nfsync = off\nwal_level = logical\n").unwrap();
    stock.start();
    let space = dir.join("space");
    make_dir(&space);
    stock.sql_in("template1", "create extension amcheck");
    stock.sql(&format!("create tablespace space location '{}'", space.display()));
    stock.sql("create database second tablespace space strategy file_copy");
    stock.sql("create database third strategy wal_log");
    for statement in EVERYTHING.split(";\n") {
        let statement = statement.trim();
        // It is in template1, and so in the databases made from it.
        for database in ["postgres", "second"] {
            let given =
                if database == "second" { statement.replace("create extension amcheck", "select 1") } else { statement.into() };
            stock.sql_in(database, &given);
        }
    }
    stock.sql("create table elsewhere (id int primary key, word text) tablespace space");
    stock.sql("insert into elsewhere select g, md5(g::text) from generate_series(1, 5000) g");
    // Many members of multixacts.
    let locks = "begin; select count(*) from (select * from shared_locks for key share) s; savepoint s; update shared_locks set n = n + 1; rollback to s; commit";
    stock.sql(locks);
    stock.sql(&format!(
        "do $$ begin for i in 1..{tables} loop \
           execute format('create table t%s (id int primary key, word text)', i); \
           execute format('insert into t%s select g, md5(g::text) from generate_series(1, %s) g', i, 5 + i % 40); \
           if i % 100 = 0 then commit; end if; \
         end loop; end $$"
    ));
    stock.sql("create unlogged table passing (id int primary key, word text)");
    stock.sql("create unlogged sequence passing_too");
    stock.sql("begin; insert into prepared_here values (1); prepare transaction 'waiting'");
    stock.sql("select pg_create_physical_replication_slot('a_standby', true)");
    stock
}

fn make_dir(dir: &Path) {
    must(std::process::Command::new("mkdir").arg(dir));
    let owner = std::fs::metadata(dir.parent().unwrap()).unwrap();
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(dir, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// Where two texts of many lines part.
fn assert_same(what: &str, one: &str, other: &str) {
    let parts = one.lines().zip(other.lines()).enumerate().find(|(_, (one, other))| one != other);
    assert!(one == other, "{what}: {} and {} lines, they part at {parts:?}", one.lines().count(), other.lines().count());
}

fn endpoint_sql(cluster: &Cluster, endpoint: &str, sql: &str) -> String {
    must(cluster.client("psql", endpoint).args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]))
}

/// In, looked at, and out again.
fn there_and_back(name: &str, tables: u32, initdb: &[&str]) {
    let dir = Stock::scratch(name);
    let stock = source(&dir, tables, initdb);
    let whole = dump(stock.client("pg_dumpall"));
    let found = stock.sql(BY_INDEX);
    stock.sql("checkpoint");
    let multixacts = stock.sql("select next_multixact_id::text::int from pg_control_checkpoint()");
    assert!(multixacts.parse::<u32>().unwrap() > 1, "{multixacts}");
    stock.sql("insert into passing select g, 'gone' from generate_series(1, 1000) g");
    stock.stop();

    let cluster = Cluster::up(name);
    let output = cluster.ironpage(&["import", &stock.dir.to_string_lossy(), "--tenant", "shop"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for wanted in ["1 tablespace", "1 prepared transaction", "unlogged", "a_standby", "are not taken over"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    cluster.must(&["endpoint", "start", "shop", "--tenant", "shop"]);
    assert_same("the endpoint", &whole, &dump(cluster.client("pg_dumpall", "shop")));
    assert_eq!(endpoint_sql(&cluster, "shop", BY_INDEX), found);
    assert_eq!(endpoint_sql(&cluster, "shop", "select count(*) from passing"), "0");
    assert_eq!(endpoint_sql(&cluster, "shop", "select next_multixact_id::text::int from pg_control_checkpoint()"), multixacts);
    amcheck(cluster.client("pg_amcheck", "shop"));

    // Out with the prepared transaction still open, which can then be ended on both sides, each way.
    let out = dir.join("export");
    cluster.must(&["export", "main", &out.to_string_lossy(), "--tenant", "shop"]);
    let exported = Stock::on(&out);
    if initdb.contains(&"-k") {
        exported.check_checksums();
    }
    exported.start();
    assert_same("the export", &whole, &dump(exported.client("pg_dumpall")));
    assert_eq!(exported.sql(BY_INDEX), found);
    amcheck(exported.client("pg_amcheck"));
    let trace =
        "select count(*) from pg_settings where name like 'ironpage%' or setting like '%ironpage.so%' or setting = 'walproposer'";
    assert_eq!(exported.sql(trace), "0");
    assert_eq!(exported.sql("select count(*) from pg_ls_dir('.') f where f like '%ironpage%'"), "0");
    exported.sql("commit prepared 'waiting'");
    endpoint_sql(&cluster, "shop", "rollback prepared 'waiting'");
    assert_eq!(exported.sql("select count(*) from prepared_here"), "1");
    assert_eq!(endpoint_sql(&cluster, "shop", "select count(*) from prepared_here"), "0");
    // It goes on as a server of its own.
    exported.sql("create table afterwards as select g from generate_series(1, 10000) g");
    exported.sql("vacuum full kinds");
    exported.sql("insert into passing values (1, 'again')");
    exported.stop();
    if initdb.contains(&"-k") {
        exported.check_checksums();
    }

    // What is written after the import is compared with the pageserver's pages, block by block.
    endpoint_sql(&cluster, "shop", "alter system set ironpage.paranoid = on");
    endpoint_sql(&cluster, "shop", "alter system set ironpage.cache_size = '16MB'");
    cluster.must(&["endpoint", "stop", "shop"]);
    cluster.must(&["endpoint", "start", "shop"]);
    for round in 0..3 {
        endpoint_sql(&cluster, "shop", &format!("update kinds set word = md5(word || {round}) where id % 3 = {round}"));
        endpoint_sql(&cluster, "shop", "vacuum kinds");
        endpoint_sql(&cluster, "shop", "checkpoint");
    }
    assert_eq!(
        endpoint_sql(&cluster, "shop", BY_INDEX).lines().skip(1).collect::<Vec<_>>(),
        found.lines().skip(1).collect::<Vec<_>>()
    );
    amcheck(cluster.client("pg_amcheck", "shop"));
    drop(exported);
    drop(cluster);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_thousand_tables_come_in_and_go_out() {
    there_and_back("import-many", 1000, &[]);
}

#[test]
fn a_cluster_with_data_checksums_comes_in_and_goes_out() {
    there_and_back("import-checksums", 50, &["-k"]);
}
