//! Heap records: their pages, and the visibility map they change without naming it (access/heap/heapam.c).

use super::record::Step;
use super::{IngestError, Sink};
use ironpage_layout::postgres::page::visibility;
use ironpage_layout::postgres::rmgr::{Rmgr, heap};
use ironpage_layout::postgres::wal::record::Block;
use ironpage_layout::{Fork, Key, Value};

/// XLH_INSERT_ALL_VISIBLE_CLEARED and XLH_DELETE_ALL_VISIBLE_CLEARED.
const ALL_VISIBLE_CLEARED: u8 = 1;
/// XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED.
const OLD_ALL_VISIBLE_CLEARED: u8 = 1;
/// XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED.
const NEW_ALL_VISIBLE_CLEARED: u8 = 2;
/// XLH_LOCK_ALL_FROZEN_CLEARED.
const ALL_FROZEN_CLEARED: u8 = 1;

/// Where the flags stand in xl_heap_insert, in xl_heap_multi_insert, and in the other records that have them.
const INSERT_FLAGS: usize = 2;
const MULTI_INSERT_FLAGS: usize = 0;
const OTHER_FLAGS: usize = 7;
/// Where they stand in xl_heap_visible.
const VISIBLE_FLAGS: usize = 4;

impl<'a, S: Sink> Step<'a, S> {
    pub fn heap(&mut self, rmgr: Rmgr, info: u8) -> Result<(), IngestError> {
        match rmgr {
            Rmgr::Heap => self.heap1(info & heap::OP_MASK),
            _ => self.heap2(info & heap::OP_MASK),
        }
    }

    fn heap1(&mut self, operation: u8) -> Result<(), IngestError> {
        match operation {
            heap::INSERT => self.clear_if(INSERT_FLAGS, ALL_VISIBLE_CLEARED, visibility::VALID_BITS)?,
            heap::DELETE => self.clear_if(OTHER_FLAGS, ALL_VISIBLE_CLEARED, visibility::VALID_BITS)?,
            heap::LOCK => self.clear_if(OTHER_FLAGS, ALL_FROZEN_CLEARED, visibility::ALL_FROZEN)?,
            heap::UPDATE | heap::HOT_UPDATE => {
                let flags = self.flags(OTHER_FLAGS)?;
                let new = self.referenced(0)?;
                let record = self.record;
                let old = record.block(1).unwrap_or(new);
                if flags & OLD_ALL_VISIBLE_CLEARED != 0 {
                    self.clear(old, visibility::VALID_BITS);
                }
                if flags & NEW_ALL_VISIBLE_CLEARED != 0 {
                    self.clear(new, visibility::VALID_BITS);
                }
            }
            heap::CONFIRM | heap::INPLACE => {}
            // For logical decoding alone: the files are truncated by storage records.
            heap::TRUNCATE => {}
            _ => return Err(self.unknown()),
        }
        self.pages()
    }

    fn heap2(&mut self, operation: u8) -> Result<(), IngestError> {
        match operation {
            heap::HEAP2_VISIBLE => return self.visible(),
            heap::HEAP2_MULTI_INSERT => self.clear_if(MULTI_INSERT_FLAGS, ALL_VISIBLE_CLEARED, visibility::VALID_BITS)?,
            heap::HEAP2_LOCK_UPDATED => self.clear_if(OTHER_FLAGS, ALL_FROZEN_CLEARED, visibility::ALL_FROZEN)?,
            heap::HEAP2_PRUNE | heap::HEAP2_VACUUM | heap::HEAP2_FREEZE_PAGE => {}
            // For logical decoding alone.
            heap::HEAP2_NEW_CID | heap::HEAP2_REWRITE => {}
            _ => return Err(self.unknown()),
        }
        self.pages()
    }

    /// heap_xlog_visible: block 0 is the map's page, block 1 the heap's.
    fn visible(&mut self) -> Result<(), IngestError> {
        let map = self.referenced(0)?;
        let heap_block = self.referenced(1)?;
        let flags = self.flags(VISIBLE_FLAGS)? & visibility::VALID_BITS;
        if map.fork != Fork::Vm || map.rel != heap_block.rel || map.block != visibility::map_block(heap_block.block.0) {
            return Err(self.malformed("its map page is not the one of its heap block"));
        }
        self.page(heap_block)?;
        if map.applied_image().is_some() {
            return self.page(map);
        }
        self.head.relations.cover(map.rel, Fork::Vm, map.block, self.end, self.sink);
        let value = Value::VmSet { heap_block: heap_block.block.0, flags };
        self.sink.put(Key::page(map.rel, Fork::Vm, map.block), self.end, value);
        Ok(())
    }

    fn flags(&self, at: usize) -> Result<u8, IngestError> {
        self.record.main_data.get(at).copied().ok_or_else(|| self.short())
    }

    fn referenced(&self, id: u8) -> Result<&'a Block<'a>, IngestError> {
        let record = self.record;
        record.block(id).ok_or_else(|| self.malformed("it lacks a block reference"))
    }

    /// Clears `bits` of the heap block that is block 0 if the flags at `at` have `flag`.
    fn clear_if(&mut self, at: usize, flag: u8, bits: u8) -> Result<(), IngestError> {
        let block = self.referenced(0)?;
        if self.flags(at)? & flag != 0 {
            self.clear(block, bits);
        }
        Ok(())
    }

    /// visibilitymap_pin and visibilitymap_clear: the map grows to have the page, as on the primary.
    fn clear(&mut self, heap: &Block<'_>, flags: u8) {
        let map = visibility::map_block(heap.block.0);
        self.head.relations.cover(heap.rel, Fork::Vm, map, self.end, self.sink);
        let value = Value::VmClear { heap_block: heap.block.0, flags };
        self.sink.put(Key::page(heap.rel, Fork::Vm, map), self.end, value);
    }
}
