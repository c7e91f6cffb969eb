//! The left half of a split (btree_xlog_split): the page without what went right, perhaps with the new tuple.

use super::posting::Posting;
use super::{CYCLE_ID, FLAGS, HIGH_KEY, NEXT, TupleHead, first_data_key, flags, opaque};
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{Item, Page, Put, align, put_item, write};
use crate::planted;
use ironpage_layout::postgres::page::init;
use ironpage_layout::rel::PAGE_SIZE;

/// Bits of the delta's flags.
pub const LEAF: u8 = 1;
pub const NEW_ON_LEFT: u8 = 2;

/// The page that is built beside the old one, item after item.
struct Left {
    page: Page,
    next: u16,
}

impl Left {
    /// PageAddItem of bytes from elsewhere, as the next item; where they are now.
    fn add(&mut self, bytes: &[u8]) -> Result<usize, RedoError> {
        let at = put_item(&mut self.page, bytes.len(), self.next, Put::Between)?;
        write(&mut self.page, at, bytes)?;
        self.next += 1;
        Ok(at)
    }
}

/// PageGetTempPageCopySpecial.
pub fn empty_with_special(page: &Page) -> Result<Page, RedoError> {
    let from = opaque(page)?;
    let mut empty = [0; PAGE_SIZE];
    init(&mut empty, PAGE_SIZE - from);
    let special = page.get(from..).unwrap_or_default();
    // An unaligned special space comes to lie elsewhere, as it would in Postgres.
    let to = opaque(&empty)?;
    write(&mut empty, to, special)?;
    Ok(empty)
}

/// flags u8, first right u16, new offset u16, posting offset u16, right sibling u32, [new tuple], high key
pub fn split_left(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let delta = Delta::read(fields)?;
    let mut left = Left { page: empty_with_special(page)?, next: HIGH_KEY };
    left.add(delta.high_key)?;

    let on_left = delta.flags & NEW_ON_LEFT != 0;
    let mut new = delta.new_tuple;
    // The posting list that the new tuple splits stands before it, perhaps as the last of the left half.
    let mut new_tid = None;
    let split_posting = (delta.posting_offset != 0).then(|| delta.new_offset.wrapping_sub(1));
    if let Some(offset) = split_posting {
        let range = Item::get(page, offset)?.range(TupleHead::SIZE)?;
        let posting = Posting::read(page, range)?;
        let tid = *new.first_chunk().ok_or(RedoError::Delta("a tuple is shorter than its head"))?;
        // On the old page, whose bytes are copied below and then gone.
        new_tid = Some(posting.swap(page, usize::from(delta.posting_offset), tid)?);
    }
    let mut add_new = |left: &mut Left| -> Result<(), RedoError> {
        let at = left.add(std::mem::take(&mut new))?;
        match new_tid {
            Some(tid) => write(&mut left.page, at, &tid),
            None => Ok(()),
        }
    };

    let mut offset = first_data_key(page)?;
    while offset < delta.first_right {
        let item = Item::get(page, offset)?;
        let range = item.range(0)?;
        if split_posting == Some(offset) {
            // Its size is the tuple's own here, as for any tuple that is made.
            let size = align(TupleHead::read(page, range.start)?.size());
            left.add(page.get(range.start..range.start + size).ok_or(RedoError::Page("an item lies outside"))?)?;
            offset += 1;
            continue;
        }
        if on_left && offset == delta.new_offset {
            add_new(&mut left)?;
        }
        left.add(page.get(range).ok_or(RedoError::Page("an item lies outside"))?)?;
        offset += 1;
    }
    if on_left && offset == delta.new_offset {
        add_new(&mut left)?;
    }
    *page = left.page;

    let at = opaque(page)?;
    let leaf = if delta.flags & LEAF != 0 { flags::LEAF } else { 0 };
    write(page, at + FLAGS, &(flags::INCOMPLETE_SPLIT | leaf).to_le_bytes())?;
    write(page, at + NEXT, &planted::value(Kind::BtreeSplitLeft, delta.right).to_le_bytes())?;
    write(page, at + CYCLE_ID, &[0; 2])
}

struct Delta<'a> {
    flags: u8,
    first_right: u16,
    new_offset: u16,
    posting_offset: u16,
    right: u32,
    /// Empty unless it goes left or splits a posting list.
    new_tuple: &'a [u8],
    high_key: &'a [u8],
}

impl<'a> Delta<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Delta<'a>, RedoError> {
        let (flags, first_right, new_offset, posting_offset) = (fields.u8()?, fields.u16()?, fields.u16()?, fields.u16()?);
        let right = fields.u32()?;
        let mut tuples = fields.rest();
        let mut next = || -> Result<&'a [u8], RedoError> {
            let cut = RedoError::Delta("a tuple of a split is cut off");
            let size = align(TupleHead::from_bytes(*tuples.first_chunk().ok_or(cut)?).size());
            let (tuple, rest) = tuples.split_at_checked(size).ok_or(cut)?;
            tuples = rest;
            Ok(tuple)
        };
        let new_tuple = if flags & NEW_ON_LEFT != 0 || posting_offset != 0 { next()? } else { &[] };
        let high_key = next()?;
        if !tuples.is_empty() {
            return Err(RedoError::Delta("a split has more tuples than it can"));
        }
        Ok(Delta { flags, first_right, new_offset, posting_offset, right, new_tuple, high_key })
    }
}
