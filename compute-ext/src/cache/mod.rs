//! Which blocks the local files hold: a hash map in memory that all backends share, used under the caller's locks.
//!
//! A block that is in the map is valid in its local file; any other is at the pageserver alone. `entry` is what is
//! known of a valid block, `map` the table, `ffi` its face to C.

pub mod entry;
pub mod ffi;
pub mod map;

pub use entry::{BlockKey, Entry, Written};
pub use map::{Map, MapFull};

/// Locks of the map. A block's partition is a function of its key; `IRONPAGE_PARTITIONS` in ironpage.h.
pub const PARTITIONS: usize = 128;
