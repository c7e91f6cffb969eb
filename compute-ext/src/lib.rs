//! The Rust half of the Postgres extension: formats and decisions. The C half (`../shim`) calls Postgres.
//!
//! `cache` is the map of the blocks that the local files hold, in memory shared by all backends; `pins` says which of
//! them must stay; `pages` encodes and decodes the page protocol; `proposer` is the safekeepers' other side.
//!
//! Invariant: nothing here calls Postgres, and nothing unwinds into it: every exported function goes through [`guard`].

pub mod cache;
pub mod pages;
pub mod pins;
pub mod proposer;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What every exported function returns: 0 or a count for success, or one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Status {
    /// A Rust panic was stopped at the border: a bug of ours. The message went to stderr, which is Postgres's log.
    Panicked = -1,
    /// Bytes from the other side that are no valid message.
    Malformed = -2,
    /// A buffer or the map has no room.
    Full = -3,
    /// Not there (yet).
    Missing = -4,
}

/// Runs the body of an exported function; a panic becomes [`Status::Panicked`].
pub fn guard(body: impl FnOnce() -> Result<i32, Status>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(status)) => status as i32,
        Err(_) => Status::Panicked as i32,
    }
}

/// [`ironpage_layout::Lsn::to_record_end`] for C.
#[unsafe(no_mangle)]
pub extern "C" fn ironpage_rs_to_record_end(lsn: u64) -> u64 {
    ironpage_layout::Lsn(lsn).to_record_end().0
}
