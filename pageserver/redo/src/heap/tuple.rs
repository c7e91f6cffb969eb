//! Changes to single tuples. Bodies of deltas are drawn beside each.

use super::flags::*;
use crate::apply::Place;
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{
    ALL_VISIBLE, Item, Page, Put, Start, clear_flag, put_item, read, read_u16, set_flag, set_prunable, shift, write,
};
use crate::planted;
use ironpage_layout::BlockNumber;
use ironpage_layout::postgres::page::init;

/// SizeofHeapTupleHeader.
pub const HEADER: usize = 23;

/// Places in a tuple (HeapTupleHeaderData, access/htup_details.h).
pub const XMIN: usize = 0;
pub const XMAX_AT: usize = 4;
/// t_cid, or t_xvac.
pub const FIELD3: usize = 8;
const CTID: usize = 12;
pub const INFOMASK2: usize = 18;
pub const INFOMASK: usize = 20;
const HOFF: usize = 22;

const HEAP_XMAX_KEYSHR_LOCK: u16 = 0x0010;
const HEAP_COMBOCID: u16 = 0x0020;
const HEAP_XMAX_EXCL_LOCK: u16 = 0x0040;
const HEAP_XMAX_LOCK_ONLY: u16 = 0x0080;
const HEAP_LOCK_MASK: u16 = HEAP_XMAX_EXCL_LOCK | HEAP_XMAX_KEYSHR_LOCK;
const HEAP_XMAX_IS_MULTI: u16 = 0x1000;
/// HEAP_XMAX_COMMITTED, HEAP_XMAX_INVALID and the locks.
const HEAP_XMAX_BITS: u16 = 0x0400 | 0x0800 | HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK | HEAP_XMAX_LOCK_ONLY;
const HEAP_MOVED: u16 = 0xC000;
const HEAP_KEYS_UPDATED: u16 = 0x2000;
const HEAP_HOT_UPDATED: u16 = 0x4000;

/// xl_heap_header: infomask2, infomask, hoff.
pub const XL_HEADER: usize = 5;

/// Where the tuple under a line pointer is.
fn tuple(page: &Page, offset: u16) -> Result<std::ops::Range<usize>, RedoError> {
    let item = Item::get(page, offset)?;
    if !item.is_normal() {
        return Err(RedoError::Page("a line pointer that is to have a tuple has none"));
    }
    item.range(HEADER)
}

/// ItemPointerSet, six bytes: the block in halves, high one first.
pub fn item_pointer(block: BlockNumber, offset: u16) -> [u8; 6] {
    let [a, b, c, d] = block.0.to_le_bytes();
    let [e, f] = offset.to_le_bytes();
    [c, d, a, b, e, f]
}

/// fix_infomask_from_infobits, with what its callers clear before.
fn set_infobits(infobits: u8, infomask: &mut u16, infomask2: &mut u16) {
    *infomask &= !(HEAP_XMAX_BITS | HEAP_MOVED);
    *infomask2 &= !HEAP_KEYS_UPDATED;
    // XLHL_XMAX_IS_MULTI and so on.
    for (bit, flag) in [(1, HEAP_XMAX_IS_MULTI), (2, HEAP_XMAX_LOCK_ONLY), (4, HEAP_XMAX_EXCL_LOCK), (8, HEAP_XMAX_KEYSHR_LOCK)] {
        if infobits & bit != 0 {
            *infomask |= flag;
        }
    }
    if infobits & 0x10 != 0 {
        *infomask2 |= HEAP_KEYS_UPDATED;
    }
}

/// HEAP_XMAX_IS_LOCKED_ONLY.
fn is_locked_only(infomask: u16) -> bool {
    infomask & HEAP_XMAX_LOCK_ONLY != 0 || infomask & (HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK) == HEAP_XMAX_EXCL_LOCK
}

/// What becomes of HEAP_HOT_UPDATED.
#[derive(PartialEq, Eq)]
enum Hot {
    Set,
    Clear,
    /// Cleared only if nothing but a lock is left.
    ClearIfLocked,
    Keep,
}

/// The infomasks of the tuple at `at` after a new xmax. Says whether only a lock is left.
fn change_masks(page: &mut Page, at: usize, infobits: u8, hot: Hot) -> Result<bool, RedoError> {
    let (mut infomask, mut infomask2) = (read_u16(page, at + INFOMASK)?, read_u16(page, at + INFOMASK2)?);
    set_infobits(infobits, &mut infomask, &mut infomask2);
    let locked_only = is_locked_only(infomask);
    match hot {
        Hot::Set => infomask2 |= HEAP_HOT_UPDATED,
        Hot::Clear => infomask2 &= !HEAP_HOT_UPDATED,
        Hot::ClearIfLocked if locked_only => infomask2 &= !HEAP_HOT_UPDATED,
        Hot::ClearIfLocked | Hot::Keep => {}
    }
    if hot != Hot::Keep {
        // Where the command id is set, too (HeapTupleHeaderSetCmax).
        infomask &= !HEAP_COMBOCID;
    }
    write(page, at + INFOMASK, &infomask.to_le_bytes())?;
    write(page, at + INFOMASK2, &infomask2.to_le_bytes())?;
    Ok(locked_only)
}

/// The fixed part of a tuple's header, command id 0, no combo command id.
fn header(xmin: u32, xmax: u32, ctid: [u8; 6], masks: [u8; XL_HEADER]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[XMIN..XMIN + 4].copy_from_slice(&xmin.to_le_bytes());
    header[XMAX_AT..XMAX_AT + 4].copy_from_slice(&xmax.to_le_bytes());
    header[CTID..CTID + 6].copy_from_slice(&ctid);
    header[INFOMASK2..].copy_from_slice(&masks);
    header[INFOMASK] &= !(HEAP_COMBOCID as u8);
    header
}

fn clear_all_visible_if(page: &mut Page, flags: u8) {
    if flags & CLEAR_ALL_VISIBLE != 0 {
        clear_flag(page, ALL_VISIBLE);
    }
}

/// heap_xlog_insert, and the new tuple of heap_xlog_update on a page without the old one.
///
/// flags u8, offset u16, xmin u32, [xmax u32], header 5, data
pub fn insert(page: &mut Page, place: Place, start: Start, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (flags, offset, xmin) = (fields.u8()?, fields.u16()?, fields.u32()?);
    let xmax = if flags & XMAX != 0 { fields.u32()? } else { 0 };
    let masks = fields.array()?;
    let data = fields.rest();
    if start == Start::Anew {
        init(page, 0);
    }
    let at = put_item(page, HEADER + data.len(), offset, Put::Heap)?;
    let xmin = planted::value(Kind::HeapInsert, xmin);
    write(page, at, &header(xmin, xmax, item_pointer(place.block, offset), masks))?;
    write(page, at + HEADER, data)?;
    clear_all_visible_if(page, flags);
    Ok(())
}

/// heap_xlog_multi_insert.
///
/// flags u8, xmin u32, count u16, count times: offset u16, length u16, header 5, data
pub fn multi_insert(page: &mut Page, place: Place, start: Start, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (flags, xmin, count) = (fields.u8()?, fields.u32()?, fields.u16()?);
    if start == Start::Anew {
        init(page, 0);
    }
    let xmin = planted::value(Kind::HeapMultiInsert, xmin);
    for _ in 0..count {
        let (offset, length) = (fields.u16()?, fields.u16()?);
        let masks = fields.array()?;
        let data = fields.take(usize::from(length))?;
        let at = put_item(page, HEADER + data.len(), offset, Put::Heap)?;
        write(page, at, &header(xmin, 0, item_pointer(place.block, offset), masks))?;
        write(page, at + HEADER, data)?;
    }
    clear_all_visible_if(page, flags);
    if flags & SET_ALL_VISIBLE != 0 {
        set_flag(page, ALL_VISIBLE);
    }
    Ok(())
}

/// heap_xlog_delete.
///
/// flags u8, offset u16, infobits u8, xmax u32, xid u32
pub fn delete(page: &mut Page, place: Place, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (flags, offset, infobits) = (fields.u8()?, fields.u16()?, fields.u8()?);
    let (xmax, xid) = (fields.u32()?, fields.u32()?);
    let at = tuple(page, offset)?.start;
    change_masks(page, at, infobits, Hot::Clear)?;
    let xmax = planted::value(Kind::HeapDelete, xmax);
    if flags & SUPER != 0 {
        write(page, at + XMIN, &planted::value(Kind::HeapDelete, 0u32).to_le_bytes())?;
    } else {
        write(page, at + XMAX_AT, &xmax.to_le_bytes())?;
    }
    write(page, at + FIELD3, &[0; 4])?;
    set_prunable(page, xid);
    clear_all_visible_if(page, flags);
    // ItemPointerSetMovedPartitions, or itself.
    let ctid =
        if flags & PARTITION_MOVE != 0 { item_pointer(BlockNumber(u32::MAX), 0xFFFD) } else { item_pointer(place.block, offset) };
    write(page, at + CTID, &ctid)
}

/// The old tuple of an update: what heap_xlog_update does first.
struct OldTuple {
    offset: u16,
    infobits: u8,
    xmax: u32,
    xid: u32,
    new: [u8; 6],
}

impl OldTuple {
    fn change(&self, page: &mut Page, flags: u8) -> Result<std::ops::Range<usize>, RedoError> {
        let range = tuple(page, self.offset)?;
        let at = range.start;
        change_masks(page, at, self.infobits, if flags & HOT != 0 { Hot::Set } else { Hot::Clear })?;
        write(page, at + XMAX_AT, &self.xmax.to_le_bytes())?;
        write(page, at + FIELD3, &[0; 4])?;
        write(page, at + CTID, &self.new)?;
        set_prunable(page, self.xid);
        Ok(range)
    }
}

/// heap_xlog_update, on the page of the old tuple if the new one is on another.
///
/// flags u8, offset u16, infobits u8, xmax u32, xid u32, new block u32, new offset u16
pub fn update_old(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (flags, offset, infobits) = (fields.u8()?, fields.u16()?, fields.u8()?);
    let (xmax, xid, block, new) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u16()?);
    let xmax = planted::value(Kind::HeapUpdateOld, xmax);
    OldTuple { offset, infobits, xmax, xid, new: item_pointer(BlockNumber(block), new) }.change(page, flags)?;
    clear_all_visible_if(page, flags);
    Ok(())
}

/// heap_xlog_update within a page.
///
/// flags u8, old offset u16, infobits u8, old xmax u32, xid u32, new offset u16, [new xmax u32], [prefix u16],
/// [suffix u16], header 5, data without prefix and suffix
pub fn update(page: &mut Page, place: Place, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (flags, offset, infobits) = (fields.u8()?, fields.u16()?, fields.u8()?);
    let (xmax, xid, new_offset) = (fields.u32()?, fields.u32()?, fields.u16()?);
    let new_xmax = if flags & XMAX != 0 { fields.u32()? } else { 0 };
    let prefix = if flags & PREFIX != 0 { usize::from(fields.u16()?) } else { 0 };
    let suffix = if flags & SUFFIX != 0 { usize::from(fields.u16()?) } else { 0 };
    let masks: [u8; XL_HEADER] = fields.array()?;
    let new = item_pointer(place.block, new_offset);
    let old = OldTuple { offset, infobits, xmax, xid, new }.change(page, flags)?;

    let [.., hoff] = masks;
    let bitmap_length = usize::from(hoff).checked_sub(HEADER).ok_or(RedoError::Delta("its tuple has no room for its header"))?;
    // Without a prefix all data is in one piece, the bitmap before it.
    let bitmap = if prefix > 0 { fields.take(bitmap_length)? } else { &[] };
    let data = fields.rest();
    let [old_hoff] = read(page, old.start + HOFF)?;
    let prefix_at = old.start + usize::from(old_hoff);
    let outside = RedoError::Page("the old tuple is shorter than what the new one takes from it");
    if prefix_at + prefix > old.end || suffix > old.len() {
        return Err(outside);
    }

    let length = HEADER + bitmap.len() + prefix + data.len() + suffix;
    let at = put_item(page, length, new_offset, Put::Heap)?;
    let xid = planted::value(Kind::HeapUpdate, xid);
    write(page, at, &header(xid, new_xmax, new, masks))?;
    let mut to = at + HEADER;
    write(page, to, bitmap)?;
    to += bitmap.len();
    shift(page, prefix_at..prefix_at + prefix, to)?;
    to += prefix;
    write(page, to, data)?;
    to += data.len();
    shift(page, old.end - suffix..old.end, to)?;
    clear_all_visible_if(page, flags);
    Ok(())
}

/// heap_xlog_lock.
///
/// offset u16, infobits u8, xmax u32
pub fn lock(page: &mut Page, place: Place, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (offset, infobits, xmax) = (fields.u16()?, fields.u8()?, fields.u32()?);
    let at = tuple(page, offset)?.start;
    if change_masks(page, at, infobits, Hot::ClearIfLocked)? {
        write(page, at + CTID, &item_pointer(place.block, offset))?;
    }
    write(page, at + XMAX_AT, &planted::value(Kind::HeapLock, xmax).to_le_bytes())?;
    write(page, at + FIELD3, &[0; 4])
}

/// heap_xlog_lock_updated.
///
/// offset u16, infobits u8, xmax u32
pub fn lock_updated(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (offset, infobits, xmax) = (fields.u16()?, fields.u8()?, fields.u32()?);
    let at = tuple(page, offset)?.start;
    change_masks(page, at, infobits, Hot::Keep)?;
    write(page, at + XMAX_AT, &planted::value(Kind::HeapLockUpdated, xmax).to_le_bytes())
}

/// heap_xlog_confirm: a speculative insertion stays.
///
/// offset u16
pub fn confirm(page: &mut Page, place: Place, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let offset = fields.u16()?;
    let at = tuple(page, offset)?.start;
    let offset = planted::value(Kind::HeapConfirm, offset);
    write(page, at + CTID, &item_pointer(place.block, offset))
}

/// heap_xlog_inplace: other data of the same length.
///
/// offset u16, data
pub fn inplace(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let offset = fields.u16()?;
    let data = fields.rest();
    let range = tuple(page, offset)?;
    let [hoff] = read(page, range.start + HOFF)?;
    let at = range.start + usize::from(hoff);
    if at + data.len() != range.end {
        return Err(RedoError::Page("a tuple that is overwritten in place has another length"));
    }
    write(page, at, data)?;
    if let Some(first) = page.get_mut(at).filter(|_| !data.is_empty()) {
        *first = planted::value(Kind::HeapInplace, *first);
    }
    Ok(())
}
