//! Index blocks in memory, bounded in bytes. Eviction is second chance (CLOCK).

use ironpage_io::IoBuf;
use ironpage_layout::layer::BLOCK_SIZE;
use std::collections::HashMap;
use std::rc::Rc;

/// A layer's number in this process, and a block's in the layer.
pub type BlockKey = (u64, u32);

struct Entry {
    key: BlockKey,
    block: Rc<IoBuf>,
    /// Used since the hand last passed.
    used: bool,
}

/// Holds verified index blocks.
pub struct BlockCache {
    entries: Vec<Entry>,
    places: HashMap<BlockKey, usize>,
    hand: usize,
    entries_max: usize,
}

impl BlockCache {
    pub fn new(bytes_max: usize) -> BlockCache {
        let entries_max = (bytes_max / BLOCK_SIZE).max(1);
        BlockCache { entries: Vec::new(), places: HashMap::new(), hand: 0, entries_max }
    }

    pub fn get(&mut self, key: BlockKey) -> Option<Rc<IoBuf>> {
        let entry = &mut self.entries[*self.places.get(&key)?];
        entry.used = true;
        Some(entry.block.clone())
    }

    pub fn insert(&mut self, key: BlockKey, block: Rc<IoBuf>) {
        let entry = Entry { key, block, used: false };
        if let Some(place) = self.places.get(&key) {
            self.entries[*place] = entry;
        } else if self.entries.len() < self.entries_max {
            self.places.insert(key, self.entries.len());
            self.entries.push(entry);
        } else {
            while std::mem::take(&mut self.entries[self.hand].used) {
                self.hand = (self.hand + 1) % self.entries.len();
            }
            self.places.remove(&self.entries[self.hand].key);
            self.places.insert(key, self.hand);
            self.entries[self.hand] = entry;
            self.hand = (self.hand + 1) % self.entries.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let mut cache = BlockCache::new(4 * BLOCK_SIZE);
        let block = |n: u8| Rc::new(IoBuf::copy_of(&[n]));
        for n in 0..100u8 {
            cache.insert((0, u32::from(n)), block(n));
            assert!(cache.entries.len() <= 4);
            assert_eq!(cache.get((0, 0)).map(|block| block[0]), Some(0), "the one used after every insert stays");
        }
        assert_eq!(cache.get((0, 99)).map(|block| block[0]), Some(99));
        assert!(cache.get((0, 1)).is_none() && cache.get((1, 0)).is_none());
        cache.insert((0, 0), block(7));
        assert_eq!((cache.get((0, 0)).map(|block| block[0]), cache.places.len()), (Some(7), 4));
    }
}
