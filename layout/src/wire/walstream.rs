//! WAL out of a safekeeper: to pageservers, and to a launcher that recovers.
//!
//! After `WalStart` the safekeeper sends `WalData` from `from` on as it becomes committed, and a
//! `WalKeepalive` whenever its commit_lsn or term moved with nothing to send, at least once a second.
//! Headers carry the safekeeper's term.

use super::payload;
use zerocopy::little_endian::{U32, U64};

payload! {
    /// Starts the stream; answered by `WalData` and `WalKeepalive` with the same request id, or `Error`.
    WalStart, 24 {
        from: U64,
        /// Stop after this LSN; 0 follows for ever. Reached, the safekeeper sends a last `WalKeepalive`.
        until: U64,
        /// 1: up to flush_lsn, not commit_lsn; only for the holder of the safekeeper's term (header).
        uncommitted: U32,
        reserved: U32,
    }
}

payload! {
    /// WAL bytes from `begin_lsn` on follow.
    WalData, 24 {
        begin_lsn: U64,
        commit_lsn: U64,
        /// Where the header's term began.
        term_start_lsn: U64,
    }
}

payload! {
    /// Nothing to send, or a move of commit_lsn alone. Nothing follows.
    WalKeepalive, 24 {
        commit_lsn: U64,
        flush_lsn: U64,
        term_start_lsn: U64,
    }
}
