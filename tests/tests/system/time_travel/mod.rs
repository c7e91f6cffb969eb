//! Read-only endpoints at moments of a branch's history.

mod beside;
mod moments;
mod refusals;

use ironpage_tests::Cluster;

/// Every table of the schema with its rows in number and in sum, its columns, and the valid indexes.
const DIGEST: &str = "select c.relname, \
    (select string_agg(attname || ':' || atttypid::regtype, ',' order by attnum) from pg_attribute \
        where attrelid = c.oid and attnum > 0 and not attisdropped), \
    (select string_agg(i.relname, ',' order by i.relname) from pg_index x join pg_class i on i.oid = x.indexrelid \
        where x.indrelid = c.oid and x.indisvalid), \
    (xpath('/row/d/text()', query_to_xml(format( \
        'select count(*) || '':'' || coalesce(sum(hashtextextended(x::text, 0)), 0) as d from %I x', c.relname), \
        false, true, '')))[1]::text \
    from pg_class c where relnamespace = 'public'::regnamespace and relkind = 'r' and relpersistence = 'p' order by 1";

fn digest(cluster: &Cluster, endpoint: &str) -> String {
    cluster.sql_on(endpoint, DIGEST)
}

/// Where WAL is now: what is committed is before it.
fn lsn(cluster: &Cluster) -> String {
    cluster.sql("select pg_current_wal_insert_lsn()")
}

/// Starts a read-only endpoint of branch main; what was said on the way.
fn start_at(cluster: &Cluster, name: &str, at: &str) -> String {
    let output = cluster.ironpage(&["endpoint", "start", name, "--branch", "main", "--at", at]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "starting {name} at {at}: {said}\n{}", cluster.log_ends());
    said
}

/// Every index agrees with its table, and the pages are what they should be.
fn check_structure(cluster: &Cluster, endpoint: &str) {
    let heaps =
        "select count(*) from pg_class c, lateral verify_heapam(c.oid) where relkind in ('r', 't', 'm') and relpersistence = 'p'";
    assert_eq!(cluster.sql_on(endpoint, heaps), "0", "verify_heapam on {endpoint}");
    let indexes = "select count(bt_index_check(c.oid, true)::text) from pg_class c join pg_am a on a.oid = c.relam \
        join pg_index x on x.indexrelid = c.oid where a.amname = 'btree' and c.relkind = 'i' and relpersistence = 'p' and x.indisvalid";
    cluster.sql_on(endpoint, indexes);
}
