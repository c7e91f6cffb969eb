//! The cache under everything at once: evict-everything mode, the smallest cache, all that changes pages and files, and a
//! pageserver that dies meanwhile.

use crate::amount;
use ironpage_tests::{Cluster, Outcome, Session};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROWS: u64 = 12_000;
const WORKERS: u64 = 3;
const INDEXES: [&str; 6] = ["btree(id)", "hash(id)", "gin(a)", "gist(p)", "spgist(t)", "brin(id)"];

/// A worker: rounds, numbered from 1, until told to stop.
fn rounds(stop: &AtomicBool, mut session: Session, mut round: impl FnMut(&mut Session, u64)) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        round(&mut session, number);
    }
    number
}

/// Evict-everything mode on a busy machine takes its time; what hangs is found all the same.
fn must(session: &mut Session, sql: &str) -> String {
    match session.run(sql, Duration::from_secs(300)) {
        Outcome::Success(rows) => rows,
        other => panic!("{sql}: {other:?}"),
    }
}

/// Moves money within the worker's own rows; half of it is taken back to a savepoint.
fn transfer(session: &mut Session, worker: u64, round: u64) {
    let first = worker * (ROWS / WORKERS) + round * 37 % (ROWS / WORKERS - 500);
    let moved = |by: &str| {
        let rows = format!("id between {first} and {}", first + 399);
        format!("update bank set balance = balance + {by} * (case id % 2 when 0 then 1 else -1 end), pad = pad where {rows}")
    };
    must(session, "begin");
    must(session, &moved("3"));
    must(session, "savepoint s");
    must(session, &moved("100"));
    must(session, "rollback to s");
    must(
        session,
        &format!(
            "with gone as (delete from bank where id between {first} and {} returning *) insert into bank select * from gone",
            first + 50
        ),
    );
    must(session, if round.is_multiple_of(3) { "rollback" } else { "commit" });
}

/// A cursor and the statement behind it see what was there before, however much is added meanwhile.
fn look_through_a_cursor(session: &mut Session, round: u64) {
    must(session, "begin");
    let before = must(session, "select count(*) from seen");
    must(session, "declare c cursor for select count(*) from seen");
    must(session, &format!("insert into seen select {round}, repeat('s', 300) from generate_series(1, 2000)"));
    must(session, &format!("update seen set pad = pad || 'u' where round = {round}"));
    assert_eq!(must(session, "fetch all from c"), before);
    must(session, "commit");
    must(session, &format!("delete from seen where round <= {}", round.saturating_sub(3)));
}

/// The end of a table goes, by VACUUM and by TRUNCATE, and comes again as something else.
fn shrink_and_grow(session: &mut Session, round: u64) {
    must(session, &format!("insert into tail select g, {round}, repeat('t', 400) from generate_series(1, 4000) g"));
    must(session, "delete from tail where i > 500 or round % 7 = 1");
    must(session, "vacuum tail");
    must(session, &format!("insert into tail select g, {round}, repeat('v', 200) from generate_series(501, 2500) g"));
    let one = must(session, &format!("select count(*) from tail where round = {round} and i > 500"));
    assert_eq!(one, "2000");
    if round.is_multiple_of(4) {
        must(session, "begin");
        must(session, "truncate tail");
        must(session, "insert into tail select g, 0, 'new' from generate_series(1, 5000) g");
        must(session, "rollback");
        must(session, "truncate tail");
    }
}

/// Relations that come and go: every index type, within and across transactions, logged, unlogged and temporary.
fn come_and_go(session: &mut Session, worker: u64, round: u64) {
    let name = format!("gone_{worker}");
    let rows = |from: u64, to: u64| {
        format!("select g id, md5(g::text) t, array[g % 9, g] a, point(g, g % 90) p from generate_series({from}, {to}) g")
    };
    let kind = ["", "unlogged ", "temporary "][(round % 3) as usize];
    must(session, "begin");
    must(session, &format!("create {kind}table {name} as {}", rows(1, 1500)));
    for index in INDEXES {
        must(session, &format!("create index on {name} using {index}"));
    }
    must(session, "savepoint s");
    must(session, &format!("truncate {name}"));
    must(session, &format!("insert into {name} {}", rows(1, 300)));
    if round.is_multiple_of(2) {
        must(session, "rollback to s");
    }
    must(session, "commit");
    must(session, &format!("insert into {name} {}", rows(5001, 6500)));
    if kind == "unlogged " {
        must(session, &format!("alter table {name} set logged"));
    }
    let kept = if round.is_multiple_of(2) { 3000 } else { 1800 };
    assert_eq!(must(session, &format!("select count(*) from {name}")), kept.to_string());
    must(session, "set enable_seqscan = off");
    assert_eq!(
        must(session, &format!("select count(*) from {name} where id between 100 and 5099")),
        (kept - 1500 - 99 + 99).to_string()
    );
    assert_eq!(must(session, &format!("select count(*) from {name} where a @> array[5100]")), "1");
    assert_eq!(must(session, &format!("select count(*) from {name} where t = md5('5200')")), "1");
    must(session, "reset enable_seqscan");
    must(session, &format!("drop table {name}"));
}

/// Values of many pages, checked against their digests.
fn toast(session: &mut Session, round: u64) {
    let value = format!("(select string_agg(md5((g * {round})::text), '') from generate_series(1, 1500) g)");
    must(session, &format!("insert into large(b) select {value}"));
    must(session, "update large set d = md5(b) where d is null");
    must(session, &format!("update large set b = b || '{round}', d = md5(b || '{round}') where id % 5 = {}", round % 5));
    assert_eq!(must(session, "select count(*) from large where d is distinct from md5(b)"), "0");
    must(session, &format!("delete from large where id <= (select max(id) from large) - {}", 20 + round % 5));
}

/// Churn of a table with an index of every type.
fn churn(session: &mut Session, round: u64) {
    let next = round * 1000 + 100_000;
    must(
        session,
        &format!(
            "insert into six select g, md5(g::text), array[g % 9, g], point(g, g % 90) from generate_series({next}, {}) g",
            next + 400
        ),
    );
    must(session, &format!("update six set id = id where id % 17 = {}", round % 17));
    must(session, &format!("delete from six where id % 23 = {} and id > 3000", round % 23));
}

/// Maintenance beside all that, of two sets of tables: two commands for one table could deadlock.
fn maintain(session: &mut Session, statements: &[&str], round: u64) {
    must(session, statements[(round % statements.len() as u64) as usize]);
}

fn maintain_six(session: &mut Session, round: u64) {
    let statements = [
        "vacuum six",
        "select pg_prewarm('six', 'prefetch')",
        "reindex index concurrently six_id_idx",
        "select pg_prewarm('six', 'read')",
        "analyze six",
        "reindex table concurrently six",
    ];
    maintain(session, &statements, round);
}

fn maintain_others(session: &mut Session, round: u64) {
    let statements = [
        "vacuum (freeze) bank",
        "vacuum full seen",
        "select pg_prewarm('bank', 'buffer')",
        "cluster bank using bank_pkey",
        "vacuum large",
        "checkpoint",
        "vacuum (index_cleanup on) bank",
        "analyze bank",
    ];
    maintain(session, &statements, round);
}

fn prepare(cluster: &Cluster) {
    cluster.sql("create extension amcheck; create extension pg_prewarm; create extension pg_visibility");
    cluster.set_and_restart(&[
        ("shared_buffers", "2MB"),
        ("ironpage.cache_size", "8MB"),
        ("ironpage.paranoid", "on"),
        ("maintenance_work_mem", "1MB"),
        ("autovacuum_naptime", "1s"),
        ("autovacuum_vacuum_threshold", "200"),
        ("min_parallel_table_scan_size", "0"),
        ("parallel_setup_cost", "0"),
        ("checkpoint_timeout", "30s"),
    ]);
    cluster.sql(&format!(
        "create table bank as select g - 1 id, 1000 balance, repeat('b', 150) pad from generate_series(1, {ROWS}) g; \
         alter table bank add primary key (id); create index on bank(balance); \
         create table seen(round bigint, pad text); create table tail(i int, round bigint, pad text); create index on tail(i); \
         create table large(id serial primary key, b text, d text); alter table large alter b set storage external; \
         create table six as select g id, md5(g::text) t, array[g % 9, g] a, point(g, g % 90) p from generate_series(1, 6000) g"
    ));
    for index in INDEXES {
        cluster.sql(&format!("create index on six using {index}"));
    }
}

/// Every invariant of the tables above, and what Postgres's own checkers say.
fn verify(cluster: &Cluster) {
    assert_eq!(
        cluster.sql("select count(*), sum(balance), count(distinct id) from bank"),
        format!("{ROWS}|{}|{ROWS}", ROWS * 1000)
    );
    assert_eq!(cluster.sql("select count(*) from large where d is distinct from md5(b)"), "0");
    let indexes = "select count(bt_index_parent_check(c.oid, true)) from pg_class c join pg_am a on a.oid = c.relam \
                   where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'";
    assert_ne!(cluster.sql(indexes), "0");
    let tables = "c.relkind in ('r', 't', 'm') and c.relpersistence = 'p'";
    for check in ["verify_heapam", "pg_check_visible", "pg_check_frozen"] {
        let found = format!("select count(*) from pg_class c, lateral {check}(c.oid) where {tables}");
        assert_eq!(cluster.sql(&found), "0", "{check}");
    }
    let queries = [
        ("bitmapscan", "select count(*), sum(id) from six where id between 500 and 150000"),
        ("indexscan", "select count(*), sum(id) from six where id = 2000"),
        ("indexscan", "select count(*), sum(id) from six where a @> array[7]"),
        ("indexscan", "select count(*), sum(id) from six where p <@ box '((10,10),(200000,40))'"),
        ("indexscan", "select count(*), sum(id) from six where t between 'a' and 'b'"),
    ];
    let sequential = "set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off; ";
    for (off, query) in queries {
        let indexed = cluster.sql(&format!("set enable_seqscan = off; set enable_{off} = off; {query}"));
        assert_eq!(indexed, cluster.sql(&(sequential.to_string() + query)), "{query}");
    }
}

#[test]
fn everything_at_once_in_evict_everything_mode_while_the_pageserver_dies() {
    let cluster = Cluster::up("cache-stress");
    prepare(&cluster);
    let stop = AtomicBool::new(false);
    let done: Vec<u64> = std::thread::scope(|scope| {
        let stop = &stop;
        let cluster = &cluster;
        let mut workers = Vec::new();
        for worker in 0..WORKERS {
            workers.push(scope.spawn(move || rounds(stop, cluster.session(), |s, round| transfer(s, worker, round))));
        }
        for worker in 0..2 {
            workers.push(scope.spawn(move || rounds(stop, cluster.session(), |s, round| come_and_go(s, worker, round + worker))));
        }
        for work in [look_through_a_cursor, shrink_and_grow, toast, churn, maintain_six, maintain_others] {
            workers.push(scope.spawn(move || rounds(stop, cluster.session(), work)));
        }
        let begun = Instant::now();
        let time = Duration::from_secs(amount(12, 300));
        let alive = || workers.iter().all(|worker| !worker.is_finished());
        let mut kills = 0;
        while begun.elapsed() < time && alive() {
            if begun.elapsed() > time * (kills + 1) / 4 {
                cluster.kill(&cluster.nth("pageserver", 0));
                cluster.start();
                kills += 1;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| panic!("a worker failed"))).collect()
    });
    println!("rounds: {done:?}");

    verify(&cluster);
    let counted =
        ["compared", "paranoid_unpinned_reads", "punches", "differing", "crc_mismatches"].map(|name| cluster.counter(name));
    println!("compared, unpinned reads, punches, differing, mismatches: {counted:?}");
    assert_eq!(counted[3..], [0, 0]);
    assert!(counted[0] >= 1000 && counted[0] * 10 >= counted[1] * 9 && counted[2] >= 5000, "{counted:?}");

    // The same from nothing but what was kept outside.
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    verify(&cluster);
    assert_eq!(cluster.counter("differing"), 0);
}
