//! The memory layer: what was ingested and is not yet in a layer file.
//!
//! Per key a list of versions, newest first, that runs through an arena. RAM only: after a restart it is
//! filled again from the safekeepers.

mod arena;
mod hasher;

use arena::{Address, Arena};
use hasher::BuildKeyHasher;
use ironpage_layout::{Key, KeyKind, Lsn};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

/// Versions of many keys, of any slot.
pub struct MemoryLayer {
    arena: Arena,
    /// Newest version of each page. Pages are many and never scanned, the rest is few and scanned by range.
    pages: HashMap<Key, Address, BuildKeyHasher>,
    others: BTreeMap<Key, Address>,
    lsn_min: Lsn,
    lsn_max: Lsn,
}

impl Default for MemoryLayer {
    fn default() -> MemoryLayer {
        MemoryLayer {
            arena: Arena::default(),
            pages: HashMap::default(),
            others: BTreeMap::new(),
            lsn_min: Lsn::MAX,
            lsn_max: Lsn::INVALID,
        }
    }
}

impl MemoryLayer {
    /// Adds a version, behind those of the same LSN. Older LSNs than the key's newest are found their place.
    pub fn insert(&mut self, key: Key, lsn: Lsn, bytes: &[u8]) {
        assert!(lsn.is_valid(), "a version of {key} without an LSN");
        self.lsn_min = self.lsn_min.min(lsn);
        self.lsn_max = self.lsn_max.max(lsn);
        let arena = &mut self.arena;
        let head = match key.kind {
            KeyKind::Page => self.pages.entry(key).or_insert(Address::NONE),
            _ => self.others.entry(key).or_insert(Address::NONE),
        };
        let mut newer = None;
        let mut older = *head;
        while let Some(version) = arena.get(older).filter(|version| version.lsn > lsn) {
            newer = Some(older);
            older = version.older;
        }
        let address = arena.push(older, lsn, bytes);
        match newer {
            Some(newer) => arena.set_older(newer, address),
            None => *head = address,
        }
    }

    /// Versions of `key`, newest first.
    pub fn versions(&self, key: &Key) -> impl Iterator<Item = (Lsn, &[u8])> {
        let head = match key.kind {
            KeyKind::Page => self.pages.get(key),
            _ => self.others.get(key),
        };
        let mut next = head.copied().unwrap_or(Address::NONE);
        std::iter::from_fn(move || {
            let version = self.arena.get(next)?;
            next = version.older;
            Some((version.lsn, version.bytes))
        })
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.pages.keys().chain(self.others.keys()).copied()
    }

    /// The keys of a range, in no order. Cheap for ranges without pages.
    pub fn keys_in(&self, range: &RangeInclusive<Key>) -> Vec<Key> {
        let mut keys: Vec<Key> = self.others.range(range.clone()).map(|(key, _)| *key).collect();
        if range.start().kind == KeyKind::Page {
            keys.extend(self.pages.keys().filter(|key| range.contains(key)));
        }
        keys
    }

    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.others.is_empty()
    }

    /// Lowest LSN of any version; `Lsn::MAX` without one.
    pub fn lsn_min(&self) -> Lsn {
        self.lsn_min
    }

    /// Bytes it takes, of values and of what finds them.
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(Key, Address)>() + 1;
        // A hash table is at least 7/8 full when it grows; a B-tree's nodes are two thirds full.
        self.arena.bytes() + self.pages.capacity() * entry * 8 / 7 + self.others.len() * entry * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(layer: &MemoryLayer, key: Key) -> Vec<(u64, Vec<u8>)> {
        layer.versions(&key).map(|(lsn, bytes)| (lsn.0, bytes.to_vec())).collect()
    }

    #[test]
    fn versions_come_newest_first_whatever_the_order_they_came_in() {
        for key in [Key::MIN, Key::control()] {
            let mut layer = MemoryLayer::default();
            assert_eq!(versions(&layer, key), []);
            for (lsn, byte) in [(10, 1), (20, 2), (20, 3), (5, 4), (15, 5), (20, 6), (15, 7)] {
                layer.insert(key, Lsn(lsn), &[byte]);
            }
            let expected = [(20, 6), (20, 3), (20, 2), (15, 7), (15, 5), (10, 1), (5, 4)];
            assert_eq!(versions(&layer, key), expected.map(|(lsn, byte)| (lsn, vec![byte])));
            assert_eq!(layer.keys_in(&Key::kind_range(key.kind)), [key]);
        }
    }

    #[test]
    fn large_values_and_many_chunks_are_kept_and_counted() {
        let mut layer = MemoryLayer::default();
        let value = |n: u64| vec![n as u8; 100 + (n * 7919 % 5000) as usize];
        let huge = vec![9; 3 << 20];
        (1..2000).for_each(|n| layer.insert(Key { block: (n % 50) as u32, ..Key::MIN }, Lsn(n), &value(n)));
        layer.insert(Key { block: 7, ..Key::MIN }, Lsn(3000), &huge);
        layer.insert(Key { block: 7, ..Key::MIN }, Lsn(3001), b"after");
        let found = versions(&layer, Key { block: 7, ..Key::MIN });
        assert_eq!(found[0], (3001, b"after".to_vec()));
        assert!(found[1] == (3000, huge));
        assert!(found[2..].iter().all(|(n, bytes)| *bytes == value(*n)) && found.len() == 42);
        let values: usize = (1..2000).map(|n| value(n).len()).sum::<usize>() + (3 << 20);
        assert!(layer.bytes() >= values && layer.bytes() < values + values / 4 + (2 << 20), "{}", layer.bytes());
        assert_eq!(layer.lsn_min(), Lsn(1));
    }
}
