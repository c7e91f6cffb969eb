//! A history of all that changes a database, and what endpoints at its moments show.

use super::{check_structure, digest, lsn, start_at};
use ironpage_tests::{Cluster, Session};

/// A moment as it was lived through.
struct Moment {
    what: &'static str,
    lsn: String,
    /// Microseconds since 1970.
    time: String,
    digest: String,
    sequence: i64,
    next_oid: i64,
}

struct History<'a> {
    cluster: &'a Cluster,
    moments: Vec<Moment>,
}

impl History<'_> {
    /// Notes what is visible now, between two commits.
    fn note(&mut self, what: &'static str) {
        let cluster = self.cluster;
        let number = |sql: &str| -> i64 { cluster.sql(sql).parse().unwrap() };
        self.moments.push(Moment {
            what,
            lsn: lsn(cluster),
            time: cluster.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"),
            digest: digest(cluster, "main"),
            sequence: number("select last_value from s"),
            next_oid: number("select coalesce(max(oid)::bigint, 0) from pg_class"),
        });
        // A commit ends the moment, whatever else is going on.
        cluster.sql("select txid_current()");
    }
}

fn live_through(cluster: &Cluster) -> Vec<Moment> {
    cluster.sql("create extension amcheck");
    cluster.sql("alter system set track_commit_timestamp = on");
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    let mut history = History { cluster, moments: Vec::new() };
    cluster.sql("create sequence s; create unlogged table u as select 1; create index on u ((1))");
    history.note("a sequence, an unlogged table");
    cluster.sql(
        "create table a(id int primary key, word text); insert into a select g, md5(g::text) from generate_series(1, 20000) g",
    );
    cluster.sql("create table b as select g id, repeat('b', 100) pad from generate_series(1, 5000) g");
    cluster.sql("select nextval('s') from generate_series(1, 40)");
    cluster.sql("create table d as select * from a");
    history.note("rows");
    cluster.sql("update a set word = 'even' where id % 2 = 0");
    cluster.sql("delete from a where id % 7 = 0");
    history.note("updates and deletes");
    let mut open: Session = cluster.session();
    open.must("begin");
    open.must("insert into a select g, 'open' from generate_series(100001, 101000) g");
    open.must("savepoint one");
    open.must("update a set word = 'open' where id = 1");
    open.must("create table later as select 1 one");
    history.note("an open transaction with a savepoint");
    cluster.sql("truncate b");
    history.note("truncate");
    cluster.sql("insert into b select g, 'again' from generate_series(1, 3000) g");
    let mut prepared = cluster.session();
    prepared.must("begin");
    prepared.must("insert into a select g, 'prepared' from generate_series(200001, 200500) g");
    prepared.must("savepoint two");
    prepared.must("delete from b where id = 5");
    prepared.must("prepare transaction 'two phases'");
    history.note("a prepared transaction");
    // Not on what the open transactions hold.
    for index in
        ["on d(word) where id < 20000", "on d using hash(id)", "on d using gist (point(id, id))", "on d using gin ((array[id]))"]
    {
        cluster.sql(&format!("create index {index}"));
    }
    history.note("indexes");
    open.must("commit");
    history.note("the open transaction is committed");
    cluster.sql("vacuum a");
    cluster.sql("vacuum (freeze) b");
    history.note("vacuum");
    cluster.sql("commit prepared 'two phases'");
    history.note("the prepared transaction is committed");
    cluster.sql("create tablespace elsewhere location '/nowhere'");
    cluster.sql("create table c tablespace elsewhere as select * from a");
    cluster.sql("alter table a add column more int default 5, drop column word");
    history.note("a tablespace, columns come and go");
    cluster.sql("drop table b; drop table later");
    history.note("tables dropped");
    cluster.sql("create index c_id on c(id)");
    for statement in ["vacuum full a", "cluster c using c_id", "reindex table a"] {
        cluster.sql(statement);
    }
    history.note("tables rewritten");
    history.moments
}

fn check(cluster: &Cluster, moment: &Moment) {
    let what = moment.what;
    assert_eq!(digest(cluster, "past"), moment.digest, "{what} at {} / {}", moment.lsn, moment.time);
    check_structure(cluster, "past");
    let on_past = |sql: &str| cluster.sql_on("past", sql);
    assert_eq!(on_past("select pg_is_in_recovery()"), "t");
    // WAL has a sequence's values in advance.
    let sequence: i64 = on_past("select last_value from s").parse().unwrap();
    assert!((moment.sequence..moment.sequence + 33).contains(&sequence), "{what}: {sequence}, was {}", moment.sequence);
    let next_oid: i64 = on_past("select coalesce(max(oid)::bigint, 0) from pg_class").parse().unwrap();
    assert_eq!(next_oid, moment.next_oid, "{what}");
    assert_eq!(on_past("select count(*) from pg_class where relname = 'u'"), "1");
    assert!(cluster.try_sql_on("past", "postgres", "select * from u").unwrap_err().contains("during recovery"));
}

#[test]
fn endpoints_at_lsns_and_times_show_what_was_there_then() {
    let cluster = Cluster::up("moments");
    let moments = live_through(&cluster);
    let now = digest(&cluster, "main");
    for moment in &moments {
        for at in [&moment.lsn, &moment.time] {
            start_at(&cluster, "past", at);
            check(&cluster, moment);
            cluster.must(&["endpoint", "stop", "past"]);
        }
    }
    assert_eq!(digest(&cluster, "main"), now, "the primary takes no notice");
    let branches = cluster.must(&["branch", "list"]);
    assert!(!branches.contains("at-past"), "stopped endpoints leave no snapshot:\n{branches}");
}

#[test]
fn a_tiny_cache_in_evict_everything_mode_shows_the_same() {
    let cluster = Cluster::up("tiny-past");
    let moments = live_through(&cluster);
    start_at(&cluster, "past", &moments[0].lsn);
    for (name, value) in
        [("shared_buffers", "1MB"), ("ironpage.cache_size", "1MB"), ("ironpage.paranoid", "on"), ("max_connections", "20")]
    {
        cluster.sql_on("past", &format!("alter system set {name} = '{value}'"));
    }
    cluster.must(&["endpoint", "stop", "past"]);
    for moment in [&moments[3], &moments[7], &moments[8]] {
        start_at(&cluster, "past", &moment.lsn);
        assert_eq!(cluster.sql_on("past", "show max_connections"), "20", "fewer than the primary has");
        for _ in 0..3 {
            check(&cluster, moment);
        }
        cluster.must(&["endpoint", "stop", "past"]);
    }
}

#[test]
fn commit_timestamps_are_those_of_then() {
    let cluster = Cluster::up("past-times");
    cluster.set_and_restart(&[("track_commit_timestamp", "on")]);
    cluster.sql("create table t as select 1 i");
    let then = cluster.sql("select pg_xact_commit_timestamp(xmin) from t");
    let at = lsn(&cluster);
    cluster.sql("update t set i = 2");
    start_at(&cluster, "past", &at);
    assert_eq!(cluster.sql_on("past", "select i, pg_xact_commit_timestamp(xmin) from t"), format!("1|{then}"));
}
