//! B-tree pages (access/nbtree/nbtxlog.c).

mod dedup;
mod encode;
mod pages;
mod posting;
mod split;

pub use dedup::dedup;
pub use encode::encode;
pub use pages::{clear_incomplete_split, deleted_page, half_dead_parent, meta, page, sibling};
pub use posting::{delete, insert_posting};
pub use split::split_left;

use crate::error::RedoError;
use crate::page::{Page, read, read_u32, special};

/// Bits of btpo_flags (access/nbtree.h).
mod flags {
    pub const LEAF: u16 = 0x0001;
    pub const ROOT: u16 = 0x0002;
    pub const DELETED: u16 = 0x0004;
    pub const META: u16 = 0x0008;
    pub const HALF_DEAD: u16 = 0x0010;
    pub const HAS_GARBAGE: u16 = 0x0040;
    pub const INCOMPLETE_SPLIT: u16 = 0x0080;
    pub const HAS_FULLXID: u16 = 0x0100;
}

/// Places in the special space (BTPageOpaqueData).
const OPAQUE_SIZE: usize = 16;
const PREV: usize = 0;
const NEXT: usize = 4;
const LEVEL: usize = 8;
const FLAGS: usize = 12;
const CYCLE_ID: usize = 14;

/// P_HIKEY and P_NONE.
const HIGH_KEY: u16 = 1;
const NONE: u32 = 0;

fn opaque(page: &Page) -> Result<usize, RedoError> {
    special(page, OPAQUE_SIZE)
}

/// P_FIRSTDATAKEY.
fn first_data_key(page: &Page) -> Result<u16, RedoError> {
    let rightmost = read_u32(page, opaque(page)? + NEXT)? == NONE;
    Ok(if rightmost { HIGH_KEY } else { HIGH_KEY + 1 })
}

/// An index tuple's first eight bytes (IndexTupleData, access/itup.h): a heap TID, or what stands in its place; then
/// size and flags. Sizes and places below are in bytes.
#[derive(Clone, Copy)]
struct TupleHead {
    /// The block number of the TID: of a posting list's tuple, where the list begins.
    block: u32,
    /// The offset number of the TID: of a posting list's tuple, how many TIDs it has, and flags.
    offset: u16,
    info: u16,
}

impl TupleHead {
    const SIZE: usize = 8;
    /// INDEX_SIZE_MASK and INDEX_ALT_TID_MASK.
    const SIZE_MASK: u16 = 0x1FFF;
    const ALT_TID: u16 = 0x2000;
    /// BT_OFFSET_MASK and BT_IS_POSTING.
    const COUNT_MASK: u16 = 0x0FFF;
    const IS_POSTING: u16 = 0x2000;

    fn read(page: &Page, at: usize) -> Result<TupleHead, RedoError> {
        read(page, at).map(TupleHead::from_bytes)
    }

    fn from_bytes(bytes: [u8; 8]) -> TupleHead {
        let [a, b, c, d, e, f, g, h] = bytes;
        TupleHead {
            block: u32::from_le_bytes([c, d, a, b]),
            offset: u16::from_le_bytes([e, f]),
            info: u16::from_le_bytes([g, h]),
        }
    }

    fn to_bytes(self) -> [u8; 8] {
        let [a, b, c, d] = self.block.to_le_bytes();
        let ([e, f], [g, h]) = (self.offset.to_le_bytes(), self.info.to_le_bytes());
        [c, d, a, b, e, f, g, h]
    }

    /// IndexTupleSize.
    fn size(self) -> usize {
        usize::from(self.info & TupleHead::SIZE_MASK)
    }

    /// BTreeTupleIsPosting.
    fn is_posting(self) -> bool {
        self.info & TupleHead::ALT_TID != 0 && self.offset & TupleHead::IS_POSTING != 0
    }

    /// The same key with `count` TIDs behind it, `size` bytes in all (BTreeTupleSetPosting), or without any.
    fn with_posting(self, key: usize, count: usize, size: usize) -> TupleHead {
        let info = self.info & !TupleHead::SIZE_MASK | size as u16;
        TupleHead { block: key as u32, offset: count as u16 | TupleHead::IS_POSTING, info: info | TupleHead::ALT_TID }
    }
}

/// Bytes of a TID (ItemPointerData).
const TID: usize = 6;

#[cfg(test)]
mod tests;
