//! A timeline's WAL on disk: segments of 16 MiB with the names and the bytes they have in pg_wal.
//!
//! ```text
//! DIR/<tenant>/<timeline>/000000010000000000000001    WAL, zeros behind its end
//!                         000000010000000000000002    prepared ahead: all zeros
//!                         000000010000000000000003.new    being zero-filled; removed at load
//!                         clearing    WAL is being cut: what reads as zeros behind its end may not be durable
//! ```
//!
//! Segments are filled with zeros before their first use, so that a flush changes no metadata, and behind
//! the end of WAL there is nothing but zeros: a restart finds the end by reading records until one does not
//! check. All I/O is direct, in blocks of 4 KiB: the block in which WAL ends is kept in memory and written
//! again with what comes next. Its acknowledged bytes are the same in both, so a torn write harms nothing.

pub mod reader;
pub mod scan;
pub mod segment;
pub mod writer;

/// Block of direct I/O: every write starts and ends at a multiple of it.
pub const BLOCK_SIZE: u64 = 4096;

/// `offset` rounded down to a block.
fn block_start(offset: u64) -> u64 {
    offset & !(BLOCK_SIZE - 1)
}

/// `offset` rounded up to a block.
fn block_end(offset: u64) -> u64 {
    block_start(offset + BLOCK_SIZE - 1)
}

#[cfg(test)]
mod tests;
