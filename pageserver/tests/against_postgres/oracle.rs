//! Recovery of the same WAL by Postgres itself, from a cold copy of the initial state.

use crate::datadir::DataDir;
use crate::scratch::{Scratch, copy, program};
use ironpage_layout::Lsn;
use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Stdio;

/// The data directory after recovery up to and including the record that starts at `last_record`, a shutdown checkpoint:
/// only there does recovery write everything out before it stops.
pub fn recover(scratch: &Scratch, last_record: Lsn) -> DataDir {
    let dir = scratch.dir.join("oracle");
    copy(&scratch.initial.0, &dir);
    let mut settings = OpenOptions::new().append(true).open(dir.join("postgresql.auto.conf")).unwrap();
    writeln!(
        settings,
        "restore_command = 'cp {}/pg_wal/%f \"%p\"'\n\
         recovery_target_lsn = '{last_record}'\nrecovery_target_inclusive = on\nrecovery_target_action = 'shutdown'\n\
         hot_standby = off\nautovacuum = off",
        scratch.primary.0.display()
    )
    .unwrap();
    // Its content does not matter; as a copy it belongs to the right user.
    copy(&dir.join("PG_VERSION"), &dir.join("recovery.signal"));
    let log = scratch.dir.join("oracle.log");
    let output = fs::File::create(&log).unwrap();
    let errors = output.try_clone().unwrap();
    // It ends by itself at the target.
    program("postgres").arg("-D").arg(&dir).stdin(Stdio::null()).stdout(output).stderr(errors).status().unwrap();
    let oracle = DataDir(dir);
    assert_eq!(oracle.checkpoint(), last_record, "recovery ended early; see {}", log.display());
    oracle
}
