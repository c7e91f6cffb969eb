//! Resource managers of Postgres 15 (access/rmgrlist.h) and the record types of each.

/// RmgrId. The number is its place in rmgrlist.h.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Rmgr {
    Xlog = 0,
    Transaction = 1,
    Storage = 2,
    Clog = 3,
    Database = 4,
    Tablespace = 5,
    MultiXact = 6,
    RelMap = 7,
    Standby = 8,
    Heap2 = 9,
    Heap = 10,
    Btree = 11,
    Hash = 12,
    Gin = 13,
    Gist = 14,
    Sequence = 15,
    Spgist = 16,
    Brin = 17,
    CommitTs = 18,
    ReplicationOrigin = 19,
    Generic = 20,
    LogicalMessage = 21,
}

impl Rmgr {
    pub const ALL: [Rmgr; 22] = [
        Rmgr::Xlog,
        Rmgr::Transaction,
        Rmgr::Storage,
        Rmgr::Clog,
        Rmgr::Database,
        Rmgr::Tablespace,
        Rmgr::MultiXact,
        Rmgr::RelMap,
        Rmgr::Standby,
        Rmgr::Heap2,
        Rmgr::Heap,
        Rmgr::Btree,
        Rmgr::Hash,
        Rmgr::Gin,
        Rmgr::Gist,
        Rmgr::Sequence,
        Rmgr::Spgist,
        Rmgr::Brin,
        Rmgr::CommitTs,
        Rmgr::ReplicationOrigin,
        Rmgr::Generic,
        Rmgr::LogicalMessage,
    ];

    /// `None` for a resource manager an extension brought (128 and up), and for numbers nobody has.
    pub fn from_number(number: u8) -> Option<Rmgr> {
        Rmgr::ALL.get(usize::from(number)).copied()
    }

    /// What pg_waldump calls it.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 22] = [
            "XLOG",
            "Transaction",
            "Storage",
            "CLOG",
            "Database",
            "Tablespace",
            "MultiXact",
            "RelMap",
            "Standby",
            "Heap2",
            "Heap",
            "Btree",
            "Hash",
            "Gin",
            "Gist",
            "Sequence",
            "SPGist",
            "BRIN",
            "CommitTs",
            "ReplicationOrigin",
            "Generic",
            "LogicalMessage",
        ];
        NAMES[self as usize]
    }
}

/// Name of a resource manager by number, for messages: pg_waldump's, or `custom` for an extension's.
pub fn rmgr_name(number: u8) -> &'static str {
    Rmgr::from_number(number).map_or(if number >= RM_MIN_CUSTOM_ID { "custom" } else { "unknown" }, Rmgr::name)
}

/// RM_MIN_CUSTOM_ID (access/rmgr.h): from here on an extension's.
pub const RM_MIN_CUSTOM_ID: u8 = 128;

/// XLR_RMGR_INFO_MASK: the bits of `info` that belong to the resource manager.
pub const RMGR_INFO_MASK: u8 = 0xF0;

/// catalog/pg_control.h
pub mod xlog {
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    pub const NOOP: u8 = 0x20;
    pub const NEXTOID: u8 = 0x30;
    pub const SWITCH: u8 = 0x40;
    pub const BACKUP_END: u8 = 0x50;
    pub const PARAMETER_CHANGE: u8 = 0x60;
    pub const RESTORE_POINT: u8 = 0x70;
    pub const FPW_CHANGE: u8 = 0x80;
    pub const END_OF_RECOVERY: u8 = 0x90;
    pub const FPI_FOR_HINT: u8 = 0xA0;
    pub const FPI: u8 = 0xB0;
    pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
}

/// access/xact.h
pub mod xact {
    /// XLOG_XACT_OPMASK.
    pub const OP_MASK: u8 = 0x70;
    pub const HAS_INFO: u8 = 0x80;
    pub const COMMIT: u8 = 0x00;
    pub const PREPARE: u8 = 0x10;
    pub const ABORT: u8 = 0x20;
    pub const COMMIT_PREPARED: u8 = 0x30;
    pub const ABORT_PREPARED: u8 = 0x40;
    pub const ASSIGNMENT: u8 = 0x50;
    pub const INVALIDATIONS: u8 = 0x60;
}

/// catalog/storage_xlog.h
pub mod storage {
    pub const CREATE: u8 = 0x10;
    pub const TRUNCATE: u8 = 0x20;
    /// SMGR_TRUNCATE_HEAP, _VM, _FSM.
    pub const TRUNCATE_HEAP: u32 = 1;
    pub const TRUNCATE_VM: u32 = 2;
    pub const TRUNCATE_FSM: u32 = 4;
}

/// access/clog.h
pub mod clog {
    pub const ZEROPAGE: u8 = 0x00;
    pub const TRUNCATE: u8 = 0x10;
}

/// commands/dbcommands_xlog.h
pub mod database {
    pub const CREATE_FILE_COPY: u8 = 0x00;
    pub const CREATE_WAL_LOG: u8 = 0x10;
    pub const DROP: u8 = 0x20;
}

/// commands/tablespace.h
pub mod tablespace {
    pub const CREATE: u8 = 0x00;
    pub const DROP: u8 = 0x10;
}

/// access/multixact.h
pub mod multixact {
    pub const ZERO_OFF_PAGE: u8 = 0x00;
    pub const ZERO_MEM_PAGE: u8 = 0x10;
    pub const CREATE_ID: u8 = 0x20;
    pub const TRUNCATE_ID: u8 = 0x30;
}

/// utils/relmapper.h
pub mod relmap {
    pub const UPDATE: u8 = 0x00;
}

/// storage/standbydefs.h
pub mod standby {
    pub const LOCK: u8 = 0x00;
    pub const RUNNING_XACTS: u8 = 0x10;
    pub const INVALIDATIONS: u8 = 0x20;
}

/// access/heapam_xlog.h, both resource managers.
pub mod heap {
    /// XLOG_HEAP_OPMASK.
    pub const OP_MASK: u8 = 0x70;
    pub const INIT_PAGE: u8 = 0x80;
    pub const INSERT: u8 = 0x00;
    pub const DELETE: u8 = 0x10;
    pub const UPDATE: u8 = 0x20;
    pub const TRUNCATE: u8 = 0x30;
    pub const HOT_UPDATE: u8 = 0x40;
    pub const CONFIRM: u8 = 0x50;
    pub const LOCK: u8 = 0x60;
    pub const INPLACE: u8 = 0x70;

    pub const HEAP2_REWRITE: u8 = 0x00;
    pub const HEAP2_PRUNE: u8 = 0x10;
    pub const HEAP2_VACUUM: u8 = 0x20;
    pub const HEAP2_FREEZE_PAGE: u8 = 0x30;
    pub const HEAP2_VISIBLE: u8 = 0x40;
    pub const HEAP2_MULTI_INSERT: u8 = 0x50;
    pub const HEAP2_LOCK_UPDATED: u8 = 0x60;
    pub const HEAP2_NEW_CID: u8 = 0x70;
}

/// access/commit_ts.h
pub mod commit_ts {
    pub const ZEROPAGE: u8 = 0x00;
    pub const TRUNCATE: u8 = 0x10;
}

/// replication/origin.h
pub mod replication_origin {
    pub const SET: u8 = 0x00;
    pub const DROP: u8 = 0x10;
}

/// The record types of a resource manager that changes pages through block references alone, as bits by
/// the high half of their info. Heap and BRIN have an INIT_PAGE bit besides. `None` for the other managers.
fn page_record_types(rmgr: Rmgr) -> Option<u16> {
    Some(match rmgr {
        // All eight operations, with and without INIT_PAGE.
        Rmgr::Heap | Rmgr::Heap2 => 0xFFFF,
        Rmgr::Btree => 0x7FFF,
        Rmgr::Hash => 0x1FFF,
        Rmgr::Gin => 0x03FE,
        // 0x40 and 0x50 are of versions before 15.
        Rmgr::Gist => 0b1100_1111,
        Rmgr::Sequence | Rmgr::Generic => 0x0001,
        Rmgr::Spgist => 0x01FE,
        Rmgr::Brin => 0x3F3F,
        _ => return None,
    })
}

/// Whether `info` names a record type of `rmgr`, one of those whose records only change pages they reference:
/// heap, sequences, generic WAL and the index access methods (nbtxlog.h, hash_xlog.h, ginxlog.h, gistxlog.h,
/// spgxlog.h, brin_xlog.h, sequence.h, generic_xlog.h).
pub fn is_page_record(rmgr: Rmgr, info: u8) -> bool {
    page_record_types(rmgr).is_some_and(|types| types >> (info >> 4) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for (number, rmgr) in Rmgr::ALL.into_iter().enumerate() {
            assert_eq!(rmgr as usize, number);
            assert_eq!(Rmgr::from_number(number as u8), Some(rmgr));
        }
        assert_eq!((rmgr_name(10), rmgr_name(22), rmgr_name(200)), ("Heap", "unknown", "custom"));
    }

    #[test]
    fn only_record_types_that_exist_are_known() {
        assert!(is_page_record(Rmgr::Btree, 0xE0) && !is_page_record(Rmgr::Btree, 0xF0));
        assert!(is_page_record(Rmgr::Gin, 0x90) && !is_page_record(Rmgr::Gin, 0x00) && !is_page_record(Rmgr::Gin, 0xA0));
        assert!(is_page_record(Rmgr::Gist, 0x70) && !is_page_record(Rmgr::Gist, 0x40));
        assert!(is_page_record(Rmgr::Brin, 0xD0) && !is_page_record(Rmgr::Brin, 0x60));
        assert!(is_page_record(Rmgr::Hash, 0xC0) && !is_page_record(Rmgr::Hash, 0xD0));
        assert!(is_page_record(Rmgr::Spgist, 0x80) && !is_page_record(Rmgr::Spgist, 0x00));
        assert!(is_page_record(Rmgr::Heap, 0xF0) && !is_page_record(Rmgr::Sequence, 0x10));
        assert!(!is_page_record(Rmgr::Xlog, 0));
    }
}
