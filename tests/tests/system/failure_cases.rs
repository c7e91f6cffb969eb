//! What went wrong in experiments before the rules that now prevent it.

use crate::amount;
use ironpage_tests::{Cluster, Outcome};
use std::time::Duration;

/// 2 MB of buffers and the smallest cache: nearly everything is evicted.
fn tiny_cache(name: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.set_and_restart(&[("shared_buffers", "2MB"), ("ironpage.cache_size", "8MB"), ("maintenance_work_mem", "1MB")]);
    cluster
}

#[test]
fn a_cursor_does_not_see_later_inserts_of_its_transaction() {
    let cluster = tiny_cache("cursor");
    let mut session = cluster.session();
    session.must("begin");
    session.must("create table c(id int, pad text)");
    session.must("insert into c select g, repeat('x', 200) from generate_series(1, 20000) g");
    session.must("declare cur cursor for select count(*) from c");
    session.must("insert into c select g, repeat('y', 200) from generate_series(20001, 60000) g");
    assert_eq!(session.must("fetch all from cur"), "20000");
    assert_eq!(session.must("select count(*) from c"), "60000");
    session.must("commit");
    session.must("begin");
    session.must("declare cur cursor for select count(*) from c");
    session.must("delete from c where id % 2 = 0");
    assert_eq!(session.must("fetch all from cur"), "60000");
    session.must("rollback");
    assert_eq!(session.must("select count(*) from c"), "60000");
}

#[test]
fn an_update_of_every_row_touches_each_once() {
    let cluster = tiny_cache("halloween");
    let mut session = cluster.session();
    session.must("create table c as select g id, repeat('x', 200) pad from generate_series(1, 30000) g");
    session.must("begin");
    session.must("update c set id = id + 1000000");
    session.must("update c set id = id + 1000000");
    session.must("commit");
    assert_eq!(session.must("select count(*), min(id), max(id) from c"), "30000|2000001|2030000");
}

#[test]
fn six_index_types_agree_with_sequential_scans() {
    let cluster = tiny_cache("indexes");
    let rows = amount(20_000, 200_000);
    cluster.sql(&format!(
        "create table t as select g id, md5(g::text) t, array[g, g % 7, g % 11] a, point(g, g % 100) p from generate_series(1, {rows}) g"
    ));
    let indexes = [
        "create index t_btree on t(id)",
        "create index t_hash on t using hash(t)",
        "create index t_gin on t using gin(a)",
        "create index t_gist on t using gist(p)",
        "create index t_spgist on t using spgist(p)",
        "create index t_brin on t using brin(id)",
    ];
    for index in indexes {
        cluster.sql(index);
    }
    let churn = "update t set id = id where id % 10 = 0; delete from t where id % 13 = 0; insert into t select g, md5(g::text), array[g], point(g, 1) from generate_series(1000001, 1002000) g";
    cluster.sql(churn);
    cluster.sql("vacuum t");
    let queries = [
        "select count(*) from t where id between 100 and 2000",
        "select count(*) from t where t = md5('777')",
        "select count(*) from t where a @> array[5, 6]",
        "select count(*) from t where p <@ box '((10,10),(9000,20))'",
    ];
    let off = |settings: &[&str]| settings.iter().map(|name| format!("set enable_{name} = off; ")).collect::<String>();
    for query in queries {
        let sequential = cluster.sql(&(off(&["indexscan", "bitmapscan", "indexonlyscan"]) + query));
        let indexed = cluster.sql(&(off(&["seqscan"]) + query));
        assert_eq!(sequential, indexed, "{query}");
    }
    // One access method at a time where two could answer.
    for kept in ["t_gist", "t_spgist", "t_btree", "t_brin"] {
        let drop_others = match kept {
            "t_gist" => "drop index t_spgist",
            "t_spgist" => "drop index t_gist",
            "t_btree" => "drop index t_brin",
            _ => "drop index t_btree",
        };
        let query = if kept.contains("gist") { queries[3] } else { queries[0] };
        let sequential = cluster.sql(&(off(&["indexscan", "bitmapscan", "indexonlyscan"]) + query));
        let indexed = cluster.sql(&format!("begin; {drop_others}; {}{query}; rollback", off(&["seqscan"])));
        assert_eq!(indexed, sequential, "{kept}");
    }
}

#[test]
fn sizes_unlogged_tables_and_clog_are_right_after_starts() {
    let cluster = tiny_cache("after-start");
    cluster.sql("create table sized as select g i, repeat('s', 300) pad from generate_series(1, 20000) g");
    cluster.sql("create unlogged table u as select g i from generate_series(1, 10000) g");
    cluster.sql("create index on u(i)");
    cluster.sql("create table aborted(i int)");
    let _ = cluster.try_sql("begin; insert into aborted select generate_series(1, 1000); select 1/0; commit");
    let mut many = cluster.session();
    for number in 0..200 {
        many.must(&format!(
            "begin; insert into aborted values ({number}); {}",
            if number % 2 == 0 { "rollback" } else { "commit" }
        ));
    }
    drop(many);
    cluster.sql("create temporary table temp as select generate_series(1, 20000) i; select count(*) from temp");
    let size = cluster.sql("select pg_relation_size('sized'), pg_total_relation_size('sized')");
    let sizes = "select string_agg(relname || pg_relation_size(oid), ',' order by oid) from pg_class where relkind in ('r', 'i', 't') and relpersistence = 'p'";
    let all = cluster.sql(sizes);
    assert_eq!(cluster.sql("select count(*) from u"), "10000");

    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_eq!(
        cluster.sql("select pg_relation_size('sized'), pg_relation_size('sized')").split('|').next(),
        size.split('|').next()
    );
    let after = cluster.sql(sizes);
    assert_eq!(after, all, "sizes of tables nobody touched since the start");
    // An endpoint's directory is gone with it: unlogged tables are empty after any start, and usable.
    assert_eq!(cluster.sql("select count(*) from u"), "0");
    cluster.sql("insert into u select generate_series(1, 500)");
    assert_eq!(cluster.sql("set enable_seqscan = off; select count(*) from u where i between 1 and 100"), "100");
    assert_eq!(cluster.sql("select count(*) from aborted"), "100");

    cluster.kill(&cluster.process("postgres", "main"));
    cluster.wait_ready(Duration::from_secs(20));
    assert_eq!(cluster.sql("select count(*) from u"), "0");
    cluster.sql("insert into u values (1)");
    assert_eq!(cluster.sql("set enable_seqscan = off; select count(*) from u where i = 1"), "1");
    assert_eq!(cluster.sql("select count(*) from aborted"), "100");
}

#[test]
fn what_changes_files_works() {
    let cluster = tiny_cache("files");
    let mut session = cluster.session();
    session.must("create table t as select g i, repeat('x', 100) pad from generate_series(1, 30000) g");
    session.must("create index on t(i)");
    session.must("delete from t where i % 3 = 0");
    session.must("vacuum t");
    session.must("vacuum full t");
    assert_eq!(session.must("select count(*) from t"), "20000");
    session.must("begin");
    session.must("truncate t");
    session.must("insert into t select generate_series(1, 100)");
    session.must("rollback");
    assert_eq!(session.must("select count(*) from t"), "20000");
    session.must("truncate t");
    session.must("insert into t select g, 'new' from generate_series(1, 5000) g");
    session.must("create table big(b text)");
    session.must("alter table big alter b set storage external");
    session.must("insert into big select string_agg(md5(g::text), '') from generate_series(1, 20000) g");
    session.must("create table dropped as select generate_series(1, 10000)");
    session.must("drop table dropped");
    session.must("create unlogged table l as select g from generate_series(1, 5000) g");
    session.must("alter table l set logged");
    session.must("create sequence s");
    let last: i64 = session.must("select max(nextval('s')) from generate_series(1, 50)").parse().unwrap();
    session.must("begin");
    session.must("insert into t values (-1, 'prepared')");
    session.must("prepare transaction 'p'");
    cluster.sql("create database other");
    cluster.try_sql_in("other", "create table inside as select generate_series(1, 1000) i").unwrap();
    cluster.sql("create database doomed");
    cluster.sql("drop database doomed");
    cluster.sql("create tablespace ts location '/nonexistent-but-kept-inside'");
    cluster.sql("create table there tablespace ts as select generate_series(1, 3000) i");
    let toast = cluster.sql("select md5(b) from big");
    for crash in [false, true] {
        if crash {
            cluster.kill(&cluster.process("postgres", "main"));
        } else {
            cluster.must(&["endpoint", "stop", "main"]);
            cluster.must(&["endpoint", "start", "main"]);
        }
        cluster.wait_ready(Duration::from_secs(20));
        assert_eq!(cluster.sql("select count(*) from t"), "5000");
        assert_eq!(cluster.sql("set enable_seqscan = off; select count(*) from t where i between 10 and 19"), "10");
        assert_eq!(cluster.sql("select md5(b) from big"), toast);
        assert_eq!(cluster.sql("select count(*) from l"), "5000");
        assert_eq!(cluster.sql("select count(*) from there"), "3000");
        assert_eq!(cluster.try_sql_in("other", "select count(*) from inside"), Ok("1000".into()));
        assert!(cluster.try_sql_in("doomed", "select 1").is_err());
        assert!(cluster.sql("select nextval('s')").parse::<i64>().unwrap() > last);
        assert_eq!(cluster.sql("select gid from pg_prepared_xacts"), "p");
    }
    cluster.sql("commit prepared 'p'");
    assert_eq!(cluster.sql("select count(*) from t where i = -1"), "1");
}

#[test]
fn a_damaged_cache_block_is_caught_and_fetched_again() {
    let cluster = tiny_cache("damaged-cache");
    cluster.sql("create table t as select g i, repeat('x', 500) pad from generate_series(1, 5000) g");
    let path = cluster.sql("select pg_relation_filepath('t')");
    let file = cluster.process("postgres", "main").data_dir.join(path);
    // All of t leaves the buffers, so that reads come from the file.
    let fill = "create table filler as select g i, repeat('y', 500) pad from generate_series(1, 10000) g";
    cluster.sql(fill);
    cluster.sql("select count(*) from filler");
    cluster.sql("checkpoint");
    let before = cluster.counter("crc_mismatches");
    let mut damaged = 0;
    for block in 0..100 {
        damaged += damage(&file, block) as u32;
    }
    assert!(damaged > 0, "every block of {} was a hole", file.display());
    let outcome = cluster.session().run("select count(*), sum(length(pad)) from t", Duration::from_secs(60));
    assert_eq!(outcome, Outcome::Success("5000|2500000".into()));
    assert!(cluster.counter("crc_mismatches") > before, "no read met the damage");
}

/// Flips bytes in the middle of a block that is not a hole; whether it did.
fn damage(file: &std::path::Path, block: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut page = [0; 8192];
    if file.read_exact_at(&mut page, block * 8192).is_err() || page.iter().all(|byte| *byte == 0) {
        return false;
    }
    page[4000] ^= 0xFF;
    file.write_all_at(&page[4000..4001], block * 8192 + 4000).unwrap();
    true
}

/// An empty directory is a new pageserver's, but not in a cluster that had one: an empty database would pass for the old one.
#[test]
fn a_pageserver_that_lost_its_directory_is_no_new_cluster() {
    let cluster = Cluster::up("lost-pageserver");
    cluster.sql("create table t as select 1 as i");
    let dir = cluster.process("pageserver", "pageserver-1").data_dir;
    cluster.must(&["down"]);
    let aside = dir.with_extension("aside");
    std::fs::rename(&dir, &aside).unwrap();
    for _ in 0..2 {
        let said = cluster.must_fail(1, &["up", "--detach"]);
        assert!(said.contains("was lost or emptied") && said.contains(&*dir.to_string_lossy()), "{said}");
        assert!(cluster.try_sql("select 1").is_err());
    }
    cluster.must(&["down"]);
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&aside, &dir).unwrap();
    cluster.must(&["up", "--detach"]);
    assert_eq!(cluster.sql("select count(*) from t"), "1");
}

/// Files that speak of processes are not flushed: a loss of power may empty them.
#[test]
fn torn_files_of_the_last_boot_are_in_nobodys_way() {
    let cluster = Cluster::up("torn-run");
    cluster.sql("create table t as select 1 as i");
    let daemons: Vec<_> = cluster.status().processes.into_iter().filter(|process| process.kind != "postgres").collect();
    cluster.must(&["down"]);
    for process in &daemons {
        std::fs::write(cluster.dir.join("run").join(format!("{}.pid", process.name)), "").unwrap();
    }
    std::fs::write(cluster.dir.join("run/endpoint-main.json"), [0; 100]).unwrap();
    assert_eq!(cluster.process("postgres", "main").state, "dead");
    cluster.must(&["up", "--detach"]);
    assert_eq!(cluster.sql("select count(*) from t"), "1");
}
