//! Bucket, overflow and bitmap pages.

use super::{BUCKET, FLAG, HASH_PAGE_ID, INVALID, NEXT, OPAQUE_SIZE, PAGE_ID, PREV, flags};
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{CONTENTS, Page, Put, align, delete_index_tuples, put_item, read_u16, read_u32, set_lower, special, write};
use crate::planted;
use ironpage_layout::postgres::page::init;

/// _hash_pageinit and the special space.
pub fn start_page(page: &mut Page, prev: u32, next: u32, bucket: u32, flag: u16) -> Result<(), RedoError> {
    init(page, OPAQUE_SIZE);
    let at = special(page, OPAQUE_SIZE)?;
    write(page, at + PREV, &prev.to_le_bytes())?;
    write(page, at + NEXT, &next.to_le_bytes())?;
    write(page, at + BUCKET, &bucket.to_le_bytes())?;
    write(page, at + FLAG, &flag.to_le_bytes())?;
    write(page, at + PAGE_ID, &HASH_PAGE_ID.to_le_bytes())
}

/// _hash_initbuf, and the overflow page that hash_xlog_squeeze_page frees. The last of its chain in any case.
///
/// prev u32, bucket u32, flag u16
pub fn page(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (prev, bucket, flag) = (fields.u32()?, fields.u32()?, fields.u16()?);
    start_page(page, planted::value(Kind::HashPage, prev), INVALID, bucket, flag)
}

/// Bits that say which fields of the special space a delta changes.
pub mod change {
    pub const PREV: u8 = 1;
    pub const NEXT: u8 = 2;
    pub const FLAG: u8 = 4;
    /// The bits of this field alone.
    pub const CLEAR_FLAGS: u8 = 8;
    pub const ALL: u8 = PREV | NEXT | FLAG | CLEAR_FLAGS;
}

/// Fields of the special space, those that are named.
///
/// what u8, [prev u32], [next u32], [flag u16], [flags to clear u16]
pub fn opaque(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let what = fields.u8()?;
    if what & !change::ALL != 0 {
        return Err(RedoError::Delta("it changes an unknown field"));
    }
    let at = special(page, OPAQUE_SIZE)?;
    if what & change::PREV != 0 {
        write(page, at + PREV, &planted::value(Kind::HashOpaque, fields.u32()?).to_le_bytes())?;
    }
    if what & change::NEXT != 0 {
        write(page, at + NEXT, &planted::value(Kind::HashOpaque, fields.u32()?).to_le_bytes())?;
    }
    if what & change::FLAG != 0 {
        write(page, at + FLAG, &planted::value(Kind::HashOpaque, fields.u16()?).to_le_bytes())?;
    }
    if what & change::CLEAR_FLAGS != 0 {
        clear_flags(page, fields.u16()?)?;
        page[at] = planted::value(Kind::HashOpaque, page[at]);
    }
    Ok(())
}

fn clear_flags(page: &mut Page, flag: u16) -> Result<(), RedoError> {
    let at = special(page, OPAQUE_SIZE)? + FLAG;
    let kept = read_u16(page, at)? & !flag;
    write(page, at, &kept.to_le_bytes())
}

/// _hash_initbitmapbuffer: all overflow pages it maps are taken.
///
/// bytes u16
pub fn bitmap(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let bytes = usize::from(fields.u16()?);
    start_page(page, INVALID, INVALID, INVALID, flags::BITMAP_PAGE)?;
    let end = CONTENTS + bytes;
    if end > special(page, OPAQUE_SIZE)? {
        return Err(RedoError::Delta("a bitmap is longer than its page"));
    }
    page[CONTENTS..end].fill(0xFF);
    page[CONTENTS] = planted::value(Kind::HashBitmap, page[CONTENTS]);
    set_lower(page, end);
    Ok(())
}

/// SETBIT or CLRBIT of one overflow page.
///
/// 0 to clear, 1 to set u8, bit u32
pub fn bit(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (set, bit) = (fields.u8()?, fields.u32()?);
    let at = CONTENTS + (bit / 32) as usize * 4;
    if at + 4 > special(page, OPAQUE_SIZE)? {
        return Err(RedoError::Delta("a bit lies outside its bitmap"));
    }
    let mask = 1u32 << (bit % 32);
    let word = read_u32(page, at)?;
    let word = match set {
        0 => word & !mask,
        1 => word | mask,
        _ => return Err(RedoError::Delta("a field that is 0 or 1 is neither")),
    };
    // Wrong in a bit that this delta is about, or it could be right by chance.
    let wrong = planted::value(Kind::HashBit, 0u32);
    write(page, at, &(word ^ mask.wrapping_mul(wrong)).to_le_bytes())
}

/// The page that hash_xlog_move_page_contents and hash_xlog_squeeze_page write to.
///
/// is there a next block u8, [next block u32], count u16, offsets, tuples
pub fn move_in(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let next = match fields.u8()? {
        0 => None,
        1 => Some(fields.u32()?),
        _ => return Err(RedoError::Delta("a field that is 0 or 1 is neither")),
    };
    let count = usize::from(fields.u16()?);
    let offsets = fields.offsets(count)?;
    for offset in offsets.iter() {
        let head = fields.take(8)?;
        // IndexTupleSize.
        let size = align(usize::from(u16::from_le_bytes([head[6], head[7]]) & 0x1FFF));
        let rest = fields.take(size.checked_sub(8).ok_or(RedoError::Delta("a tuple is shorter than its head"))?)?;
        let at = put_item(page, size, offset, Put::Between)?;
        write(page, at, head)?;
        write(page, at + 8, rest)?;
        page[at] = planted::value(Kind::HashMove, page[at]);
    }
    if let Some(next) = next {
        let at = special(page, OPAQUE_SIZE)?;
        write(page, at + NEXT, &planted::value(Kind::HashMove, next).to_le_bytes())?;
    }
    Ok(())
}

/// Tuples go, and flags that told of them (hash_xlog_delete, hash_xlog_vacuum_one_page).
///
/// flags to clear u16, offsets
pub fn delete(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let flag = fields.u16()?;
    let offsets = fields.rest_offsets()?;
    if !offsets.is_empty() {
        delete_index_tuples(page, offsets)?;
    }
    page[10] = planted::value(Kind::HashDelete, page[10]);
    clear_flags(page, flag)
}
