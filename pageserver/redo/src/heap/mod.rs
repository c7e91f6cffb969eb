//! Heap pages (access/heap/heapam.c, both resource managers).

mod encode;
mod prune;
mod tuple;

pub use encode::{encode_heap, encode_heap2};
pub use prune::{freeze, prune, vacuum, visible};
pub use tuple::{confirm, delete, inplace, insert, lock, lock_updated, multi_insert, update, update_old};

/// What a delta says of the page's PD_ALL_VISIBLE, and of what is in it.
mod flags {
    pub const CLEAR_ALL_VISIBLE: u8 = 0x01;
    pub const SET_ALL_VISIBLE: u8 = 0x02;
    /// The new tuple has an xmax.
    pub const XMAX: u8 = 0x04;
    pub const HOT: u8 = 0x08;
    pub const PREFIX: u8 = 0x10;
    pub const SUFFIX: u8 = 0x20;
    /// Of a deletion: a speculative insertion is taken back; the row moved to another partition.
    pub const SUPER: u8 = 0x40;
    pub const PARTITION_MOVE: u8 = 0x80;
}

#[cfg(test)]
mod tests;
