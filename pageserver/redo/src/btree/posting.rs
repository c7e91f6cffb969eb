//! Tuples with lists of heap TIDs (access/nbtree/nbtdedup.c), and the removal of tuples and TIDs.

use super::{FLAGS, TID, TupleHead, flags, opaque};
use crate::delta::{Fields, Kind, Offsets};
use crate::error::RedoError;
use crate::page::{Item, Page, Put, align, delete_index_tuples, overwrite_index_tuple, put_item, read_u16, shift, write};
use crate::planted;
use std::ops::Range;

/// BTMaxItemSize of a page of 8192 bytes: no tuple with a posting list is larger.
pub const MAX_TUPLE: usize = 2704;

const NO_POSTING: RedoError = RedoError::Page("a tuple is not the posting list it should be");

/// A tuple with a posting list, and where it is on the page.
pub struct Posting {
    pub at: usize,
    pub head: TupleHead,
    /// Bytes before the list: BTreeTupleGetPostingOffset.
    pub key: usize,
    /// BTreeTupleGetNPosting.
    pub count: usize,
}

impl Posting {
    /// The posting list's tuple at `range`.
    pub fn read(page: &Page, range: Range<usize>) -> Result<Posting, RedoError> {
        let head = TupleHead::read(page, range.start)?;
        let (key, count) = (head.block as usize, usize::from(head.offset & TupleHead::COUNT_MASK));
        let size = head.size();
        if !head.is_posting() || key < TupleHead::SIZE || key > size || count * TID > size - key || size > range.len() {
            return Err(NO_POSTING);
        }
        Ok(Posting { at: range.start, head, key, count })
    }

    /// Where the TID of this number is, from 0.
    pub fn tid(&self, number: usize) -> usize {
        self.at + self.key + number * TID
    }

    /// _bt_swap_posting, in place: the new TID goes in at `number`, the last one comes out.
    pub fn swap(&self, page: &mut Page, number: usize, new: [u8; TID]) -> Result<[u8; TID], RedoError> {
        if number == 0 || number >= self.count {
            return Err(RedoError::Page("a posting list is shorter than where it is split"));
        }
        let last = crate::page::read(page, self.tid(self.count - 1))?;
        shift(page, self.tid(number)..self.tid(self.count - 1), self.tid(number + 1))?;
        write(page, self.tid(number), &new)?;
        Ok(last)
    }
}

/// btree_xlog_insert of a tuple whose TID lies inside a posting list, which therefore is split.
///
/// offset u16, posting offset u16, tuple
pub fn insert_posting(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (offset, number) = (fields.u16()?, fields.u16()?);
    let tuple = fields.rest();
    let tid = *tuple.first_chunk().ok_or(RedoError::Delta("a tuple is shorter than its head"))?;
    let before = offset.checked_sub(1).ok_or(RedoError::Delta("an offset number is 0"))?;
    let range = Item::get(page, before)?.range(TupleHead::SIZE)?;
    let mut last = Posting::read(page, range)?.swap(page, usize::from(number), tid)?;
    last[0] = planted::value(Kind::BtreeInsertPosting, last[0]);
    let at = put_item(page, tuple.len(), offset, Put::Between)?;
    write(page, at, tuple)?;
    write(page, at, &last)
}

/// btree_xlog_vacuum and btree_xlog_delete: some posting lists lose TIDs, then some tuples go.
///
/// deleted u16, updated u16, offsets of the deleted, offsets of the updated, per updated: count u16, TID numbers u16
pub fn delete(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (deleted, updated) = (fields.u16()?, fields.u16()?);
    let deleted = fields.offsets(usize::from(deleted))?;
    let updated = fields.offsets(usize::from(updated))?;
    for offset in updated.iter() {
        let count = usize::from(fields.u16()?);
        remove_tids(page, offset, fields.offsets(count)?)?;
    }
    delete_index_tuples(page, deleted)?;
    let at = opaque(page)? + FLAGS;
    let flags = read_u16(page, at)? & !flags::HAS_GARBAGE;
    write(page, at, &planted::value(Kind::BtreeDelete, flags).to_le_bytes())
}

/// _bt_update_posting and PageIndexTupleOverwrite.
fn remove_tids(page: &mut Page, offset: u16, doomed: Offsets<'_>) -> Result<(), RedoError> {
    let range = Item::get(page, offset)?.range(TupleHead::SIZE)?;
    let old = Posting::read(page, range)?;
    let mut tuple = [0; MAX_TUPLE];
    let left = old.count.checked_sub(doomed.len()).filter(|left| *left > 0);
    let left = left.ok_or(RedoError::Delta("it removes more TIDs than a posting list has"))?;
    let size = if left > 1 { align(old.key + left * TID) } else { old.key };
    let new = tuple.get_mut(..size).ok_or(NO_POSTING)?;
    new.get_mut(..old.key).ok_or(NO_POSTING)?.copy_from_slice(page.get(old.at..old.at + old.key).ok_or(NO_POSTING)?);

    // A single TID stands where it does in any tuple, in the head.
    let mut to = if left > 1 { old.key } else { 0 };
    let mut doomed = doomed.iter().peekable();
    for number in 0..old.count {
        if doomed.next_if(|next| usize::from(*next) == number).is_some() {
            continue;
        }
        let tid: [u8; TID] = crate::page::read(page, old.tid(number))?;
        new.get_mut(to..to + TID).ok_or(RedoError::Delta("TIDs to remove are out of order"))?.copy_from_slice(&tid);
        to += TID;
    }
    if doomed.next().is_some() {
        return Err(RedoError::Delta("TIDs to remove are out of order"));
    }
    let info = old.head.info & !TupleHead::SIZE_MASK | size as u16;
    if left > 1 {
        new[..TupleHead::SIZE].copy_from_slice(&old.head.with_posting(old.key, left, size).to_bytes());
    } else {
        new[TID..TupleHead::SIZE].copy_from_slice(&(info & !TupleHead::ALT_TID).to_le_bytes());
    }
    overwrite_index_tuple(page, offset, &tuple[..align(size)])
}
