//! What cannot come in or go out, and what is said of it.

use ironpage_tests::stock::{must, tool};
use ironpage_tests::{Cluster, Stock};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn refused(cluster: &Cluster, arguments: &[&str], wanted: &[&str]) {
    let output = cluster.ironpage(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "{arguments:?}: no '{wanted}' in: {said}");
    }
}

fn copy(from: &Path, to: &Path) {
    must(tool("../../../../bin/cp").arg("-a").arg(from).arg(to));
}

/// Changes bytes of a file in place.
fn patch(file: &Path, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn what_cannot_be_imported_is_refused_with_the_way_out() {
    let dir = Stock::scratch("refusals");
    let stock = Stock::init(&dir.join("source"), &["-k"]);
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let import = |cluster: &Cluster, what: &str, wanted: &[&str]| refused(cluster, &["import", what, "--tenant", "shop"], wanted);
    let cluster = Cluster::up("import-refusals");

    import(&cluster, &path("nowhere"), &["no such directory"]);
    import(&cluster, &path(""), &["PG_VERSION", "SHOW data_directory"]);
    stock.start();
    import(&cluster, &path("source"), &["a server runs on it", "pg_ctl stop", "postgres://"]);
    stock.sql("create table damaged as select g, md5(g::text) from generate_series(1, 5000) g");
    let file = stock.sql("select pg_relation_filepath('damaged')");
    must(stock.client("pg_basebackup").arg("-D").arg(dir.join("tars")).args(["-Ft", "-X", "fetch", "--no-sync", "-c", "fast"]));
    stock.sql("select pg_switch_wal()");
    must(tool("pg_ctl").arg("-D").arg(&stock.dir).args(["stop", "-m", "immediate"]));
    import(&cluster, &path("source"), &["was not shut down cleanly", "pg_ctl stop -m fast"]);
    stock.start();
    stock.stop();

    // Of another release: as its version file says, and as pg_control does.
    copy(&stock.dir, &dir.join("old"));
    std::fs::write(dir.join("old/PG_VERSION"), "14\n").unwrap();
    import(&cluster, &path("old"), &["Postgres 14", "pg_upgrade"]);
    std::fs::write(dir.join("old/PG_VERSION"), "15\n").unwrap();
    patch(&dir.join("old/global/pg_control"), 12, &202_107_181u32.to_le_bytes());
    import(&cluster, &path("old"), &["catalog version 202107181", "only Postgres 15"]);
    copy(&stock.dir, &dir.join("torn-control"));
    patch(&dir.join("torn-control/global/pg_control"), 100, &[0x55]);
    import(&cluster, &path("torn-control"), &["pg_control", "CRC"]);

    copy(&stock.dir, &dir.join("damaged"));
    patch(&dir.join("damaged").join(&file), 3 * 8192 + 5000, &[0x55; 4]);
    import(&cluster, &path("damaged"), &["block 3", &file, "checksum", "pg_checksums"]);
    copy(&stock.dir, &dir.join("no-wal"));
    for segment in std::fs::read_dir(dir.join("no-wal/pg_wal")).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::OpenOptions::new().write(true).open(segment.path()).unwrap().set_len(0).unwrap();
    }
    import(&cluster, &path("no-wal"), &["checkpoint", "is not in its WAL"]);

    // Tars: cut in a file, cut at the end of one, and of something else.
    let base = dir.join("tars/base.tar");
    let length = std::fs::metadata(&base).unwrap().len();
    let cut = |length: u64| std::fs::OpenOptions::new().write(true).open(&base).unwrap().set_len(length).unwrap();
    cut(length - 1024);
    import(&cluster, &path("tars"), &["base.tar", "read to its end", "take a new backup"]);
    cut(length / 2 + 100);
    import(&cluster, &path("tars/base.tar"), &["base.tar", "read to its end"]);
    std::fs::write(&base, "no tar at all").unwrap();
    import(&cluster, &path("tars/base.tar"), &["base.tar"]);

    import(&cluster, "postgres://127.0.0.1:1/postgres", &["127.0.0.1:1", "psql failed"]);
    refused(&cluster, &["import", &path("source"), "--tenant", "a/b"], &["a/b", "cannot be a name"]);

    // Nothing of all that is left: the name is free.
    cluster.must(&["import", &path("source"), "--tenant", "shop"]);
    import(&cluster, &path("source"), &["'shop' has a branch 'main' already"]);

    refused(&cluster, &["export", "main", &path("source"), "--tenant", "shop"], &["not empty"]);
    refused(&cluster, &["export", "nothing", &path("out"), "--tenant", "shop"], &["nothing"]);
    assert!(!dir.join("out").exists());
    drop(cluster);
    std::fs::remove_dir_all(dir).unwrap();
}
