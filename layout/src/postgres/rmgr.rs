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
