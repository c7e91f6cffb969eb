//! What the scratch clusters do.

use crate::scratch::{Scratch, run};
use std::fs;

/// Something of everything that writes WAL.
pub fn everything(scratch: &Scratch) {
    everything_but_the_end(scratch);
    end(scratch);
}

pub fn everything_but_the_end(scratch: &Scratch) {
    scratch.sql("postgres", &include_str!("workload.sql").replace("@DIR@", &scratch.dir.display().to_string()));
    scratch.sql("postgres", "CREATE DATABASE copied STRATEGY file_copy TEMPLATE template1");
    scratch.sql("postgres", "CREATE DATABASE logged STRATEGY wal_log");
    scratch.sql("logged", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a; CREATE INDEX ON t (a)");
    scratch.sql("copied", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a; CREATE INDEX ON t (a)");
    scratch.sql("postgres", "CREATE DATABASE moved");
    scratch.sql("postgres", "ALTER DATABASE moved SET TABLESPACE elsewhere");
    scratch.sql("postgres", "CREATE DATABASE gone");
    scratch.sql("postgres", "DROP DATABASE gone");
    run(scratch.client("pgbench").args(["-q", "-i", "-s", "2", "postgres"]));
    // Rows that several sessions lock at once have multixacts.
    let shared = scratch.dir.join("shared.sql");
    fs::write(&shared, include_str!("shared.sql")).unwrap();
    run(scratch.client("pgbench").args(["-n", "-c", "8", "-j", "2", "-t", "150", "-f"]).arg(&shared).arg("postgres"));
    run(scratch.client("pgbench").args(["-n", "-c", "4", "-j", "2", "-t", "1500", "postgres"]));
}

/// What a stop finds.
pub fn end(scratch: &Scratch) {
    scratch.sql("postgres", include_str!("finish.sql"));
}

/// A table, and one transaction left prepared.
pub fn little(scratch: &Scratch) {
    scratch.sql(
        "postgres",
        "CREATE TABLE t (a int PRIMARY KEY, b text);
         INSERT INTO t SELECT g, repeat('t', 100) FROM generate_series(1, 20000) g;
         DELETE FROM t WHERE a % 5 = 0;
         CREATE UNLOGGED TABLE u (a int PRIMARY KEY);
         BEGIN; INSERT INTO t VALUES (0, 'prepared'); PREPARE TRANSACTION 'open';
         VACUUM t;
         UPDATE t SET b = b || '!' WHERE a % 7 = 0;",
    );
}

/// What a branch point may fall into.
pub fn branching(scratch: &Scratch) {
    scratch.sql("postgres", include_str!("branching.sql"));
    run(scratch.client("pgbench").args(["-q", "-i", "-s", "1", "postgres"]));
    // Rows that several sessions lock at once have multixacts.
    let shared = scratch.dir.join("shared.sql");
    fs::write(&shared, include_str!("shared.sql")).unwrap();
    run(scratch.client("pgbench").args(["-n", "-c", "6", "-j", "2", "-t", "60", "-f"]).arg(&shared).arg("postgres"));
    run(scratch.client("pgbench").args(["-n", "-c", "4", "-j", "2", "-t", "400", "postgres"]));
    scratch.sql("postgres", "VACUUM (FREEZE) pgbench_accounts; UPDATE pgbench_branches SET filler = 'last'");
}
