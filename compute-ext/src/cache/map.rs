//! The table: chained buckets over a growing array of entries, in one span of memory that is touched as it is used.
//!
//! ```text
//! | Head, one partition head each | buckets: u32 each | entries: 64 bytes each, number 0 unused
//! ```
//!
//! Bucket `b` belongs to partition `b % PARTITIONS`. Everything reachable from a bucket, and the partition's head, is
//! protected by the partition's lock, which the caller holds: shared to find, exclusive to change.

use super::PARTITIONS;
use super::entry::{BlockKey, Entry, Written};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Entries a partition takes from the common supply at once.
const CHUNK: u32 = 16;

#[repr(C, align(64))]
struct PartitionHead {
    free: u32,
    chunk_next: u32,
    chunk_end: u32,
}

#[repr(C, align(64))]
struct Head {
    bucket_count: u32,
    /// Entries there is room for, number 0 included.
    capacity: u32,
    /// First entry that no partition has taken yet.
    supply: AtomicU32,
    count: AtomicU64,
    partitions: [PartitionHead; PARTITIONS],
}

/// No room for another entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache map has no room for another block")]
pub struct MapFull;

/// A map somewhere in memory. Copies name the same map.
#[derive(Clone, Copy)]
pub struct Map {
    head: *mut Head,
}

impl Map {
    /// Bytes of a map with so many buckets (a power of two, `PARTITIONS` at least) and entries.
    pub fn size(bucket_count: u32, capacity: u32) -> usize {
        size_of::<Head>() + (bucket_count as usize) * 4 + (capacity as usize) * size_of::<Entry>()
    }

    /// Makes an empty map.
    ///
    /// # Safety
    /// `base` points to `Map::size` zeroed bytes, aligned to 64, that live as long as the map is used.
    pub unsafe fn create(base: *mut u8, bucket_count: u32, capacity: u32) -> Map {
        assert!(bucket_count.is_power_of_two() && bucket_count as usize >= PARTITIONS && capacity > CHUNK);
        let head = base.cast::<Head>();
        // SAFETY: the caller gave zeroed memory of this size, which is a valid Head (integers and atomics).
        let fields = unsafe { &mut *head };
        fields.bucket_count = bucket_count;
        fields.capacity = capacity;
        fields.supply = AtomicU32::new(1);
        Map { head }
    }

    /// A map made earlier by [`Map::create`].
    ///
    /// # Safety
    /// `base` is that map's.
    pub unsafe fn at(base: *mut u8) -> Map {
        Map { head: base.cast() }
    }

    fn bucket_mask(&self) -> u32 {
        // SAFETY: written once, by create.
        unsafe { (*self.head).bucket_count - 1 }
    }

    pub fn bucket_count(&self) -> u32 {
        self.bucket_mask() + 1
    }

    pub fn bucket_of(&self, key: &BlockKey) -> u32 {
        key.hash() & self.bucket_mask()
    }

    /// The partition whose lock protects `key`.
    pub fn partition_of(&self, key: &BlockKey) -> usize {
        self.bucket_of(key) as usize % PARTITIONS
    }

    /// Blocks in the map.
    pub fn count(&self) -> u64 {
        // SAFETY: an atomic that lives as long as the map.
        unsafe { (*self.head).count.load(Ordering::Relaxed) }
    }

    fn bucket(&self, number: u32) -> *mut u32 {
        debug_assert!(number < self.bucket_count());
        // SAFETY: buckets lie behind the head, and `number` is below their count.
        unsafe { self.head.add(1).cast::<u32>().add(number as usize) }
    }

    fn entry(&self, number: u32) -> *mut Entry {
        // SAFETY: entries lie behind the buckets; numbers come from the supply, which stays below capacity.
        unsafe { self.head.add(1).cast::<u32>().add(self.bucket_count() as usize).cast::<Entry>().add(number as usize) }
    }

    /// The entry of `key`, if the block is valid.
    ///
    /// # Safety
    /// The caller holds the partition's lock, shared or exclusive, for as long as it uses the reference.
    pub unsafe fn find(&self, key: &BlockKey) -> Option<&Entry> {
        // SAFETY: the lock keeps the chain and its entries unchanged; `accessed` is atomic.
        unsafe {
            let mut number = *self.bucket(self.bucket_of(key));
            while number != 0 {
                let entry = &*self.entry(number);
                if entry.key == *key {
                    return Some(entry);
                }
                number = entry.next;
            }
        }
        None
    }

    /// Makes the block valid, or says anew how it became so.
    ///
    /// # Safety
    /// The caller holds the partition's lock exclusively.
    pub unsafe fn put(&self, key: &BlockKey, written: Written) -> Result<(), MapFull> {
        let hash = key.hash();
        // SAFETY: the exclusive lock gives this bucket, its chain and the partition's head to us alone.
        unsafe {
            let bucket = self.bucket(hash & self.bucket_mask());
            let mut number = *bucket;
            while number != 0 {
                let entry = self.entry(number);
                if (*entry).key == *key {
                    (*entry).written = written;
                    (*entry).accessed.store(1, Ordering::Relaxed);
                    return Ok(());
                }
                number = (*entry).next;
            }
            let fresh = self.allocate(self.partition_of(key))?;
            self.entry(fresh).write(Entry {
                key: *key,
                hash,
                written,
                next: *bucket,
                accessed: AtomicU8::new(1),
                reserved: [0; 3],
            });
            *bucket = fresh;
            (*self.head).count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets the block. False if it was not valid.
    ///
    /// # Safety
    /// The caller holds the partition's lock exclusively.
    pub unsafe fn remove(&self, key: &BlockKey) -> bool {
        let bucket = self.bucket_of(key);
        // SAFETY: passed on.
        unsafe { self.remove_if(bucket, 1, |entry| entry.key == *key) == 1 }
    }

    /// Forgets the blocks of a bucket that `condition` names, `limit` at most; says how many.
    ///
    /// # Safety
    /// The caller holds the lock of partition `bucket % PARTITIONS` exclusively.
    pub unsafe fn remove_if(&self, bucket: u32, limit: usize, condition: impl Fn(&Entry) -> bool) -> usize {
        let mut removed = 0;
        // SAFETY: the exclusive lock gives this bucket, its chain and the partition's head to us alone.
        unsafe {
            let mut link: *mut u32 = self.bucket(bucket);
            while *link != 0 && removed < limit {
                let number = *link;
                let entry = self.entry(number);
                if condition(&*entry) {
                    *link = (*entry).next;
                    self.release(bucket as usize % PARTITIONS, number);
                    removed += 1;
                } else {
                    link = &raw mut (*entry).next;
                }
            }
            (*self.head).count.fetch_sub(removed as u64, Ordering::Relaxed);
        }
        removed
    }

    /// Every entry of a bucket.
    ///
    /// # Safety
    /// The caller holds the lock of partition `bucket % PARTITIONS`, shared or exclusive.
    pub unsafe fn for_each(&self, bucket: u32, mut visit: impl FnMut(&Entry)) {
        // SAFETY: as in `find`.
        unsafe {
            let mut number = *self.bucket(bucket);
            while number != 0 {
                let entry = &*self.entry(number);
                visit(entry);
                number = entry.next;
            }
        }
    }

    /// # Safety
    /// The caller holds the partition's lock exclusively.
    unsafe fn allocate(&self, partition: usize) -> Result<u32, MapFull> {
        // SAFETY: the partition's head is the lock holder's; the supply is atomic.
        unsafe {
            let head = &raw mut (*self.head).partitions[partition];
            if (*head).free != 0 {
                let number = (*head).free;
                (*head).free = (*self.entry(number)).next;
                return Ok(number);
            }
            if (*head).chunk_next == (*head).chunk_end {
                let capacity = (*self.head).capacity;
                let take = |supply: u32| if supply > capacity - CHUNK { None } else { Some(supply + CHUNK) };
                let start = (*self.head).supply.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| MapFull)?;
                (*head).chunk_next = start;
                (*head).chunk_end = start + CHUNK;
            }
            let number = (*head).chunk_next;
            (*head).chunk_next += 1;
            Ok(number)
        }
    }

    /// # Safety
    /// The caller holds the partition's lock exclusively, and `number` is in no chain any more.
    unsafe fn release(&self, partition: usize, number: u32) {
        // SAFETY: passed on.
        unsafe {
            let head = &raw mut (*self.head).partitions[partition];
            (*self.entry(number)).next = (*head).free;
            (*head).free = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::RwLock;

    /// A map in memory of its own.
    struct Owned {
        memory: *mut u8,
        layout: std::alloc::Layout,
        map: Map,
    }

    // SAFETY: the tests below follow the locking rule of the map.
    unsafe impl Send for Owned {}
    // SAFETY: as above.
    unsafe impl Sync for Owned {}

    impl Owned {
        fn new(buckets: u32, capacity: u32) -> Owned {
            let layout = std::alloc::Layout::from_size_align(Map::size(buckets, capacity), 64).unwrap();
            // SAFETY: the layout has a size; the memory is zeroed and freed in drop.
            let memory = unsafe { std::alloc::alloc_zeroed(layout) };
            // SAFETY: as create wants it.
            let map = unsafe { Map::create(memory, buckets, capacity) };
            Owned { memory, layout, map }
        }
    }

    impl Drop for Owned {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout.
            unsafe { std::alloc::dealloc(self.memory, self.layout) }
        }
    }

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn key(number: u64) -> BlockKey {
        BlockKey {
            tablespace: 1663,
            database: 5,
            relation: 16384 + (number % 7) as u32,
            fork: (number % 3) as u32,
            block: (number / 21) as u32,
        }
    }

    #[test]
    fn agrees_with_a_hash_map_over_random_operations() {
        let owned = Owned::new(256, 4096);
        let map = owned.map;
        let mut model: HashMap<BlockKey, Written> = HashMap::new();
        let mut seed = 0x1234_5678_9ABC_DEF1;
        for step in 0..200_000u64 {
            let key = key(random(&mut seed) % 3000);
            let written = Written { lwlsn: step, crc: step as u32, ..Written::default() };
            // SAFETY: one thread; no lock needed.
            unsafe {
                match random(&mut seed) % 10 {
                    0..=4 => match map.put(&key, written) {
                        Ok(()) => drop(model.insert(key, written)),
                        Err(MapFull) => assert!(!model.contains_key(&key) && model.len() > 1000),
                    },
                    5..=7 => assert_eq!(map.remove(&key), model.remove(&key).is_some()),
                    _ => assert_eq!(map.find(&key).map(|entry| entry.written), model.get(&key).copied()),
                }
            }
            assert_eq!(map.count(), model.len() as u64);
        }
        let mut seen = 0;
        for bucket in 0..map.bucket_count() {
            // SAFETY: one thread.
            unsafe {
                map.for_each(bucket, |entry| {
                    assert_eq!(model.get(&entry.key), Some(&entry.written));
                    seen += 1;
                })
            };
        }
        assert_eq!(seen, model.len());
        assert!(seen > 100);
    }

    #[test]
    fn a_full_map_says_so_and_takes_blocks_again_once_some_left() {
        let owned = Owned::new(128, 4096);
        let map = owned.map;
        // SAFETY: one thread.
        unsafe {
            let mut last = 0;
            while map.put(&key(last), Written::default()).is_ok() {
                last += 1;
            }
            assert!(last > 2000 && last < 4096, "{last}");
            let partition = map.partition_of(&key(last));
            let other = (0..last).find(|n| map.partition_of(&key(*n)) == partition).unwrap();
            assert!(map.remove(&key(other)));
            assert_eq!(map.put(&key(last), Written::default()), Ok(()));
            assert!(map.find(&key(last)).is_some() && map.find(&key(other)).is_none());
        }
    }

    #[test]
    fn neighbours_stay_together_and_relations_spread_over_the_partitions() {
        let owned = Owned::new(1 << 14, 4096);
        let of = |relation, block| BlockKey { tablespace: 1663, database: 5, relation, fork: 0, block };
        for start in [0, 160, 4096] {
            let first = owned.map.bucket_of(&of(16384, start));
            assert!((0..16).all(|n| owned.map.bucket_of(&of(16384, start + n)) == first + n));
        }
        let mut load = [0; PARTITIONS];
        (0..PARTITIONS as u32 * 100).for_each(|n| load[owned.map.partition_of(&of(16384 + n % 50, n / 50))] += 1);
        assert!(load.iter().all(|blocks| (50..200).contains(blocks)), "{load:?}");
    }

    #[test]
    fn removing_by_condition_takes_exactly_the_named() {
        let owned = Owned::new(128, 4096);
        let map = owned.map;
        // SAFETY: one thread.
        unsafe {
            for n in 0..1000 {
                map.put(&key(n), Written::default()).unwrap();
            }
            let removed: usize = (0..map.bucket_count()).map(|b| map.remove_if(b, usize::MAX, |e| e.key.relation == 16384)).sum();
            assert_eq!(removed, 143);
            assert_eq!(map.count(), 857);
            assert!((0..1000).all(|n| map.find(&key(n)).is_some() == (key(n).relation != 16384)));
        }
    }

    #[test]
    fn threads_that_hold_the_partition_lock_lose_nothing() {
        let owned = Owned::new(1024, 1 << 16);
        let locks: Vec<RwLock<()>> = (0..PARTITIONS).map(|_| RwLock::new(())).collect();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (owned, locks) = (&owned, &locks);
                scope.spawn(move || {
                    let map = owned.map;
                    let mut seed = thread + 1;
                    for step in 0..20_000u64 {
                        // Each thread has relations of its own: what it put is there until it removes it.
                        let key = BlockKey { database: thread as u32, ..key(random(&mut seed) % 500) };
                        let lock = &locks[map.partition_of(&key)];
                        let written = Written { lwlsn: step, ..Written::default() };
                        // SAFETY: under the partition's lock.
                        unsafe {
                            let guard = lock.write().unwrap();
                            map.put(&key, written).unwrap();
                            drop(guard);
                            let guard = lock.read().unwrap();
                            assert_eq!(map.find(&key).unwrap().written, written);
                            drop(guard);
                            if step % 2 == 0 {
                                let _guard = lock.write().unwrap();
                                assert!(map.remove(&key));
                            }
                        }
                    }
                });
            }
        });
        let mut counted = 0;
        // SAFETY: the threads are gone.
        (0..owned.map.bucket_count()).for_each(|bucket| unsafe { owned.map.for_each(bucket, |_| counted += 1) });
        assert_eq!(counted, owned.map.count());
    }
}
