//! Items move together (storage/page/bufpage.c). Bytes that become free keep what they held, as in Postgres.

use super::items::MAX_HEAP_TUPLES;
use super::{
    Bounds, HAS_FREE_LINES, Item, LINE_POINTER, Page, align, aligned_bounds, clear_flag, max_offset, set_flag, set_lower,
    set_upper, shift, write,
};
use crate::delta::Offsets;
use crate::error::RedoError;
use ironpage_layout::postgres::page::PAGE_HEADER_SIZE;
use ironpage_layout::rel::PAGE_SIZE;
use std::ops::Range;

/// MaxIndexTuplesPerPage (access/itup.h).
const MAX_INDEX_TUPLES: usize = (PAGE_SIZE - PAGE_HEADER_SIZE) / (16 + LINE_POINTER);
const _: () = assert!(MAX_INDEX_TUPLES == 408);

const CORRUPT_ITEM: RedoError = RedoError::Page("a line pointer points outside the items");

/// An item that stays: itemIdCompactData.
#[derive(Clone, Copy)]
struct Kept {
    item: Item,
    /// Number of the line pointer it will have; as wide as the item, so that an array of both is cleared in one go.
    offset: u32,
}

/// The items that stay, in the order of their line pointers.
struct KeptItems<const MAX: usize> {
    items: [Kept; MAX],
    count: usize,
    total: usize,
    /// Each lies below the one before.
    sorted: bool,
    last: usize,
}

impl<const MAX: usize> KeptItems<MAX> {
    fn new(special: usize) -> Self {
        let nothing = Kept { item: Item::UNUSED, offset: 0 };
        KeptItems { items: [nothing; MAX], count: 0, total: 0, sorted: true, last: special }
    }

    /// An item whose bytes lie between `bounds.upper` and `bounds.special`.
    #[inline]
    fn push(&mut self, offset: u16, item: Item, bounds: Bounds) -> Result<(), RedoError> {
        let (at, length) = (item.offset(), align(item.length()));
        if at < bounds.upper || at + length > bounds.special {
            return Err(CORRUPT_ITEM);
        }
        self.sorted &= self.last > at;
        self.last = at;
        self.total += length;
        let slot = self.items.get_mut(self.count).ok_or(RedoError::Page("it has more items than a page can"))?;
        *slot = Kept { item, offset: u32::from(offset) };
        self.count += 1;
        Ok(())
    }

    /// compactify_tuples: to the end of the page, in reverse order of the line pointers, which follow. The order in
    /// which Postgres copies differs with what it finds; what it leaves does not, as long as items do not overlap.
    fn compact(&self, page: &mut Page, bounds: Bounds) -> Result<(), RedoError> {
        if self.total > bounds.special - bounds.lower {
            return Err(RedoError::Page("its items are longer than the page"));
        }
        // Sorted items move up past nothing that has yet to move; others come out of a copy of the page.
        let scratch = if self.sorted { None } else { Some(*page) };
        let move_up = |page: &mut Page, from: Range<usize>, to: usize| match &scratch {
            _ if from.start == to => Ok(()),
            None => shift(page, from, to),
            Some(scratch) => write(page, to, scratch.get(from).ok_or(CORRUPT_ITEM)?),
        };
        // Items with no gap between them move together: where they are, and the end of where they go.
        let (mut run, mut to) = (bounds.special..bounds.special, bounds.special);
        for kept in self.items.iter().take(self.count) {
            let (at, length) = (kept.item.offset(), align(kept.item.length()));
            if at + length != run.start {
                let start = to.checked_sub(run.len()).ok_or(CORRUPT_ITEM)?;
                move_up(page, run, start)?;
                (run, to) = (at..at + length, start);
            } else {
                run.start = at;
            }
            let upper = to.checked_sub(run.len()).ok_or(CORRUPT_ITEM)?;
            if upper != at {
                kept.item.moved(upper, kept.item.length()).set(page, kept.offset as u16)?;
            }
        }
        let upper = to.checked_sub(run.len()).ok_or(CORRUPT_ITEM)?;
        move_up(page, run, upper)?;
        set_upper(page, upper);
        Ok(())
    }
}

/// PageRepairFragmentation: of a heap page after pruning.
pub fn repair_fragmentation(page: &mut Page) -> Result<(), RedoError> {
    let bounds = aligned_bounds(page)?;
    let lines = max_offset(page);
    let mut kept = KeptItems::<MAX_HEAP_TUPLES>::new(bounds.special);
    let (mut unused, mut last_used, mut unclean) = (0, 0, false);
    for (offset, item) in Item::all(page) {
        if !item.is_used() {
            unused += 1;
            unclean |= item != Item::UNUSED;
            continue;
        }
        last_used = offset;
        if item.has_storage() {
            kept.push(offset, item, bounds)?;
        }
    }
    if unclean {
        for offset in 1..=lines {
            if !Item::get(page, offset)?.is_used() {
                Item::UNUSED.set(page, offset)?;
            }
        }
    }
    if kept.count == 0 {
        set_upper(page, bounds.special);
    } else {
        kept.compact(page, bounds)?;
    }
    let trailing = lines - last_used;
    set_lower(page, bounds.lower - LINE_POINTER * usize::from(trailing));
    hint_free_lines(page, unused > trailing);
    Ok(())
}

/// PageTruncateLinePointerArray: of a heap page in vacuum's second pass. One line pointer stays in any case.
pub fn truncate_line_pointers(page: &mut Page) -> Result<(), RedoError> {
    let bounds = aligned_bounds(page)?;
    let mut last = max_offset(page);
    while last > 1 && !Item::get(page, last)?.is_used() {
        last -= 1;
    }
    let trailing = usize::from(max_offset(page) - last);
    let mut free = false;
    for offset in (1..=last).rev() {
        if !Item::get(page, offset)?.is_used() {
            free = true;
            break;
        }
    }
    set_lower(page, bounds.lower - LINE_POINTER * trailing);
    hint_free_lines(page, free);
    Ok(())
}

fn hint_free_lines(page: &mut Page, free: bool) {
    if free {
        set_flag(page, HAS_FREE_LINES);
    } else {
        clear_flag(page, HAS_FREE_LINES);
    }
}

/// A line pointer of an index page and its item, as PageIndexTupleDelete checks it.
fn index_item(page: &Page, offset: u16, bounds: Bounds) -> Result<Item, RedoError> {
    let item = Item::get(page, offset)?;
    let (at, length) = (item.offset(), item.length());
    // The check of the padded length is ours: an aligned special space lets no sane item fail it.
    if at < bounds.upper || at + align(length) > bounds.special || at != align(at) {
        return Err(CORRUPT_ITEM);
    }
    Ok(item)
}

/// PageIndexTupleDelete.
pub fn delete_index_tuple(page: &mut Page, offset: u16) -> Result<(), RedoError> {
    let bounds = aligned_bounds(page)?;
    let item = index_item(page, offset, bounds)?;
    let (at, length) = (item.offset(), align(item.length()));
    let line = PAGE_HEADER_SIZE + LINE_POINTER * usize::from(offset - 1);
    shift(page, line + LINE_POINTER..bounds.lower, line)?;
    shift(page, bounds.upper..at, bounds.upper + length)?;
    set_upper(page, bounds.upper + length);
    set_lower(page, bounds.lower - LINE_POINTER);
    move_items_up_to(page, at, length as isize, Storage::Any)
}

/// Whose line pointers move: all, or those that have storage.
#[derive(PartialEq, Eq)]
enum Storage {
    Any,
    Some,
}

/// Items at or below `at` have moved by `by`; so do their line pointers.
fn move_items_up_to(page: &mut Page, at: usize, by: isize, storage: Storage) -> Result<(), RedoError> {
    for offset in 1..=max_offset(page) {
        let item = Item::get(page, offset)?;
        if item.offset() <= at && (storage == Storage::Any || item.has_storage()) {
            let moved = item.offset().checked_add_signed(by).ok_or(CORRUPT_ITEM)?;
            item.moved(moved, item.length()).set(page, offset)?;
        }
    }
    Ok(())
}

/// PageIndexMultiDelete. `offsets` are in order.
pub fn delete_index_tuples(page: &mut Page, offsets: Offsets<'_>) -> Result<(), RedoError> {
    if offsets.len() <= 2 {
        return offsets.iter().rev().try_for_each(|offset| delete_index_tuple(page, offset));
    }
    let bounds = aligned_bounds(page)?;
    let mut kept = KeptItems::<MAX_INDEX_TUPLES>::new(bounds.special);
    let mut doomed = offsets.iter().peekable();
    let mut stay = 0;
    for offset in 1..=max_offset(page) {
        let item = index_item(page, offset, bounds)?;
        if doomed.next_if_eq(&offset).is_some() {
            continue;
        }
        stay += 1;
        kept.push(stay, item, bounds)?;
        // Never ahead of the one being read. Should the page turn out damaged, it is lost anyway.
        item.set(page, stay)?;
    }
    if doomed.next().is_some() {
        return Err(RedoError::Page("it lacks line pointers to delete, or they are out of order"));
    }
    set_lower(page, PAGE_HEADER_SIZE + LINE_POINTER * usize::from(stay));
    if kept.count == 0 {
        set_upper(page, bounds.special);
        return Ok(());
    }
    kept.compact(page, bounds)
}

/// PageIndexTupleOverwrite: another tuple in the place of one, whatever its length.
pub fn overwrite_index_tuple(page: &mut Page, offset: u16, tuple: &[u8]) -> Result<(), RedoError> {
    let bounds = aligned_bounds(page)?;
    let item = index_item(page, offset, bounds)?;
    let (at, old, new) = (item.offset(), align(item.length()), align(tuple.len()));
    if new > old + (bounds.upper - bounds.lower) {
        return Err(RedoError::Page("a tuple's new version does not fit"));
    }
    let by = old as isize - new as isize;
    let to = at.checked_add_signed(by).ok_or(CORRUPT_ITEM)?;
    if by != 0 {
        let upper = bounds.upper.checked_add_signed(by).ok_or(CORRUPT_ITEM)?;
        shift(page, bounds.upper..at, upper)?;
        set_upper(page, upper);
        move_items_up_to(page, at, by, Storage::Some)?;
    }
    item.moved(to, tuple.len()).set(page, offset)?;
    write(page, to, tuple)
}
