//! A stock data directory that can be imported: what must be true of it, and where its history ends.

use crate::error::{AtPath, Error, Result};
use ironpage_layout::Lsn;
use ironpage_layout::lsn::{WAL_PAGE_SIZE, WAL_SEGMENT_SIZE};
use ironpage_layout::postgres::checksum::Checksums;
use ironpage_layout::postgres::control::{CheckPoint, ControlFile, state};
use ironpage_layout::postgres::rmgr::{Rmgr, xlog};
use ironpage_layout::postgres::wal::{DecodedRecord, Next, Verify, WalStream};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zerocopy::little_endian::U32;

/// Bytes of WAL that hold a checkpoint's record wherever it begins: it crosses one page's end at most.
const CHECKPOINT_BYTES_MAX: u64 = 2 * WAL_PAGE_SIZE;

/// A data directory of a server that was shut down cleanly.
#[derive(Clone, PartialEq, Debug)]
pub struct DataDirectory {
    pub dir: PathBuf,
    /// As it is imported: on Postgres timeline 1, which is the only one our WAL knows.
    pub control: ControlFile,
    /// Where its own WAL ends: no page may be newer.
    pub end_lsn: Lsn,
    /// Start of its last record, the shutdown checkpoint.
    pub prev_record_lsn: Lsn,
    /// Where ours begins: the first segment that has none of its WAL, which may be of another Postgres timeline.
    pub start_lsn: Lsn,
    /// The file's bytes, to see whether a server was started meanwhile.
    control_bytes: Vec<u8>,
}

/// Why a directory cannot be imported, and the way out.
pub fn refuse(dir: &Path, why: impl Into<String>, way_out: impl Into<String>) -> Error {
    Error::NotImportable { what: dir.to_path_buf(), why: why.into(), way_out: way_out.into() }
}

impl DataDirectory {
    /// Looks at the directory and refuses what is none, is in use, is of another release or was not shut down.
    pub fn open(dir: &Path) -> Result<DataDirectory> {
        check(dir)?;
        let (control_bytes, control) = read_control(dir)?;
        check_state(dir, &control)?;
        let prev_record_lsn = Lsn(control.checkpoint.get());
        let end_lsn = checkpoint_end(dir, &control, prev_record_lsn)?;
        let start_lsn = Lsn(end_lsn.0 - 1).segment_start() + WAL_SEGMENT_SIZE;
        let mut ours = control;
        ours.checkpoint_copy.timeline = U32::new(1);
        ours.checkpoint_copy.previous_timeline = U32::new(1);
        Ok(DataDirectory { dir: dir.to_path_buf(), control: ours, end_lsn, prev_record_lsn, start_lsn, control_bytes })
    }

    pub fn system_id(&self) -> u64 {
        self.control.system_id.get()
    }

    pub fn checksums(&self) -> Checksums {
        if self.control.data_checksum_version.get() == 0 { Checksums::Off } else { Checksums::On }
    }

    /// No server was started on the directory since it was opened: what was read is of one moment.
    pub fn check_unchanged(&self) -> Result<()> {
        check_not_running(&self.dir)?;
        if read_control(&self.dir)?.0 == self.control_bytes {
            return Ok(());
        }
        Err(refuse(&self.dir, "a server was started on it while it was read", "stop that server, and import again"))
    }
}

/// Whether the directory was left by a base backup that no server has brought to consistency yet.
pub fn is_unrecovered_backup(dir: &Path) -> bool {
    dir.join("backup_label").is_file()
}

/// What must be true of any directory, whether it was shut down or not.
pub fn check(dir: &Path) -> Result<()> {
    check_version(dir)?;
    check_not_running(dir)
}

fn check_version(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        return Err(refuse(
            dir,
            "there is no such directory",
            "name a data directory of Postgres 15, a tar of one, or postgres://...",
        ));
    }
    let version = match fs::read_to_string(dir.join("PG_VERSION")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = "it has no file PG_VERSION, so it is no data directory of Postgres";
            return Err(refuse(dir, why, "`SHOW data_directory` on the server names the right one"));
        }
        read => read.at("read", &dir.join("PG_VERSION"))?,
    };
    if version.trim() == "15" {
        return Ok(());
    }
    let why = format!("it is of Postgres {}, and only 15 can be imported", version.trim());
    Err(refuse(dir, why, "pg_upgrade, or pg_dump and psql into an endpoint, bring its data to 15"))
}

fn check_not_running(dir: &Path) -> Result<()> {
    let path = dir.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.at("read", &path)?,
    };
    let pid = text.lines().next().unwrap_or_default().trim();
    let alive = pid.parse::<i32>().is_ok_and(|pid| pid > 0 && Path::new("/proc").join(pid.to_string()).is_dir());
    let way_out = format!(
        "stop it with `pg_ctl stop -m fast -D {}`, or import over replication: `ironpage import postgres://...`",
        dir.display()
    );
    if alive {
        return Err(refuse(dir, format!("a server runs on it (pid {pid})"), way_out));
    }
    let way_out = format!("start the server once, then {way_out}");
    Err(refuse(dir, format!("its postmaster.pid names process {pid}, which is gone: the server was killed"), way_out))
}

fn read_control(dir: &Path) -> Result<(Vec<u8>, ControlFile)> {
    let path = dir.join("global/pg_control");
    let bytes = fs::read(&path).at("read", &path)?;
    let control = ControlFile::read(&bytes).map_err(|error| {
        refuse(
            dir,
            error.to_string(),
            "it must be the directory of a stock Postgres 15 as initdb makes it, of this kind of machine",
        )
    })?;
    Ok((bytes, control))
}

fn check_state(dir: &Path, control: &ControlFile) -> Result<()> {
    let (why, way_out) = match control.state.get() {
        state::SHUTDOWNED => return Ok(()),
        state::SHUTDOWNED_IN_RECOVERY | state::IN_ARCHIVE_RECOVERY => (
            "it is a standby's",
            "promote the standby and stop it, or import from it or its primary over replication: `ironpage import postgres://...`",
        ),
        _ => ("its server was not shut down cleanly", "start the server, let it recover, and stop it with `pg_ctl stop -m fast`"),
    };
    Err(refuse(dir, why, way_out))
}

/// End of the shutdown checkpoint, whose record must be the one pg_control speaks of.
fn checkpoint_end(dir: &Path, control: &ControlFile, start: Lsn) -> Result<Lsn> {
    let damaged = |why: String| refuse(dir, why, "start its server and stop it cleanly; if that fails, restore a backup");
    let timeline = control.checkpoint_copy.timeline.get();
    let mut stream = WalStream::new(start, Verify::Crc).with_system_id(control.system_id.get());
    let from = stream.position();
    let wal = read_wal(dir, timeline, from)?;
    stream.feed(from, &wal).map_err(|error| damaged(format!("its last checkpoint is damaged: {error}")))?;
    let record = match stream.next_record().map_err(|error| damaged(format!("its last checkpoint is damaged: {error}")))? {
        Next::Record(record) => record,
        _ => return Err(damaged(format!("its last checkpoint, at {start}, is not in its WAL"))),
    };
    let decoded = DecodedRecord::decode(record.bytes).map_err(|error| damaged(format!("its last checkpoint: {error}")))?;
    let is_shutdown = decoded.rmgr() == Some(Rmgr::Xlog) && decoded.rmgr_info() == xlog::CHECKPOINT_SHUTDOWN;
    if !is_shutdown || CheckPoint::read(decoded.main_data) != Some(control.checkpoint_copy) {
        return Err(damaged(format!("the record at {start} is not the shutdown checkpoint that pg_control speaks of")));
    }
    Ok(record.end)
}

/// WAL from `from` on, enough for a checkpoint, its page headers made those of Postgres timeline 1.
fn read_wal(dir: &Path, timeline: u32, from: Lsn) -> Result<Vec<u8>> {
    let mut wal = Vec::new();
    while (wal.len() as u64) < CHECKPOINT_BYTES_MAX {
        let at = from + wal.len() as u64;
        let name = at.segment_file_name();
        let name = format!("{timeline:08X}{}", name.get(8..).unwrap_or_default());
        let path = dir.join("pg_wal").join(name);
        let mut file = match File::open(&path) {
            // The record may end with its segment.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !wal.is_empty() => break,
            opened => opened.at("open", &path)?,
        };
        file.seek(SeekFrom::Start(at.segment_offset())).at("read", &path)?;
        let wanted = (CHECKPOINT_BYTES_MAX - wal.len() as u64).min(WAL_SEGMENT_SIZE - at.segment_offset());
        let got = file.take(wanted).read_to_end(&mut wal).at("read", &path)?;
        if (got as u64) < wanted {
            break;
        }
    }
    let first_page = (WAL_PAGE_SIZE - from.page_offset()) % WAL_PAGE_SIZE;
    for page in wal.get_mut(first_page as usize..).unwrap_or_default().chunks_mut(WAL_PAGE_SIZE as usize) {
        // xlp_tli (XLogPageHeaderData, access/xlog_internal.h).
        if let Some(field) = page.get_mut(4..8).filter(|field| *field == timeline.to_le_bytes()) {
            field.copy_from_slice(&1u32.to_le_bytes());
        }
    }
    Ok(wal)
}
