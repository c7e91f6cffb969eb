//! Redo of Postgres's WAL as pure functions.
//!
//! At ingest [`encode`] turns a record, for one of the blocks it references, into a **delta**: the few bytes that
//! this block's page needs. At a read [`apply`] turns a page and a delta into the page after the record, bit for
//! bit what the redo routines of Postgres make of it. Nothing here does I/O, keeps state or allocates for a
//! delta. Damaged deltas and pages give an error; the page is then half-changed and must not be served.
//!
//! What a version of Postgres writes is a table, [`Postgres`]: its rows name the record types and how each is
//! encoded. Deltas are the same for all versions, since pages are.

#![forbid(unsafe_code)]

mod apply;
mod btree;
mod delta;
mod encode;
mod error;
mod hash;
mod heap;
mod image;
mod page;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod sequence;
mod version;

pub use apply::{Place, apply};
pub use delta::{Kind, initialises};
pub use encode::{Encoded, encode};
pub use error::{EncodeError, RedoError};
pub use version::{HintBits, POSTGRES_15, Postgres, RecordType};

#[cfg(test)]
mod tests;
