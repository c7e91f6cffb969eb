//! Which slot a key belongs to.

use super::filter::hash;
use crate::id::Slot;
use crate::key::Key;

/// Neighbouring blocks that share a slot: 16 MiB of a relation, so that a scan stays on one core for a while.
pub const SLOT_STRIPE_BLOCKS: u32 = 2048;

/// The slot of `key` where there are 2^`bits` of them: the top bits of the hash of the encoded key, its block
/// rounded down to a multiple of `SLOT_STRIPE_BLOCKS`. Part of the format: it never changes.
pub fn slot_of(key: Key, bits: u8) -> Slot {
    assert!(bits <= 16, "2^{bits} slots");
    if bits == 0 {
        return Slot(0);
    }
    let stripe = Key { block: key.block - key.block % SLOT_STRIPE_BLOCKS, ..key };
    Slot((hash(&stripe.encode()) >> (64 - bits)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rel::{BlockNumber, Fork, RelTag};

    #[test]
    fn stripes_stay_together_and_spread_over_all_slots() {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 };
        let slot = |block| slot_of(Key::page(rel, Fork::Main, BlockNumber(block)), 2);
        assert_eq!(slot(0), slot(2047));
        let mut counts = [0; 4];
        (0..4000).for_each(|stripe| counts[usize::from(slot(stripe * SLOT_STRIPE_BLOCKS).0)] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_function_is_what_files_were_written_with() {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 };
        let slots: Vec<u16> =
            (0..8).map(|stripe| slot_of(Key::page(rel, Fork::Main, BlockNumber(stripe * 2048)), 16).0).collect();
        assert_eq!(slots, GOLDEN);
        assert_eq!(slot_of(Key::control(), 0), Slot(0));
    }

    const GOLDEN: [u16; 8] = [64039, 37301, 28662, 48862, 34706, 27535, 13013, 49251];
}
