//! Names of relations as Postgres's storage knows them.

use std::fmt;

/// Block of a relation fork, in pages of 8192 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNumber(pub u32);

/// A catalog object's number, and what storage calls a relation's file by (relfilenode).
pub type Oid = u32;

/// Bytes of a page: BLCKSZ of every build Ironpage supports.
pub const PAGE_SIZE: usize = 8192;
/// Blocks of one relation segment file of 1 GiB: RELSEG_SIZE.
pub const SEGMENT_BLOCKS: u32 = 131_072;
/// GLOBALTABLESPACE_OID (catalog/pg_tablespace.dat).
pub const GLOBAL_TABLESPACE: Oid = 1664;
/// DEFAULTTABLESPACE_OID.
pub const DEFAULT_TABLESPACE: Oid = 1663;

/// Directory of a server version in a tablespace: TABLESPACE_VERSION_DIRECTORY (common/relpath.h) of 15.
pub const TABLESPACE_VERSION_DIRECTORY: &str = "PG_15_202209061";

/// ForkNumber (common/relpath.h).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Fork {
    #[default]
    Main = 0,
    Fsm = 1,
    Vm = 2,
    Init = 3,
}

impl Fork {
    pub const ALL: [Fork; 4] = [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init];

    pub fn from_number(number: u8) -> Option<Fork> {
        Fork::ALL.get(usize::from(number)).copied()
    }

    /// What Postgres appends to the file name: nothing, `_fsm`, `_vm`, `_init`.
    pub fn suffix(self) -> &'static str {
        ["", "_fsm", "_vm", "_init"][self as usize]
    }
}

/// A relation's storage: RelFileNode (storage/relfilenode.h).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelTag {
    pub tablespace: Oid,
    pub database: Oid,
    pub relation: Oid,
}

impl fmt::Display for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

impl fmt::Debug for RelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
