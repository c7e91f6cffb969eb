//! Tuples of equal keys become one with a list of their TIDs (btree_xlog_dedup, nbtdedup.c).

use super::posting::{MAX_TUPLE, Posting};
use super::split::empty_with_special;
use super::{FLAGS, HIGH_KEY, TID, TupleHead, first_data_key, flags, opaque};
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{Item, Page, Put, align, max_offset, put_item, read_u16, write};
use crate::planted;

/// A tuple that is merged: its key's bytes, and where its TIDs are.
struct Source {
    head: TupleHead,
    at: usize,
    key: usize,
    tids: std::ops::Range<usize>,
}

impl Source {
    fn read(page: &Page, offset: u16) -> Result<Source, RedoError> {
        let range = Item::get(page, offset)?.range(TupleHead::SIZE)?;
        let head = TupleHead::read(page, range.start)?;
        let at = range.start;
        if head.is_posting() {
            let posting = Posting::read(page, range)?;
            return Ok(Source { head, at, key: posting.key, tids: posting.tid(0)..posting.tid(posting.count) });
        }
        if head.size() > range.len() || head.size() < TupleHead::SIZE {
            return Err(RedoError::Page("a tuple is longer than its item"));
        }
        Ok(Source { head, at, key: head.size(), tids: at..at + TID })
    }
}

/// per interval: first offset u16, count u16
pub fn dedup(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let mut merged = empty_with_special(page)?;
    let (first, last) = (first_data_key(page)?, max_offset(page));
    let outside = RedoError::Page("an item lies outside");
    if first > last {
        return Err(RedoError::Page("there is nothing to merge on it"));
    }
    if first > HIGH_KEY {
        let range = Item::get(page, HIGH_KEY)?.range(0)?;
        let at = put_item(&mut merged, range.len(), HIGH_KEY, Put::Between)?;
        write(&mut merged, at, page.get(range).ok_or(outside)?)?;
    }
    let mut interval = next_interval(fields)?;
    let mut offset = first;
    while offset <= last {
        let to = max_offset(&merged) + 1;
        match interval {
            Some((base, count)) if base == offset => {
                let count = count.min(last - offset + 1);
                merge(page, &mut merged, offset, count, to)?;
                offset += count;
                interval = next_interval(fields)?;
            }
            _ => {
                // As long as it says itself, whatever its line pointer says.
                let source = Source::read(page, offset)?;
                let size = source.head.size();
                let at = put_item(&mut merged, size, to, Put::Between)?;
                write(&mut merged, at, page.get(source.at..source.at + size).ok_or(outside)?)?;
                offset += 1;
            }
        }
    }
    if interval.is_some() {
        return Err(RedoError::Page("tuples to merge are not on it"));
    }
    *page = merged;
    let at = opaque(page)? + FLAGS;
    let flags = read_u16(page, at)? & !flags::HAS_GARBAGE;
    write(page, at, &planted::value(Kind::BtreeDedup, flags).to_le_bytes())
}

fn next_interval(fields: &mut Fields<'_>) -> Result<Option<(u16, u16)>, RedoError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let (base, count) = (fields.u16()?, fields.u16()?);
    // One tuple is no merge: Postgres never writes such an interval.
    if count < 2 { Err(RedoError::Delta("an interval of tuples to merge is too short")) } else { Ok(Some((base, count))) }
}

/// _bt_form_posting: `count` tuples from `first` on, as the item `to` of the new page.
fn merge(page: &Page, merged: &mut Page, first: u16, count: u16, to: u16) -> Result<(), RedoError> {
    let base = Source::read(page, first)?;
    let mut bytes = 0;
    for offset in first..first + count {
        bytes += Source::read(page, offset)?.tids.len();
    }
    let size = align(base.key + bytes);
    if size > MAX_TUPLE || bytes / TID > usize::from(TupleHead::COUNT_MASK) {
        return Err(RedoError::Page("a posting list would be too long"));
    }
    // The new page is zero where nothing was written: so is the padding.
    let at = put_item(merged, size, to, Put::Between)?;
    let outside = RedoError::Page("an item lies outside");
    write(merged, at, page.get(base.at..base.at + base.key).ok_or(outside)?)?;
    write(merged, at, &base.head.with_posting(base.key, bytes / TID, size).to_bytes())?;
    let mut end = at + base.key;
    for offset in first..first + count {
        let tids = Source::read(page, offset)?.tids;
        let length = tids.len();
        write(merged, end, page.get(tids).ok_or(outside)?)?;
        end += length;
    }
    Ok(())
}
