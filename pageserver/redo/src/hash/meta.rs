//! The metapage.

use super::pages::start_page;
use super::{INVALID, flags};
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{CONTENTS, Page, read, read_u32, set_lower, write};
use crate::planted;

/// HASH_MAGIC, HASH_VERSION, HASH_MAX_SPLITPOINTS, HASH_MAX_BITMAPS.
const MAGIC: u32 = 0x644_0640;
const VERSION: u32 = 4;
pub const MAX_SPLIT_POINTS: u32 = 98;
const MAX_BITMAPS: u32 = 1024;

/// Places in the page (HashMetaPageData).
const TUPLES: usize = CONTENTS + 8;
const MAX_BUCKET: usize = CONTENTS + 24;
const HIGH_MASK: usize = CONTENTS + 28;
const LOW_MASK: usize = CONTENTS + 32;
const OVERFLOW_POINT: usize = CONTENTS + 36;
const FIRST_FREE: usize = CONTENTS + 40;
const BITMAPS: usize = CONTENTS + 44;
const SPARES: usize = CONTENTS + 52;
const MAP: usize = SPARES + 4 * MAX_SPLIT_POINTS as usize;
const END: usize = (MAP + 4 * MAX_BITMAPS as usize - CONTENTS).next_multiple_of(8) + CONTENTS;
const _: () = assert!(END == CONTENTS + 4544);

/// HashGetMaxBitmapSize, and the largest power of two in it with its logarithm in bits.
const BITMAP_SPACE: u16 = 8152;
const BITMAP_SIZE: u16 = 4096;
const BITMAP_SHIFT: u16 = 15;

fn set(page: &mut Page, at: usize, value: u32) -> Result<(), RedoError> {
    write(page, at, &value.to_le_bytes())
}

/// hashm_spares of this split point.
fn spare(split_point: u32) -> Result<usize, RedoError> {
    if split_point < MAX_SPLIT_POINTS {
        Ok(SPARES + 4 * split_point as usize)
    } else {
        Err(RedoError::Page("a split point is beyond the last one"))
    }
}

fn add_spare(page: &mut Page) -> Result<(), RedoError> {
    let at = spare(read_u32(page, OVERFLOW_POINT)?)?;
    let count = read_u32(page, at)?.wrapping_add(1);
    set(page, at, count)
}

/// One more bitmap page, in hashm_mapp.
fn add_bitmap(page: &mut Page, block: u32) -> Result<(), RedoError> {
    let count = read_u32(page, BITMAPS)?;
    if count >= MAX_BITMAPS {
        return Err(RedoError::Page("it has more bitmap pages than it can"));
    }
    set(page, MAP + 4 * count as usize, block)?;
    set(page, BITMAPS, count + 1)
}

/// _hash_init_metabuffer (access/hash/hashpage.c); how many buckets there are was computed at ingest.
///
/// hash procedure u32, fill factor u16, buckets u32, split point u32
pub fn meta(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (procedure, fill_factor) = (fields.u32()?, fields.u16()?);
    let (buckets, split_point) = (fields.u32()?, fields.u32()?);
    if !(2..=1 << 30).contains(&buckets) {
        return Err(RedoError::Delta("a hash index has an impossible number of buckets"));
    }
    start_page(page, INVALID, INVALID, INVALID, flags::META_PAGE)?;
    set(page, CONTENTS, MAGIC)?;
    set(page, CONTENTS + 4, VERSION)?;
    for (number, value) in [fill_factor, BITMAP_SPACE, BITMAP_SIZE, BITMAP_SHIFT].into_iter().enumerate() {
        write(page, CONTENTS + 16 + 2 * number, &value.to_le_bytes())?;
    }
    let high_mask = (buckets + 1).next_power_of_two() - 1;
    set(page, MAX_BUCKET, buckets - 1)?;
    set(page, HIGH_MASK, high_mask)?;
    set(page, LOW_MASK, high_mask >> 1)?;
    set(page, OVERFLOW_POINT, split_point)?;
    set(page, CONTENTS + 48, planted::value(Kind::HashMeta, procedure))?;
    set(page, spare(split_point)?, 1)?;
    set_lower(page, END);
    Ok(())
}

/// hash_xlog_init_bitmap_page: the first bitmap page, behind the first buckets.
pub fn meta_bitmap(page: &mut Page, _: &mut Fields<'_>) -> Result<(), RedoError> {
    let block = read_u32(page, MAX_BUCKET)?.wrapping_add(2);
    add_bitmap(page, planted::value(Kind::HashMetaBitmap, block))
}

/// hashm_ntuples: more, fewer (hash_xlog_insert, hash_xlog_vacuum_one_page), or a new count altogether.
///
/// 0 to add, 1 to set u8, number f64
pub fn meta_tuples(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (how, number) = (fields.u8()?, f64::from_bits(fields.u64()?));
    let count = match how {
        0 => f64::from_le_bytes(read(page, TUPLES)?) + number,
        1 => number,
        _ => return Err(RedoError::Delta("a field that is 0 or 1 is neither")),
    };
    write(page, TUPLES, &planted::value(Kind::HashMetaTuples, count.to_bits()).to_le_bytes())
}

/// hash_xlog_add_ovfl_page.
///
/// first free u32, what is new u8: 0 nothing, 1 the overflow page, 2 a bitmap page for it, too, [its block u32]
pub fn meta_overflow(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (first_free, new) = (fields.u32()?, fields.u8()?);
    set(page, FIRST_FREE, planted::value(Kind::HashMetaOverflow, first_free))?;
    match new {
        0 => Ok(()),
        1 => add_spare(page),
        2 => {
            add_spare(page)?;
            add_bitmap(page, fields.u32()?)?;
            add_spare(page)
        }
        _ => Err(RedoError::Delta("it adds an unknown page")),
    }
}

/// hash_xlog_squeeze_page: an overflow page before the first free one is free.
///
/// first free u32
pub fn meta_first_free(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let first_free = fields.u32()?;
    set(page, FIRST_FREE, planted::value(Kind::HashMetaFirstFree, first_free))
}

/// Parts of hash_xlog_split_allocate_page: XLH_SPLIT_META_UPDATE_MASKS and XLH_SPLIT_META_UPDATE_SPLITPOINT.
pub const MASKS: u8 = 1;
pub const SPLIT_POINT: u8 = 2;

/// hash_xlog_split_allocate_page.
///
/// parts u8, bucket u32, [low mask u32, high mask u32], [split point u32, its spares u32]
pub fn meta_split(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (parts, bucket) = (fields.u8()?, fields.u32()?);
    set(page, MAX_BUCKET, planted::value(Kind::HashMetaSplit, bucket))?;
    if parts & MASKS != 0 {
        set(page, LOW_MASK, fields.u32()?)?;
        set(page, HIGH_MASK, fields.u32()?)?;
    }
    if parts & SPLIT_POINT != 0 {
        let split_point = fields.u32()?;
        set(page, spare(split_point)?, fields.u32()?)?;
        set(page, OVERFLOW_POINT, split_point)?;
    }
    Ok(())
}
