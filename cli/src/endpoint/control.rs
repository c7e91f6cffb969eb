//! pg_control and the WAL of a fresh data directory: it looks as if Postgres had shut down cleanly at X.

use super::basebackup::Received;
use super::paths::DataDir;
use super::wal;
use crate::error::{AtPath, Error, Result};
use ironpage_layout::Lsn;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::wal::checkpoint::CheckpointWal;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use zerocopy::little_endian::I64;

/// Writes both: a shutdown checkpoint at `lsn`, a record end, behind `prefix`, the WAL of its segment up to there.
pub fn write(data_dir: &DataDir, received: &Received, lsn: Lsn, system_id: u64, prefix: &[u8]) -> Result<()> {
    let control = ControlFile::read(&received.control)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let mut checkpoint = control.checkpoint_copy;
    checkpoint.time = I64::new(now);
    checkpoint.full_page_writes = 0;
    let prefix = wal::without_leading_zeros(prefix);
    let fabricated = CheckpointWal::fabricate(lsn, received.prev_record_lsn, &checkpoint, system_id, prefix)
        .map_err(|error| Error::Endpoint(format!("cannot start at {lsn}: {error}")))?;
    wal::write(data_dir, &fabricated)?;
    let path = data_dir.path.join("global/pg_control");
    data_dir.owner.create_file(&path)?.write_all(&fabricated.control(&control).to_file()).at("write", &path)
}
