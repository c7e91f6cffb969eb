//! The write-ahead log: pages, the stream of records on them, and what one record says.

pub mod build;
pub mod checkpoint;
pub mod page_header;
pub mod record;
pub mod stream;

pub use checkpoint::{CheckpointWal, CheckpointWalError};
pub use record::{DecodeRecordError, DecodedRecord};
pub use stream::{Next, Record, Verify, WalError, WalStream};

/// SizeOfXLogRecord (access/xlogrecord.h): bytes of the header that starts a record.
pub const RECORD_HEADER_SIZE: usize = 24;

/// Longest record read. Postgres 15 itself cannot allocate longer ones (XLogRecordMaxSize of later versions).
pub const MAX_RECORD_SIZE: u32 = 1020 << 20;
