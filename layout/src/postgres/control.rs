//! global/pg_control of Postgres 15 (catalog/pg_control.h).

use crate::crc::crc32c;
use zerocopy::little_endian::{F64, I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PG_CONTROL_VERSION of Postgres 13 to 15.
pub const CONTROL_VERSION: u32 = 1300;
/// CATALOG_VERSION_NO of Postgres 15 (catalog/catversion.h).
pub const CATALOG_VERSION: u32 = 202_209_061;
/// PG_CONTROL_FILE_SIZE: the file is padded to this with zeros.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// DBState.
pub mod state {
    pub const STARTUP: i32 = 0;
    pub const SHUTDOWNED: i32 = 1;
    pub const SHUTDOWNED_IN_RECOVERY: i32 = 2;
    pub const SHUTDOWNING: i32 = 3;
    pub const IN_CRASH_RECOVERY: i32 = 4;
    pub const IN_ARCHIVE_RECOVERY: i32 = 5;
    pub const IN_PRODUCTION: i32 = 6;
}

/// The body of a checkpoint record, and the copy of the last one in pg_control.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CheckPoint {
    /// Where redo starts; of a shutdown checkpoint the start of its own record.
    pub redo: U64,
    pub timeline: U32,
    pub previous_timeline: U32,
    pub full_page_writes: u8,
    pub padding: [u8; 7],
    /// Next transaction: epoch in the high half.
    pub next_xid: U64,
    pub next_oid: U32,
    pub next_multi: U32,
    pub next_multi_offset: U32,
    pub oldest_xid: U32,
    pub oldest_xid_database: U32,
    pub oldest_multi: U32,
    pub oldest_multi_database: U32,
    pub padding2: [u8; 4],
    /// Seconds since 1970.
    pub time: I64,
    pub oldest_commit_ts_xid: U32,
    pub newest_commit_ts_xid: U32,
    /// 0 in a shutdown checkpoint.
    pub oldest_active_xid: U32,
    pub padding3: [u8; 4],
}
const _: () = assert!(size_of::<CheckPoint>() == 88);

/// ControlFileData. The CRC is kept right by [`ControlFile::to_bytes`], not while fields change.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct ControlFile {
    pub system_id: U64,
    pub control_version: U32,
    pub catalog_version: U32,
    /// See [`state`].
    pub state: I32,
    pub padding: [u8; 4],
    pub time: I64,
    /// Start of the last checkpoint record.
    pub checkpoint: U64,
    pub checkpoint_copy: CheckPoint,
    pub unlogged_lsn: U64,
    pub min_recovery_point: U64,
    pub min_recovery_point_timeline: U32,
    pub padding2: [u8; 4],
    pub backup_start_point: U64,
    pub backup_end_point: U64,
    pub backup_end_required: u8,
    pub padding3: [u8; 3],
    pub wal_level: I32,
    pub wal_log_hints: u8,
    pub padding4: [u8; 3],
    pub max_connections: I32,
    pub max_worker_processes: I32,
    pub max_wal_senders: I32,
    pub max_prepared_xacts: I32,
    pub max_locks_per_xact: I32,
    pub track_commit_timestamp: u8,
    pub padding5: [u8; 3],
    pub max_align: U32,
    pub float_format: F64,
    pub block_size: U32,
    pub relation_segment_size: U32,
    pub wal_block_size: U32,
    pub wal_segment_size: U32,
    pub name_data_length: U32,
    pub index_max_keys: U32,
    pub toast_max_chunk_size: U32,
    pub large_object_block_size: U32,
    pub float8_by_value: u8,
    pub padding6: [u8; 3],
    pub data_checksum_version: U32,
    pub mock_authentication_nonce: [u8; 32],
    pub crc: U32,
    pub padding7: [u8; 4],
}
/// sizeof(ControlFileData): what of the file has a meaning.
pub const CONTROL_SIZE: usize = size_of::<ControlFile>();
const _: () = assert!(CONTROL_SIZE == 296);
/// Bytes the CRC covers.
const CRC_OFFSET: usize = std::mem::offset_of!(ControlFile, crc);
const _: () = assert!(CRC_OFFSET == 288);

/// Not a pg_control this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    #[error("pg_control has {0} bytes, not at least 296")]
    Short(usize),
    #[error("pg_control is of version {control} and catalog version {catalog}: only Postgres 15 (1300, 202209061) is supported")]
    Version { control: u32, catalog: u32 },
    #[error("pg_control has CRC {found:#010x}, it says {expected:#010x}: it is damaged")]
    Crc { expected: u32, found: u32 },
    #[error("pg_control says {what} is {found}; only {supported} is supported")]
    Unsupported { what: &'static str, found: u32, supported: u32 },
}

impl CheckPoint {
    /// The body of a checkpoint record, from its main data.
    pub fn read(bytes: &[u8]) -> Option<CheckPoint> {
        CheckPoint::read_from_bytes(bytes).ok()
    }

    /// The bytes of the struct, its padding zero.
    pub fn to_bytes(&self) -> [u8; 88] {
        let clean = CheckPoint { padding: [0; 7], padding2: [0; 4], padding3: [0; 4], ..*self };
        zerocopy::transmute!(clean)
    }
}

impl ControlFile {
    /// Reads the struct from the file's bytes, or from its own without the file's padding.
    pub fn read(bytes: &[u8]) -> Result<ControlFile, ControlError> {
        let (control, _) = ControlFile::read_from_prefix(bytes).map_err(|_| ControlError::Short(bytes.len()))?;
        let (version, catalog) = (control.control_version.get(), control.catalog_version.get());
        if version != CONTROL_VERSION || catalog != CATALOG_VERSION {
            return Err(ControlError::Version { control: version, catalog });
        }
        let found = crc32c(bytes.get(..CRC_OFFSET).unwrap_or_default());
        if found != control.crc.get() {
            return Err(ControlError::Crc { expected: control.crc.get(), found });
        }
        let fixed = [
            ("the block size", control.block_size, 8192),
            ("the size of relation segments", control.relation_segment_size, crate::rel::SEGMENT_BLOCKS),
            ("the size of WAL pages", control.wal_block_size, crate::lsn::WAL_PAGE_SIZE as u32),
            ("the size of WAL segments", control.wal_segment_size, crate::lsn::WAL_SEGMENT_SIZE as u32),
            ("the alignment", control.max_align, 8),
        ];
        for (what, found, supported) in fixed {
            if found.get() != supported {
                return Err(ControlError::Unsupported { what, found: found.get(), supported });
            }
        }
        Ok(control)
    }

    /// The struct with its CRC made right and its padding zero.
    pub fn to_bytes(&self) -> [u8; CONTROL_SIZE] {
        let mut clean = ControlFile {
            checkpoint_copy: CheckPoint { padding: [0; 7], padding2: [0; 4], padding3: [0; 4], ..self.checkpoint_copy },
            padding: [0; 4],
            padding2: [0; 4],
            padding3: [0; 3],
            padding4: [0; 3],
            padding5: [0; 3],
            padding6: [0; 3],
            padding7: [0; 4],
            ..*self
        };
        clean.crc = U32::new(crc32c(&clean.as_bytes()[..CRC_OFFSET]));
        zerocopy::transmute!(clean)
    }

    /// The whole file: [`ControlFile::to_bytes`] and zeros.
    pub fn to_file(&self) -> Vec<u8> {
        let mut file = self.to_bytes().to_vec();
        file.resize(CONTROL_FILE_SIZE, 0);
        file
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// A pg_control such as initdb makes, in what is read of it.
    pub(crate) fn sample() -> ControlFile {
        let mut control = ControlFile::new_zeroed();
        control.system_id = U64::new(0x1122_3344_5566_7788);
        control.control_version = U32::new(CONTROL_VERSION);
        control.catalog_version = U32::new(CATALOG_VERSION);
        control.state = I32::new(state::SHUTDOWNED);
        control.max_align = U32::new(8);
        control.block_size = U32::new(8192);
        control.relation_segment_size = U32::new(131_072);
        control.wal_block_size = U32::new(8192);
        control.wal_segment_size = U32::new(16 << 20);
        control.checkpoint_copy.timeline = U32::new(1);
        control.checkpoint_copy.next_xid = U64::new(730);
        control
    }

    #[test]
    fn the_file_round_trips_and_damage_is_noticed() {
        let file = sample().to_file();
        assert_eq!(file.len(), CONTROL_FILE_SIZE);
        let read = ControlFile::read(&file).unwrap();
        assert_eq!(read.to_file(), file);
        assert_eq!(ControlFile::read(&file[..CONTROL_SIZE]), Ok(read));
        assert_eq!(ControlFile::read(&file[..100]), Err(ControlError::Short(100)));
        for at in 0..CRC_OFFSET {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(ControlFile::read(&damaged).is_err(), "byte {at}");
        }
        let mut other = sample();
        other.wal_segment_size = U32::new(1 << 20);
        assert!(matches!(ControlFile::read(&other.to_bytes()), Err(ControlError::Unsupported { .. })));
        other.catalog_version = U32::new(202_307_071);
        assert!(matches!(ControlFile::read(&other.to_bytes()), Err(ControlError::Version { .. })));
    }

    #[test]
    fn fields_lie_where_the_compiler_of_postgres_puts_them() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(ControlFile, checkpoint_copy), 40);
        assert_eq!(offset_of!(ControlFile, unlogged_lsn), 128);
        assert_eq!(offset_of!(ControlFile, wal_level), 172);
        assert_eq!(offset_of!(ControlFile, track_commit_timestamp), 200);
        assert_eq!(offset_of!(ControlFile, float_format), 208);
        assert_eq!(offset_of!(ControlFile, mock_authentication_nonce), 256);
        assert_eq!(offset_of!(CheckPoint, next_xid), 24);
        assert_eq!(offset_of!(CheckPoint, time), 64);
        assert_eq!(offset_of!(CheckPoint, oldest_active_xid), 80);
    }
}
