//! Hash index pages (access/hash/hash_xlog.c).

mod encode;
mod meta;
mod pages;

pub use encode::{encode, encode_after_image};
pub use meta::{meta, meta_bitmap, meta_first_free, meta_overflow, meta_split, meta_tuples};
pub use pages::{bit, bitmap, delete, move_in, opaque, page};

/// Bits of hasho_flag (access/hash.h).
mod flags {
    pub const UNUSED_PAGE: u16 = 0;
    pub const OVERFLOW_PAGE: u16 = 0x01;
    pub const BITMAP_PAGE: u16 = 0x04;
    pub const META_PAGE: u16 = 0x08;
    pub const NEEDS_SPLIT_CLEANUP: u16 = 0x40;
    pub const HAS_DEAD_TUPLES: u16 = 0x80;
}

/// InvalidBlockNumber and InvalidBucket.
const INVALID: u32 = u32::MAX;

/// Places in the special space (HashPageOpaqueData).
const OPAQUE_SIZE: usize = 16;
const PREV: usize = 0;
const NEXT: usize = 4;
const BUCKET: usize = 8;
const FLAG: usize = 12;
const PAGE_ID: usize = 14;
/// HASHO_PAGE_ID.
const HASH_PAGE_ID: u16 = 0xFF80;

#[cfg(test)]
mod tests;
