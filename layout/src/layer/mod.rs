//! The layer file format, and the manifest that names a timeline's layers.
//!
//! A layer is an immutable file: versions of some keys of one slot. It is written front to back but for
//! its header, which comes last, and counts for nothing until a manifest names it.
//!
//! ```text
//! 0          4096                      runs           index           fences       filter        end
//! | header   | page images, 8192 each  | runs         | index blocks  | fences     | filter      |
//! | 4096     | in key order            | in key order | 4096 each     | 18 each    | 8 each      |
//! ```
//!
//! Every section starts on a multiple of 4096, with zeros before it. Numbers are little-endian; keys are
//! encoded by [`crate::Key::encode`], so they compare as bytes.
//!
//! **Header** ([`Header`]): whose layer it is, what it spans, where the sections are; its CRC covers the block.
//!
//! **Page images** are the 8192 bytes as they are; their CRCs stand with those who point at them.
//!
//! **Runs** ([`run`]): for each key its versions, newest first. A run's *head* ends with the newest state,
//! so a read of the newest LSN takes the head alone. A version that is an image lies in the image section;
//! if it is the newest state, the index entry is all there is of it, so that image and deltas are read at once.
//!
//! ```text
//! 0               8         12        16        20 (packed, no alignment)
//! | lsn           | length  | image   | crc     | bytes, `length` |
//! ```
//!
//! **Index** ([`index`]): one entry of 64 bytes per key, 63 in a block behind a header of 64 bytes.
//!
//! ```text
//! 0      18  20         24         32          40         48           52            56       60       64
//! | key  | 0 | versions | last_lsn | state_lsn | run      | run_length | head_length | image  | crc    |
//! ```
//!
//! **Fences**: the first key of each index block; kept in memory while the layer is in use.
//! **Filter** ([`filter`]): a Bloom filter of the keys, so that a read skips most layers that lack its key.
//!
//! CRCs are CRC-32C. Those of index blocks and versions start from the layer's identity and their place or
//! key, so a block that is sound but of another layer, place or key is caught as a damaged one is.

mod check;
mod encoder;
mod fences;
pub mod filter;
mod header;
pub mod index;
pub mod manifest;
pub mod run;
mod slot;

pub use check::check;
pub use encoder::{Body, Encoder};
pub use fences::Fences;
pub use header::Header;
pub use slot::{SLOT_STRIPE_BLOCKS, slot_of};

use crate::crc::{crc32c, crc32c_append};
use crate::id::{Slot, TenantId, TimelineId};

/// Unit of direct I/O and of the index.
pub const BLOCK_SIZE: usize = 4096;
/// Version of the layer format. No other is read.
pub const LAYER_VERSION: u32 = 1;

/// Whose a layer is, and which.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LayerId {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub slot: Slot,
    /// Grows with every flush of the timeline; of two versions with one LSN that in the higher is newer.
    pub sequence: u64,
}

impl LayerId {
    /// Start of the CRCs that tie a block to its layer.
    pub fn salt(&self) -> Salt {
        let crc = crc32c(&self.tenant.0);
        let crc = crc32c_append(crc, &self.timeline.0);
        let crc = crc32c_append(crc, &self.slot.0.to_le_bytes());
        Salt(crc32c_append(crc, &self.sequence.to_le_bytes()))
    }
}

/// CRC of a layer's identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Salt(u32);

impl Salt {
    fn crc(self, parts: &[&[u8]]) -> u32 {
        parts.iter().fold(self.0, |crc, part| crc32c_append(crc, part))
    }
}

/// Where an image lies, and its CRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageRef {
    /// In units of `BLOCK_SIZE` from the start of the file; never 0.
    pub block: u32,
    pub crc: u32,
}

impl ImageRef {
    /// Offset in the file.
    pub fn offset(&self) -> u64 {
        u64::from(self.block) * BLOCK_SIZE as u64
    }

    /// Checks the 8192 bytes read from there.
    pub fn check(&self, page: &[u8]) -> Result<(), LayerError> {
        let found = crc32c(page);
        if page.len() != crate::rel::PAGE_SIZE || found != self.crc {
            return Err(LayerError::BadCrc { what: "page image", offset: self.offset(), expected: self.crc, found });
        }
        Ok(())
    }
}

/// Bytes that are no layer or manifest, or not the one they should be. Offsets are in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    #[error("{what} at offset {offset} is cut short: {found} of {needed} bytes")]
    Truncated { what: &'static str, offset: u64, needed: u64, found: u64 },
    #[error("not {what}: it starts with {found:02x?}")]
    BadMagic { what: &'static str, found: [u8; 8] },
    #[error("{what} has version {found}, this build reads version {expected} only")]
    BadVersion { what: &'static str, expected: u32, found: u32 },
    #[error("{what} at offset {offset} is damaged: its CRC is {found:#010x}, {expected:#010x} is on record")]
    BadCrc { what: &'static str, offset: u64, expected: u32, found: u32 },
    #[error("{what} at offset {offset} is malformed: {why}")]
    Malformed { what: &'static str, offset: u64, why: &'static str },
    #[error("belongs to another {what}: {found}, not {expected}")]
    Foreign { what: &'static str, expected: String, found: String },
}

/// `position` rounded up to a multiple of `BLOCK_SIZE`.
pub fn block_align_up(position: u64) -> u64 {
    position.next_multiple_of(BLOCK_SIZE as u64)
}

#[cfg(test)]
mod tests;
