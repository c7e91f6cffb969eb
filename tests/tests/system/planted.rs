//! Tests that a bug planted in the build must fail: `./dev planted`, docs/planted.md.

use ironpage_tests::{Cluster, Outcome, Session, eventually};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn small(name: &str, cache: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.set_and_restart(&[("shared_buffers", "1MB"), ("ironpage.cache_size", cache), ("autovacuum", "off")]);
    cluster.counter("punches");
    cluster
}

fn counter(session: &mut Session, name: &str) -> u64 {
    session.must(&format!("select value from ironpage_stats() where name = '{name}'")).parse().unwrap()
}

/// A block that the pageserver does not have stays in the cache, however small that is: nobody waits for a
/// pageserver that is away to read what was written since.
#[test]
fn what_the_pageserver_lacks_is_read_without_it() {
    let cluster = small("unacknowledged", "1MB");
    let mut session = cluster.session();
    session.must("create table t(i int, pad text)");
    // Once with the pageserver: what this needs of the catalogs is known afterwards.
    let fill = "insert into t select g, repeat('x', 700) from generate_series(1, 5000) g";
    let read = "select count(*), sum(i) from t";
    session.must(fill);
    session.must("truncate t");
    assert_eq!(session.must(read), "0|");
    cluster.kill(&cluster.nth("pageserver", 0));

    let looked_at = |session: &mut Session| counter(session, "unacknowledged") + counter(session, "punches");
    let before = looked_at(&mut session);
    session.must(fill);
    session.must("checkpoint");
    eventually("the janitor looks at the new blocks", MINUTE, || (looked_at(&mut session) > before + 300).then_some(()));
    assert_eq!(session.run(read, Duration::from_secs(20)), Outcome::Success("5000|12502500".into()));

    cluster.start();
    assert_eq!(cluster.sql(read), "5000|12502500");
}

/// Pages out of the redo worker are those that Postgres wrote, to the byte.
#[test]
fn redone_pages_are_those_that_were_written() {
    let cluster = small("redone", "64MB");
    let mut session = cluster.session();
    session.must("create table t(i int primary key, pad text)");
    session.must("insert into t select g, repeat('x', 100) from generate_series(1, 20000) g");
    session.must("update t set pad = repeat('y', 100) where i % 3 = 0");
    session.must("delete from t where i % 5 = 0");
    session.must("checkpoint");
    session.must("set ironpage.paranoid = on");
    let records = cluster.pageserver_counter("redo_records");
    eventually("pages are compared", MINUTE, || {
        assert_eq!(session.must("select count(*), count(pad) from t"), "16000|16000");
        (counter(&mut session, "compared") >= 300).then_some(())
    });
    assert!(cluster.pageserver_counter("redo_records") > records, "nothing was redone");
    assert_eq!(counter(&mut session, "differing"), 0);
}
