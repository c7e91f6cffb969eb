//! Line pointers and what they point to.

use super::{Bounds, LINE_POINTER, Page, align, bounds, max_offset, read_u32, set_lower, set_upper, shift, write};
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::planted;
use ironpage_layout::postgres::page::PAGE_HEADER_SIZE;
use ironpage_layout::rel::PAGE_SIZE;
use std::ops::Range;

/// MaxHeapTuplesPerPage (access/htup_details.h).
pub const MAX_HEAP_TUPLES: usize = (PAGE_SIZE - PAGE_HEADER_SIZE) / (24 + LINE_POINTER);
const _: () = assert!(MAX_HEAP_TUPLES == 291);

/// LP_UNUSED and so on.
const UNUSED: u32 = 0;
const NORMAL: u32 = 1;
const REDIRECT: u32 = 2;
const DEAD: u32 = 3;

/// A line pointer (ItemIdData): 15 bits of offset, 2 of flags, 15 of length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item(u32);

impl Item {
    pub const UNUSED: Item = Item(UNUSED << 15);
    pub const DEAD: Item = Item(DEAD << 15);

    pub fn normal(offset: usize, length: usize) -> Item {
        debug_assert!(offset < 1 << 15 && length < 1 << 15);
        Item(offset as u32 | NORMAL << 15 | (length as u32) << 17)
    }

    /// To another line pointer; only 15 bits of its number fit, as in ItemIdSetRedirect.
    pub fn redirect(to: u16) -> Item {
        Item(u32::from(to) & 0x7FFF | REDIRECT << 15)
    }

    #[inline]
    pub fn offset(self) -> usize {
        (self.0 & 0x7FFF) as usize
    }

    #[inline]
    pub fn length(self) -> usize {
        (self.0 >> 17) as usize
    }

    /// With another place and length, the flags as they are.
    pub fn moved(self, offset: usize, length: usize) -> Item {
        Item(offset as u32 & 0x7FFF | self.0 & 3 << 15 | (length as u32) << 17)
    }

    #[inline]
    fn flags(self) -> u32 {
        self.0 >> 15 & 3
    }

    pub fn is_used(self) -> bool {
        self.flags() != UNUSED
    }

    pub fn is_normal(self) -> bool {
        self.flags() == NORMAL
    }

    pub fn is_dead(self) -> bool {
        self.flags() == DEAD
    }

    pub fn has_storage(self) -> bool {
        self.length() != 0
    }

    fn place(offset: u16) -> usize {
        PAGE_HEADER_SIZE + LINE_POINTER * (usize::from(offset) - 1)
    }

    /// The line pointer of this number, from 1 to [`max_offset`].
    #[inline]
    pub fn get(page: &Page, offset: u16) -> Result<Item, RedoError> {
        if offset == 0 || offset > max_offset(page) {
            return Err(RedoError::Page("it lacks the line pointer"));
        }
        read_u32(page, Item::place(offset)).map(Item)
    }

    /// All line pointers and their numbers.
    pub fn all(page: &Page) -> impl Iterator<Item = (u16, Item)> {
        let lines = usize::from(max_offset(page)) * LINE_POINTER;
        let lines = page.get(PAGE_HEADER_SIZE..PAGE_HEADER_SIZE + lines).unwrap_or_default();
        let items = lines.chunks_exact(LINE_POINTER).map(|four| Item(u32::from_le_bytes([four[0], four[1], four[2], four[3]])));
        (1..).zip(items)
    }

    /// Writes it as the line pointer of this number, which must exist.
    #[inline]
    pub fn set(self, page: &mut Page, offset: u16) -> Result<(), RedoError> {
        if offset == 0 || offset > max_offset(page) {
            return Err(RedoError::Page("it lacks the line pointer"));
        }
        self.set_unchecked(page, offset)
    }

    /// As [`Item::set`], without a look at pd_lower.
    #[inline]
    fn set_unchecked(self, page: &mut Page, offset: u16) -> Result<(), RedoError> {
        write(page, Item::place(offset), &self.0.to_le_bytes())
    }

    /// The item's bytes (PageGetItem, ItemIdGetLength), `least` of them or more.
    #[inline]
    pub fn range(self, least: usize) -> Result<Range<usize>, RedoError> {
        let (start, length) = (self.offset(), self.length());
        if start < PAGE_HEADER_SIZE || start + length > PAGE_SIZE || length < least {
            return Err(RedoError::Page("an item is too short or lies outside"));
        }
        Ok(start..start + length)
    }
}

/// How an item comes in among the line pointers (the flags of PageAddItemExtended).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// PAI_OVERWRITE and PAI_IS_HEAP: the line pointer is free, or the next one.
    Heap,
    /// Those from there on move up by one.
    Between,
}

/// PageAddItemExtended, but for the item's bytes: makes room for `size` of them under the line pointer `offset`,
/// and says where they go. What is there already stays, as does the padding behind the item.
#[inline]
pub fn put_item(page: &mut Page, size: usize, offset: u16, put: Put) -> Result<usize, RedoError> {
    let Bounds { lower, upper, .. } = bounds(page)?;
    let limit = max_offset(page) + 1;
    if offset == 0 || offset > limit {
        return Err(RedoError::Page("a line pointer before the new one is missing"));
    }
    if put == Put::Heap && usize::from(offset) > MAX_HEAP_TUPLES {
        return Err(RedoError::Page("it would have more line pointers than a heap page can"));
    }
    let grows = offset == limit || put == Put::Between;
    let new_lower = if grows { lower + LINE_POINTER } else { lower };
    let new_upper = upper.checked_sub(align(size)).ok_or(RedoError::Page("a new item does not fit"))?;
    if new_lower > new_upper {
        return Err(RedoError::Page("a new item does not fit"));
    }
    if offset < limit {
        if put == Put::Heap {
            let old = Item::get(page, offset)?;
            if old.is_used() || old.has_storage() {
                return Err(RedoError::Page("a new item's line pointer is in use"));
            }
        } else {
            let from = Item::place(offset);
            shift(page, from..Item::place(limit), from + LINE_POINTER)?;
        }
    }
    Item::normal(new_upper, size).set_unchecked(page, offset)?;
    set_lower(page, new_lower);
    set_upper(page, new_upper);
    Ok(new_upper)
}

/// btree_xlog_insert and hash_xlog_insert: a new tuple between the others.
pub fn insert_index_tuple(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let offset = fields.u16()?;
    let tuple = fields.rest();
    let at = put_item(page, tuple.len(), offset, Put::Between)?;
    write(page, at, tuple)?;
    if let Some(first) = page.get_mut(at) {
        *first = planted::value(Kind::IndexInsert, *first);
    }
    Ok(())
}
