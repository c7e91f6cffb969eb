//! Branch points in the midst of things: what is under way in the parent is over in the branch, and nothing of it is there.

use super::{Load, check_on, start, stop, with_pgbench};
use ironpage_tests::{Cluster, Outcome, Session, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A session with a statement under way, which the server says it is at.
fn begun(cluster: &Cluster, statement: &str, before: &[&str]) -> Session {
    let mut session = cluster.session();
    let pid = session.must("select pg_backend_pid()");
    for sql in before {
        session.must(sql);
    }
    assert!(session.send(statement));
    let at_it = format!("select count(*) from pg_stat_activity where pid = {pid} and state = 'active' and query like '{}%'", {
        &statement[..12]
    });
    wait_until(statement, SOON, || cluster.sql(&at_it) == "1");
    session
}

fn ended(mut session: Session) {
    let outcome = session.answer(Duration::from_secs(120));
    assert!(matches!(outcome, Outcome::Success(_)), "{outcome:?}");
}

/// What every side must show that does not know how things ended in the parent: exactly what was committed before.
fn assert_as_before(cluster: &Cluster, endpoint: &str) {
    let sql = |sql: &str| cluster.sql_on(endpoint, sql);
    assert_eq!(sql("select count(*) || ' ' || sum(i) from open_rows"), "100 5050");
    assert_eq!(sql("select count(*) from to_truncate"), "1000");
    assert_eq!(sql("select count(*) from to_drop"), "1000");
    assert_eq!(sql("select count(*) from slow"), "400");
    assert_eq!(sql("select count(*) from pg_class where relname in ('open_new', 'slow_index')"), "0");
    assert_eq!(sql("select count(*) from dead"), "10000");
    assert_eq!(sql("select count(*) from truncated"), "0");
    assert_eq!(sql("select count(*) from pg_class where relname = 'dropped'"), "0");
    assert_eq!(sql("select string_agg(gid, ',') from pg_prepared_xacts"), "there");
    // It may be there, not valid, as after a crash: the word of the manual is to drop it.
    sql("drop index if exists concurrent");
}

#[test]
fn what_is_under_way_at_the_branch_point_is_right_on_both_sides() {
    let cluster = with_pgbench("branch-midst");
    cluster.sql(
        "create table open_rows as select generate_series(1, 100) i; \
         create table to_truncate as select generate_series(1, 1000) i; create index on to_truncate(i); \
         create table to_drop as select generate_series(1, 1000) i; create index on to_drop(i); \
         create table truncated as select generate_series(1, 1000) i; create index on truncated(i); \
         create table dropped as select generate_series(1, 1000) i; \
         create table slow as select generate_series(1, 400) i; \
         create table dead as select i, repeat('x', 300) filler from generate_series(1, 20000) i; \
         create index on dead(i); create table prepared(i int primary key); create sequence s; \
         create function slowly(i int) returns int language plpgsql immutable as \
         $$ begin perform pg_sleep(0.1); return i; end $$",
    );
    cluster.sql("delete from dead where i % 2 = 0");
    cluster.sql("truncate truncated");
    cluster.sql("drop table dropped");
    let drawn: i64 = cluster.sql("select max(nextval('s')) from generate_series(1, 40)").parse().unwrap();
    cluster.sql("begin; insert into prepared values (1), (2); prepare transaction 'there'");

    let mut open = cluster.session();
    for sql in [
        "begin",
        "insert into open_rows select 1000 from generate_series(1, 500)",
        "update open_rows set i = -1 where i <= 50",
        "truncate to_truncate",
        "drop table to_drop",
        "create table open_new as select generate_series(1, 1000) i",
        "savepoint a",
        "delete from open_rows where i > 90",
    ] {
        open.must(sql);
    }
    let index = begun(&cluster, "create index slow_index on slow(slowly(i))", &[]);
    let slow_vacuum = ["set vacuum_cost_delay = 20", "set vacuum_cost_limit = 5"];
    let vacuum = begun(&cluster, "vacuum (freeze) dead", &slow_vacuum);
    // It waits for the transactions that are open.
    let concurrent = begun(&cluster, "create index concurrently concurrent on open_rows(i)", &[]);
    let load = Load::on_main(&cluster);
    std::thread::sleep(Duration::from_secs(1));

    let point = cluster.json(&["branch", "create", "commits"])["lsn"].as_str().unwrap().to_string();
    cluster.must(&["branch", "create", "aborts"]);
    for sql in ["savepoint b", "insert into open_rows values (7)", "commit"] {
        open.must(sql);
    }
    cluster.sql("commit prepared 'there'");
    [index, vacuum, concurrent].into_iter().for_each(ended);
    cluster.must(&["branch", "create", "later", "--at", &point]);

    for branch in ["commits", "aborts", "later"] {
        start(&cluster, branch);
        assert_as_before(&cluster, branch);
        assert_eq!(cluster.sql_on(branch, "select count(*) from prepared"), "0");
        let next: i64 = cluster.sql_on(branch, "select nextval('s')").parse().unwrap();
        assert!(next > drawn, "the sequence went back to {next}, {drawn} was drawn");
    }
    cluster.sql_on("commits", "commit prepared 'there'");
    cluster.sql_on("aborts", "rollback prepared 'there'");
    for (branch, rows) in [("commits", "2"), ("aborts", "0"), ("later", "0")] {
        assert_eq!(cluster.sql_on(branch, "select count(*) from prepared"), rows);
        for sql in ["create index slow_index on slow(i)", "vacuum (freeze) dead", "truncate to_truncate", "drop table to_drop"] {
            cluster.sql_on(branch, sql);
        }
        check_on(&cluster, branch);
        stop(&cluster, branch);
        start(&cluster, branch);
        assert_eq!(cluster.sql_on(branch, "select count(*) from prepared"), rows);
        assert_eq!(cluster.sql_on(branch, "select count(*) from to_truncate"), "0");
        check_on(&cluster, branch);
        stop(&cluster, branch);
    }
    drop(load);
    assert_eq!(cluster.sql("select count(*) from prepared"), "2");
    assert_eq!(
        cluster.sql("select count(*) filter (where i = 1000) || ' ' || count(*) filter (where i = 7) from open_rows"),
        "0 1"
    );
    assert_eq!(cluster.sql("select count(*) from to_truncate"), "0");
    assert_eq!(cluster.sql("select count(*) from pg_class where relname in ('open_new', 'slow_index', 'to_drop')"), "2");
    check_on(&cluster, "main");
}

/// pgbench on any endpoint until dropped.
struct Busy(std::process::Child);

impl Busy {
    fn on(cluster: &Cluster, endpoint: &str) -> Busy {
        let mut command = cluster.client("pgbench", endpoint);
        command.args(["-n", "-c", "2", "-T", "600", "postgres"]);
        Busy(command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("starting pgbench"))
    }

    fn is_busy(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn reset_and_restore_leave_busy_siblings_alone() {
    let cluster = with_pgbench("branch-siblings");
    for branch in ["left", "right"] {
        cluster.must(&["branch", "create", branch]);
        start(&cluster, branch);
    }
    let early = cluster.branch("left").parent_lsn.unwrap();
    let (mut parent, mut sibling) = (Busy::on(&cluster, "main"), Busy::on(&cluster, "right"));
    for round in 0..3 {
        cluster.sql_on(
            "left",
            &format!("create table mess_{round}(i int); update pgbench_accounts set abalance = 1 where aid < 1000"),
        );
        if round == 2 {
            // The last: from then on the parent is what it was before.
            let first = cluster.branch("left").parent_lsn.unwrap();
            assert_ne!(first, early, "the reset before brought a later head");
            cluster.must(&["branch", "restore", "left", "--at", &first]);
        } else {
            cluster.must(&["branch", "reset", "left", "--recursive"]);
        }
        assert_eq!(cluster.sql_on("left", "select count(*) from pg_class where relname like 'mess%'"), "0");
        check_on(&cluster, "left");
        assert!(parent.is_busy() && sibling.is_busy(), "a sibling's clients were disturbed in round {round}");
    }
    drop((parent, sibling));
    check_on(&cluster, "main");
    check_on(&cluster, "right");
}
