//! A read-only endpoint: stock Postgres as a hot standby that stays at one LSN.
//!
//! Its data directory is that of a primary that shut down there, and it is told to be a standby of nobody: it waits for
//! WAL that never comes, answers reads and refuses writes. It has no term, so it fences nobody and nobody fences it.

use super::basebackup::{self, Received};
use super::control;
use super::paths::{DataDir, Paths};
use super::postgres;
use super::ticket::{Mode, Ticket};
use crate::cluster::Cluster;
use crate::error::{AtPath, Result};
use crate::files;
use crate::place::Place;
use crate::programs::Programs;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::wal::page_header::PageHeader;
use ironpage_layout::{Lsn, Term};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use zerocopy::little_endian::I32;

/// The file that makes Postgres a standby (STANDBY_SIGNAL_FILE, access/xlog.h).
const STANDBY_SIGNAL: &str = "standby.signal";
/// WAL_LEVEL_REPLICA (access/xlog.h).
const WAL_LEVEL_REPLICA: i32 = 1;
/// max_prepared_transactions of an endpoint: what is prepared must have room.
const PREPARED_MIN: i32 = 64;

/// What a start needs beside its data directory.
pub struct Prepared {
    /// Settings for the command line, where nothing overrides them.
    pub settings: Vec<(&'static str, String)>,
}

/// Makes the data directory of a start on a snapshot.
pub fn prepare(cluster: &Cluster, paths: &Paths, programs: &Programs, place: &Place, data_dir: &DataDir) -> Result<Prepared> {
    let (lsn, system_id) = (place.branch.start_lsn, place.branch.system_id);
    DirBuilder::new().recursive(true).mode(0o755).create(&paths.dir).at("create directory", &paths.dir)?;
    files::remove_if_there(&data_dir.path)?;
    basebackup::create_tree(data_dir)?;
    let received = basebackup::fetch(&cluster.pageserver(), place.identity(), Term(0), lsn, data_dir)?;
    let (received, prepared_max) = without_requirements(received)?;
    control::write(data_dir, &received, lsn, system_id, &blank_page(lsn, system_id))?;
    let signal = data_dir.path.join(STANDBY_SIGNAL);
    data_dir.owner.create_file(&signal)?;
    postgres::write_configuration(data_dir, paths)?;
    postgres::install_library(paths, programs)?;
    let ticket = Ticket { mode: Mode::ReadOnly, start_lsn: lsn, tenant: place.tenant, timeline: place.branch.id, system_id };
    ticket.write(&data_dir.path, &data_dir.owner)?;
    Ok(Prepared { settings: settings(prepared_max) })
}

/// A standby refuses to replay WAL of a primary with larger limits than its own (CheckRequiredParameterValues,
/// xlogrecovery.c). This one replays none, so its limits are its own affair: all but the room for what is prepared.
fn without_requirements(received: Received) -> Result<(Received, i32)> {
    let mut control = ControlFile::read(&received.control)?;
    let prepared_max = control.max_prepared_xacts.get();
    control.wal_level = I32::new(WAL_LEVEL_REPLICA);
    for limit in [
        &mut control.max_connections,
        &mut control.max_worker_processes,
        &mut control.max_wal_senders,
        &mut control.max_locks_per_xact,
    ] {
        *limit = I32::ZERO;
    }
    Ok((Received { control: control.to_bytes().to_vec(), ..received }, prepared_max))
}

/// The page of WAL that the checkpoint's record stands in, without the records before it: nothing reads those, so no
/// safekeeper is needed for them.
fn blank_page(lsn: Lsn, system_id: u64) -> Vec<u8> {
    let mut page = Vec::new();
    if lsn.page_offset() != 0 {
        PageHeader::write(lsn.page_start(), 0, 0, system_id, &mut page);
        page.resize(lsn.page_offset() as usize, 0);
    }
    page
}

fn settings(prepared_max: i32) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("hot_standby", "on".to_string()),
        // Between two looks for WAL it logs a line; there is nothing to look for.
        ("wal_retrieve_retry_interval", i32::MAX.to_string()),
        ("recovery_target_timeline", "current".into()),
        // Tablespaces are directories inside the endpoint; a standby checks for links otherwise
        // (CheckTablespaceDirectory, xlogrecovery.c).
        ("allow_in_place_tablespaces", "on".into()),
        ("max_prepared_transactions", prepared_max.max(PREPARED_MIN).to_string()),
    ];
    let empty = [
        "primary_conninfo",
        "restore_command",
        "promote_trigger_file",
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
    ];
    settings.extend(empty.map(|name| (name, String::new())));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironpage_layout::postgres::control::CheckPoint;
    use ironpage_layout::postgres::wal::checkpoint::CheckpointWal;
    use zerocopy::FromZeros;

    #[test]
    fn a_checkpoint_can_stand_behind_a_blank_page_wherever_a_record_ends() {
        // On a page boundary, in the first page of a segment, in others, with too little room left for the record.
        for lsn in [0x200_0000, 0x200_0030, 0x200_2000, 0x200_2020, 0x200_3FF8, 0x2FF_FFF8].map(Lsn) {
            let (checkpoint, page) = (CheckPoint::new_zeroed(), blank_page(lsn, 7));
            CheckpointWal::fabricate(lsn, Lsn(lsn.0 - 100), &checkpoint, 7, &page)
                .unwrap_or_else(|error| panic!("{lsn}: {error}"));
        }
    }
}
