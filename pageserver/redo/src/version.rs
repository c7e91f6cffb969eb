//! What the versions of Postgres write, as data.

use crate::encode::{Encoded, Source};
use crate::error::EncodeError;
use crate::{btree, hash, heap, image, sequence};
use ironpage_layout::postgres::rmgr::Rmgr;

/// Whether hint bits are logged: data checksums or wal_log_hints (XLogHintBitIsNeeded, access/xlog.h). It decides
/// about the LSN of heap pages that become all-visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HintBits {
    Logged,
    Unlogged,
}

pub(crate) type Encoder = fn(&Source<'_>, &mut Vec<u8>) -> Result<Encoded, EncodeError>;

/// A kind of record that changes pages, and is redone here.
#[derive(Clone, Copy)]
pub struct RecordType {
    pub rmgr: Rmgr,
    /// The type, without the bits that `mask` leaves out.
    pub info: u8,
    /// The bits of info that name the type.
    pub mask: u8,
    /// pg_waldump's name.
    pub name: &'static str,
    pub(crate) encode: Encoder,
}

impl RecordType {
    fn names(&self, rmgr: Rmgr, info: u8) -> bool {
        self.rmgr == rmgr && info & self.mask == self.info
    }
}

impl std::fmt::Debug for RecordType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.rmgr.name(), self.name)
    }
}

/// A major version: the record types it writes that are redone here.
#[derive(Debug)]
pub struct Postgres {
    pub major: u32,
    pub records: &'static [RecordType],
}

impl Postgres {
    /// The type of a record; `None` if it is left to the worker, or has no pages.
    pub fn record_type(&self, rmgr: Rmgr, info: u8) -> Option<&'static RecordType> {
        self.records.iter().find(|known| known.names(rmgr, info))
    }
}

const fn row(rmgr: Rmgr, info: u8, mask: u8, name: &'static str, encode: Encoder) -> RecordType {
    RecordType { rmgr, info, mask, name, encode }
}

const fn xlog(info: u8, name: &'static str) -> RecordType {
    row(Rmgr::Xlog, info, 0xF0, name, image::encode_bare)
}

/// With and without XLOG_HEAP_INIT_PAGE.
const fn heap(info: u8, name: &'static str) -> RecordType {
    row(Rmgr::Heap, info, 0x70, name, heap::encode_heap)
}

const fn heap2(info: u8, name: &'static str) -> RecordType {
    row(Rmgr::Heap2, info, 0x70, name, heap::encode_heap2)
}

const fn btree(info: u8, name: &'static str) -> RecordType {
    row(Rmgr::Btree, info, 0xF0, name, btree::encode)
}

const fn hash(info: u8, name: &'static str) -> RecordType {
    row(Rmgr::Hash, info, 0xF0, name, hash::encode)
}

/// Postgres 15. Of those of its record types that have pages, gin's, gist's, spgist's, brin's and generic ones are
/// left to the worker, page images in them aside. XLOG_HEAP2_NEW_CID, XLOG_HEAP2_REWRITE, XLOG_HEAP_TRUNCATE and
/// XLOG_BTREE_REUSE_PAGE change no page.
pub static POSTGRES_15: Postgres = Postgres {
    major: 15,
    records: &[
        heap(0x00, "INSERT"),
        heap(0x10, "DELETE"),
        heap(0x20, "UPDATE"),
        heap(0x40, "HOT_UPDATE"),
        heap(0x50, "HEAP_CONFIRM"),
        heap(0x60, "LOCK"),
        heap(0x70, "INPLACE"),
        heap2(0x10, "PRUNE"),
        heap2(0x20, "VACUUM"),
        heap2(0x30, "FREEZE_PAGE"),
        heap2(0x40, "VISIBLE"),
        heap2(0x50, "MULTI_INSERT"),
        heap2(0x60, "LOCK_UPDATED"),
        btree(0x00, "INSERT_LEAF"),
        btree(0x10, "INSERT_UPPER"),
        btree(0x20, "INSERT_META"),
        btree(0x30, "SPLIT_L"),
        btree(0x40, "SPLIT_R"),
        btree(0x50, "INSERT_POST"),
        btree(0x60, "DEDUP"),
        btree(0x70, "DELETE"),
        btree(0x80, "UNLINK_PAGE"),
        btree(0x90, "UNLINK_PAGE_META"),
        btree(0xA0, "NEWROOT"),
        btree(0xB0, "MARK_PAGE_HALFDEAD"),
        btree(0xC0, "VACUUM"),
        btree(0xE0, "META_CLEANUP"),
        hash(0x00, "INIT_META_PAGE"),
        hash(0x10, "INIT_BITMAP_PAGE"),
        hash(0x20, "INSERT"),
        hash(0x30, "ADD_OVFL_PAGE"),
        hash(0x40, "SPLIT_ALLOCATE_PAGE"),
        hash(0x50, "SPLIT_PAGE"),
        hash(0x60, "SPLIT_COMPLETE"),
        hash(0x70, "MOVE_PAGE_CONTENTS"),
        hash(0x80, "SQUEEZE_PAGE"),
        hash(0x90, "DELETE"),
        hash(0xA0, "SPLIT_CLEANUP"),
        hash(0xB0, "UPDATE_META_PAGE"),
        hash(0xC0, "VACUUM_ONE_PAGE"),
        row(Rmgr::Sequence, 0x00, 0xF0, "LOG", sequence::encode),
        xlog(0xA0, "FPI_FOR_HINT"),
        xlog(0xB0, "FPI"),
    ],
};
