//! What the map knows of one valid block.

use crate::pins::Pin;
use std::sync::atomic::{AtomicU8, Ordering};

/// Neighbouring blocks that stay together in the table.
const GROUP: u32 = 16;

/// Names a block. `IronpageKey` in cache.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct BlockKey {
    pub tablespace: u32,
    pub database: u32,
    pub relation: u32,
    pub fork: u32,
    pub block: u32,
}
const _: () = assert!(size_of::<BlockKey>() == 20);

impl BlockKey {
    /// Two multiplications mix the 20 bytes (the finaliser of MurmurHash3 between them). `GROUP` neighbouring blocks get
    /// neighbouring buckets, so the clock meets them together and one hole can be punched for all.
    pub fn hash(&self) -> u32 {
        const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
        let high = u64::from(self.tablespace) << 32 | u64::from(self.database);
        let low = u64::from(self.relation) << 32 | u64::from(self.block / GROUP);
        let mut mixed = high.wrapping_mul(MULTIPLIER) ^ low ^ u64::from(self.fork) << 61;
        mixed ^= mixed >> 33;
        mixed = mixed.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        mixed ^= mixed >> 33;
        mixed = mixed.wrapping_mul(MULTIPLIER);
        (mixed >> 32) as u32 / GROUP * GROUP + self.block % GROUP
    }
}

/// How a block became valid, and what decides when it may go. `IronpageWritten` in cache.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Written {
    /// Last-written LSN: the end of the last WAL record that can have changed the page. 0 if it came from the pageserver.
    pub lwlsn: u64,
    /// Full transaction id that was next at the write: every one that ran then is below.
    pub next_xid: u64,
    /// Generation of vacuums at the write, see `pins`.
    pub vacuum_generation: u64,
    /// CRC-32C of the page as it was stored.
    pub crc: u32,
    /// A `Pin` that holds as long as this copy is here, or `Pin::None`.
    pub pin: u8,
    /// 1 if a backend wrote it, 0 if it is the pageserver's copy.
    pub local: u8,
    pub reserved: [u8; 2],
}
const _: () = assert!(size_of::<Written>() == 32);

/// A valid block. `IronpageEntry` in cache.h.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    pub key: BlockKey,
    pub hash: u32,
    pub written: Written,
    /// Next entry of the bucket or of the free list; 0 ends it.
    pub next: u32,
    /// Set by readers, cleared by the clock.
    pub accessed: AtomicU8,
    pub reserved: [u8; 3],
}
const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    pub fn touch(&self) {
        // A plain load first: readers of one hot block must not fight over its cache line.
        if self.accessed.load(Ordering::Relaxed) == 0 {
            self.accessed.store(1, Ordering::Relaxed);
        }
    }

    /// A copy, for use after the lock is gone.
    pub fn snapshot(&self) -> Entry {
        Entry { accessed: AtomicU8::new(self.accessed.load(Ordering::Relaxed)), ..*self }
    }

    /// The pin that holds as long as this copy is here.
    pub fn standing_pin(&self) -> Pin {
        Pin::from_number(self.written.pin)
    }
}
