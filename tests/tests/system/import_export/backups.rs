//! What is not a directory that was shut down: tars, base backups, running servers, other Postgres timelines.

use super::{assert_same, source};
use ironpage_tests::stock::{amcheck, dump, must, tool};
use ironpage_tests::{Cluster, Stock};
use std::path::Path;

fn import_and_compare(cluster: &Cluster, tenant: &str, what: &str, whole: &str) {
    let output = cluster.ironpage(&["import", what, "--tenant", tenant]);
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    cluster.must(&["endpoint", "start", tenant, "--tenant", tenant]);
    assert_same(what, whole, &dump(cluster.client("pg_dumpall", tenant)));
    amcheck(cluster.client("pg_amcheck", tenant));
    cluster.must(&["endpoint", "stop", tenant]);
}

fn basebackup(stock: &Stock, to: &Path, arguments: &[&str]) {
    must(stock.client("pg_basebackup").arg("-D").arg(to).args(["-c", "fast", "--no-sync"]).args(arguments));
}

#[test]
fn backups_of_every_form_come_in() {
    let dir = Stock::scratch("backups");
    let stock = source(&dir, 10, &["-k"]);
    let whole = dump(stock.client("pg_dumpall"));
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let mapping = format!("{}={}", path("space"), path("plain-space"));
    basebackup(&stock, &dir.join("plain"), &["-Fp", "-X", "stream", "-T", &mapping]);
    basebackup(&stock, &dir.join("tars"), &["-Ft", "-X", "stream"]);
    basebackup(&stock, &dir.join("packed"), &["-Ft", "-z", "-X", "fetch"]);
    let cluster = Cluster::up("import-backups");
    import_and_compare(&cluster, "plain", &path("plain"), &whole);
    import_and_compare(&cluster, "tars", &path("tars/base.tar"), &whole);
    import_and_compare(&cluster, "packed", &path("packed"), &whole);
    import_and_compare(&cluster, "running", &stock.url(), &whole);
    stock.stop();

    // A tar of a directory as it lies, of a server that was shut down.
    must(tool("../../../../bin/tar").args(["-C", &path(""), "-cf", &path("lying.tar"), "source"]));
    let output = cluster.ironpage(&["import", &path("lying.tar"), "--tenant", "lying"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("tablespace"), "its tablespace is not in it: {said}");

    // No copy is left, and a tenant whose import failed is none.
    let left = std::fs::read_dir(&cluster.dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("ironpage-import-"));
    assert_eq!(left.count(), 0);
    let again = cluster.ironpage(&["import", &path("source"), "--tenant", "lying"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    drop(cluster);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_server_on_another_postgres_timeline_comes_in() {
    let dir = Stock::scratch("timelines");
    let stock = Stock::init(&dir.join("source"), &[]);
    stock.start();
    stock.sql("create table t as select g from generate_series(1, 1000) g");
    basebackup(&stock, &dir.join("promoted"), &["-X", "stream"]);
    stock.stop();
    let promoted = Stock::on(&dir.join("promoted"));
    std::fs::write(promoted.dir.join("recovery.signal"), "").unwrap();
    let conf = promoted.dir.join("postgresql.auto.conf");
    std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + "restore_command = 'false'\n").unwrap();
    promoted.start();
    ironpage_tests::wait_until("it is promoted", std::time::Duration::from_secs(30), || {
        promoted.sql("select pg_is_in_recovery()") == "f"
    });
    promoted.sql("insert into t select g from generate_series(1, 500) g");
    let timeline = promoted.sql("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)");
    assert_eq!(timeline, "00000002");
    let whole = dump(promoted.client("pg_dumpall"));
    promoted.stop();
    let cluster = Cluster::up("import-timelines");
    let said = cluster.ironpage(&["import", &promoted.dir.to_string_lossy(), "--tenant", "promoted"]);
    assert!(said.status.success(), "{said:?}");
    cluster.must(&["endpoint", "start", "promoted", "--tenant", "promoted"]);
    assert_same("promoted", &whole, &dump(cluster.client("pg_dumpall", "promoted")));
    // Its WAL goes on, and is read from its first record on.
    let postgres = cluster.process("postgres", "promoted");
    let psql = |sql: &str| must(cluster.client("psql", "promoted").args(["-XAtq", "-d", "postgres", "-c", sql]));
    let start = psql("select redo_lsn from pg_control_checkpoint()");
    psql("insert into t select g from generate_series(1, 500) g");
    let end = psql("select pg_current_wal_flush_lsn()");
    let records = must(tool("pg_waldump").arg("-p").arg(postgres.data_dir.join("pg_wal")).args(["-s", &start, "-e", &end]));
    assert!(records.lines().count() > 500 && records.lines().next().unwrap().contains("CHECKPOINT_SHUTDOWN"), "{records}");
    drop(cluster);
    std::fs::remove_dir_all(dir).unwrap();
}
