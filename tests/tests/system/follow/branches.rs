//! Branches of a followed server are what the server was.

use super::{Load, branch, follower, number, source, wait_level, wait_state};
use ironpage_tests::Cluster;
use ironpage_tests::stock::{Stock, amcheck, dump, must};
use std::process::Command;

/// All of a database's pages that WAL keeps right, by their LSNs and line pointers: hint bits change neither.
const PAGES: &str = "select c.oid::regclass, b, h.lsn, h.lower, h.upper, h.special
    from pg_class c, generate_series(0, pg_relation_size(c.oid) / 8192 - 1) b, page_header(get_raw_page(c.oid::regclass::text, b)) h
    where c.relkind in ('r', 'i', 't', 'm') and c.relpersistence = 'p' and not c.relisshared and c.relkind <> 'S'
      and not (c.relkind = 'i' and exists (select from pg_index i where i.indexrelid = c.oid and not i.indisvalid))
    order by 1, 2";

/// Statements of a busy server's day; each may fail without harm.
const DAY: [&str; 14] = [
    "create table if not exists t(id serial primary key, a text, b int[])",
    "insert into t(a, b) select md5(i::text), array[i, i + 1] from generate_series(1, 2000) i",
    "create index if not exists t_b on t using gin(b)",
    "create index if not exists t_a on t using hash(a)",
    "update t set a = a || 'x' where id % 3 = 0",
    "delete from t where id % 5 = 0",
    "vacuum t",
    "alter table t add column if not exists c bigint default 7",
    "truncate pgbench_history",
    "drop table if exists gone",
    "create table gone as select i, repeat('y', 500) from generate_series(1, 1000) i",
    "vacuum full t",
    "reindex table t",
    "analyze",
];

fn busy_day(stock: &Stock, rounds: usize) {
    for round in 0..rounds {
        for statement in DAY {
            let _ = stock.client("psql").args(["-XAtq", "-d", "postgres", "-c", statement]).output();
        }
        stock.sql(&format!("begin; insert into t(a) values ('prepared {round}'); prepare transaction 'round {round}'"));
        if round % 2 == 0 {
            stock.sql(&format!("commit prepared 'round {round}'"));
        }
    }
}

fn client(cluster: &Cluster, program: &str, endpoint: &str) -> Command {
    cluster.client(program, endpoint)
}

fn assert_equal(what: &str, ours: &str, theirs: &str) {
    if ours != theirs {
        let differs = ours.lines().zip(theirs.lines()).find(|(one, other)| one != other);
        panic!("{what}: {} and {} lines, first difference {differs:?}", ours.lines().count(), theirs.lines().count());
    }
}

fn branches_equal(name: &str, initdb: &[&str]) {
    let stock = source(name, initdb);
    stock.sql("create extension pageinspect; create extension amcheck");
    stock.sql("create table kept(i int); insert into kept select generate_series(1, 100); begin; delete from kept where i > 50; prepare transaction 'early'");
    let cluster = Cluster::up(name);
    let load = Load::on(&stock, "4");
    std::thread::scope(|scope| {
        let day = scope.spawn(|| busy_day(&stock, 3));
        cluster.must(&["follow", &stock.url(), "--tenant", "prod"]);
        wait_state(&cluster, "prod", "streaming");
        day.join().expect("a busy day");
    });
    busy_day(&stock, 1);
    drop(load);
    stock.sql("create database other; checkpoint");
    stock.sql_in("other", "create table there as select generate_series(1, 5000) i");

    // Nobody writes any more but autovacuum.
    stock.sql("alter system set autovacuum = off");
    stock.sql("select pg_reload_conf()");
    let past = wait_level(&cluster, &stock, "prod");
    let past_dump = dump(stock.client("pg_dumpall"));
    {
        let _load = Load::on(&stock, "2");
        stock.sql("update t set a = 'later'");
    }
    let end = wait_level(&cluster, &stock, "prod");
    assert!(number(&past) < number(&end));

    branch(&cluster, "now", None);
    assert_equal("dumps at the head", &dump(client(&cluster, "pg_dumpall", "now")), &dump(stock.client("pg_dumpall")));
    let pages = |mut psql: Command| must(psql.args(["-XAtq", "-d", "postgres", "-c", PAGES]));
    assert_equal("pages at the head", &pages(client(&cluster, "psql", "now")), &pages(stock.client("psql")));
    amcheck(client(&cluster, "pg_amcheck", "now"));
    branch(&cluster, "past", Some(&past));
    assert_equal("dumps in the past", &dump(client(&cluster, "pg_dumpall", "past")), &past_dump);

    // Both sides go on by themselves; what was prepared before the base backup is there on both.
    let on_branch =
        |sql: &str| must(client(&cluster, "psql", "now").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]));
    let prepared = "select string_agg(gid, ',' order by gid) from pg_prepared_xacts";
    assert_eq!(on_branch(prepared), stock.sql(prepared));
    on_branch("commit prepared 'early'");
    assert_eq!(on_branch("select count(*) from kept"), "50");
    stock.sql("rollback prepared 'early'");
    assert_eq!(stock.sql("select count(*) from kept"), "100");
    let follower = follower(&cluster, "prod");
    assert_eq!((follower.state.as_str(), follower.slot.as_str()), ("streaming", "ironpage_prod"));

    // The followed branch itself takes no writer.
    let refused = cluster.ironpage(&["--tenant", "prod", "endpoint", "start", "writer", "--branch", "main"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("branch create"), "{said}");
}

#[test]
fn branches_of_a_followed_server_equal_it() {
    branches_equal("follow-branches", &[]);
}

#[test]
fn a_followed_server_may_have_checksums() {
    branches_equal("follow-checksums", &["--data-checksums"]);
}
