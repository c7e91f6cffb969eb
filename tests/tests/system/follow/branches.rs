//! Branches of a followed server are what the server was.

use super::{Load, branch, follower, number, source, wait_level, wait_state};
use ironpage_tests::Cluster;
use ironpage_tests::stock::{Stock, amcheck, dump, must};
use std::path::{Path, PathBuf};
use std::process::Command;

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

fn busy_days(stock: &Stock, day: &str, rounds: usize) {
    for round in 0..rounds {
        for statement in DAY {
            let _ = stock
                .client("psql")
                .args(["-XAtq", "-d", "postgres", "-c", statement])
                .env("PGOPTIONS", "-c statement_timeout=20s")
                .output();
        }
        stock.sql(&format!("begin; insert into promised values ({round}); prepare transaction '{day} {round}'"));
        if round % 2 == 0 {
            stock.sql(&format!("commit prepared '{day} {round}'"));
        }
    }
}

/// Every page of every relation that both have, by its LSN and the ends of its parts, which hint bits do not change; how many.
fn compare_pages(ours: &Path, theirs: &Path) -> usize {
    let mut dirs = vec![PathBuf::from("global")];
    let bases = std::fs::read_dir(ours.join("base")).unwrap();
    dirs.extend(bases.map(|entry| Path::new("base").join(entry.unwrap().file_name())));
    let mut compared = 0;
    for dir in dirs {
        for entry in std::fs::read_dir(ours.join(&dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let stem = name.split('.').next().unwrap_or_default().trim_end_matches("_vm").trim_end_matches("_init");
            if stem.is_empty() || !stem.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let read = |root: &Path| std::fs::read(root.join(&dir).join(&name)).unwrap_or_default();
            let (one, other) = (read(ours), read(theirs));
            // Some growth is not in the WAL: new pages of zeros, and of a map whose bits nobody has set.
            let rest = one.get(other.len()..).unwrap_or_else(|| panic!("{}/{name} is longer here", dir.display()));
            let is_new = |page: &[u8]| page[24..].iter().all(|byte| *byte == 0);
            assert!(rest.chunks(8192).all(is_new), "{}/{name} has {} bytes here", dir.display(), other.len());
            for (block, (one, other)) in one.chunks(8192).zip(other.chunks(8192)).enumerate() {
                let kept = |page: &[u8]| (page[..8].to_vec(), page[12..20].to_vec());
                assert_eq!(kept(one), kept(other), "block {block} of {}/{name}", dir.display());
                compared += 1;
            }
        }
    }
    for slru in ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"] {
        for entry in std::fs::read_dir(ours.join(slru)).unwrap() {
            let name = entry.unwrap().file_name();
            let read = |root: &Path| std::fs::read(root.join(slru).join(&name)).unwrap_or_default();
            assert!(read(ours) == read(theirs), "{slru}/{} differs", name.display());
        }
    }
    compared
}

fn client(cluster: &Cluster, program: &str, endpoint: &str) -> Command {
    cluster.client(program, endpoint)
}

/// Sequences may be up to 32 values ahead, as after a crash: WAL has them so.
fn assert_equal(what: &str, ours: &str, theirs: &str) {
    let at = |line: &str| line.strip_prefix("SELECT pg_catalog.setval('")?.split(", ").nth(1)?.parse::<i64>().ok();
    let same = |(one, other): &(&str, &str)| match (at(one), at(other)) {
        (Some(ours), Some(theirs)) => (theirs..=theirs + 32).contains(&ours),
        _ => one == other,
    };
    let differs = ours.lines().zip(theirs.lines()).find(|lines| !same(lines));
    if differs.is_some() || ours.lines().count() != theirs.lines().count() {
        panic!("{what}: {} and {} lines, first difference {differs:?}", ours.lines().count(), theirs.lines().count());
    }
}

fn branches_equal(name: &str, initdb: &[&str]) {
    let stock = source(name, initdb);
    stock.sql("create extension amcheck; create table promised(i bigint)");
    stock.sql("create table kept(i int)");
    stock.sql("insert into kept select generate_series(1, 100)");
    stock.sql("begin; delete from kept where i > 50; create table made(i int); prepare transaction 'early'");
    let cluster = Cluster::up(name);
    let load = Load::on(&stock, "4");
    std::thread::scope(|scope| {
        let day = scope.spawn(|| busy_days(&stock, "first", 2));
        cluster.must(&["follow", &stock.url(), "--tenant", "prod"]);
        wait_state(&cluster, "prod", "streaming");
        day.join().expect("a busy day");
    });
    busy_days(&stock, "second", 1);
    drop(load);
    // Both ways a database is made: in the WAL, and by copying files.
    stock.sql("create database other");
    stock.sql("create database copied strategy file_copy");
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

    let copy = Stock::scratch(&format!("{name}-copy")).join("data");
    cluster.must(&["--tenant", "prod", "export", "main", &copy.display().to_string()]);
    stock.sql("checkpoint");
    let pages = compare_pages(&stock.dir, &copy);
    assert!(pages > 2000, "only {pages} pages were compared");

    branch(&cluster, "now", None);
    assert_equal("dumps at the head", &dump(client(&cluster, "pg_dumpall", "now")), &dump(stock.client("pg_dumpall")));
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
