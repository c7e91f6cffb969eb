//! The metadata journal: which tenants and branches there are.
//!
//! ```text
//! 0           32          64                            64 + length
//! | file head | batch head | records of the batch ...    | batch head | ...
//! ```
//!
//! Little-endian. A batch is taken wholly or not at all; its sequence is one more than that of the batch
//! before. Each was on disk before the next was written, so a power loss leaves at most the last one torn.
//! A record is the whole state of one tenant or branch, or says that it is gone: reading from the first
//! batch to the last gives the present.

mod batch;
mod record;
mod replay;
#[cfg(test)]
mod tests;

pub use batch::{Batch, FILE_HEAD_SIZE, FileHead, METADATA_VERSION, encode_batch};
pub use record::{BranchKind, BranchRecord, BranchState, MAX_MEMBERS, Record, TenantRecord, TenantState, is_name};
pub use replay::{Batches, Catalogue, Journal, Torn, read};

use std::ops::RangeInclusive;

/// Name of the journal in a pageserver's directory.
pub const JOURNAL_FILE: &str = "metadata.journal";
/// Bytes of a name.
pub const NAME_BYTES: RangeInclusive<usize> = 1..=63;

/// Why a journal cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    #[error("it is no metadata journal: it begins with {found:02x?}")]
    BadMagic { found: [u8; 8] },
    #[error(
        "it has format version {found}, this program reads {METADATA_VERSION}: use the release that wrote it, or a newer one"
    )]
    BadVersion { found: u32 },
    #[error("it has {found} bytes, fewer than its head: it was cut")]
    NoHead { found: u64 },
    /// Not what a power loss leaves.
    #[error("damage at offset {offset}: {why}")]
    Damaged { offset: u64, why: String },
}
