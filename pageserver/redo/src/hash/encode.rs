//! Deltas of hash records (access/hash_xlog.h).

use super::meta::{MASKS, SPLIT_POINT};
use super::pages::change;
use super::{INVALID, flags};
use crate::delta::{DeltaWriter, Kind};
use crate::encode::{Encoded, Source};
use crate::error::EncodeError;

const INIT_META_PAGE: u8 = 0x00;
const INIT_BITMAP_PAGE: u8 = 0x10;
const INSERT: u8 = 0x20;
const ADD_OVFL_PAGE: u8 = 0x30;
const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
const SPLIT_PAGE: u8 = 0x50;
const SPLIT_COMPLETE: u8 = 0x60;
const MOVE_PAGE_CONTENTS: u8 = 0x70;
const SQUEEZE_PAGE: u8 = 0x80;
const DELETE: u8 = 0x90;
const SPLIT_CLEANUP: u8 = 0xA0;
const UPDATE_META_PAGE: u8 = 0xB0;
const VACUUM_ONE_PAGE: u8 = 0xC0;

/// RM_HASH_ID.
pub fn encode(source: &Source<'_>, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    let encoded = match (source.info(), source.block.id) {
        (INIT_META_PAGE, 0) => init_meta(source, out),
        (INIT_BITMAP_PAGE, 0) => bitmap(source, out),
        (INIT_BITMAP_PAGE, 1) => DeltaWriter::new(out, Kind::HashMetaBitmap).done(),
        (INSERT, 0) => insert(source, out),
        (INSERT, 1) => tuples(Count::Add, 1.0, out),
        (ADD_OVFL_PAGE, id @ 0..=4) => add_overflow(source, id, out),
        (SPLIT_ALLOCATE_PAGE, id @ 0..=2) => split_allocate(source, id, out),
        (SPLIT_PAGE, _) => return Err(EncodeError("a page that a hash split wrote has no image")),
        (SPLIT_COMPLETE, id @ 0..=1) => split_complete(source, id, out),
        // The bucket's first page, referenced for the sake of a lock.
        (MOVE_PAGE_CONTENTS | SQUEEZE_PAGE | DELETE, 0) => return Ok(Encoded::Unchanged),
        (MOVE_PAGE_CONTENTS, 1) => move_in(source, None, source.main().u16(), out),
        (MOVE_PAGE_CONTENTS, 2) => delete(0, source.block.data, out),
        (SQUEEZE_PAGE, id @ 1..=6) => squeeze(source, id, out),
        (DELETE, 1) => delete_some(source, out),
        (SPLIT_CLEANUP, 0) => clear_flags(flags::NEEDS_SPLIT_CLEANUP, out),
        (UPDATE_META_PAGE, 0) => source.main().u64().and_then(|count| tuples(Count::Set, f64::from_bits(count), out)),
        (VACUUM_ONE_PAGE, id @ 0..=1) => vacuum_one(source, id, out),
        _ => return Err(EncodeError("it references a block that records of its type do not")),
    };
    encoded.map(|()| Encoded::Native).ok_or(EncodeError("its data is shorter than its fields"))
}

/// A few records change their pages even after an image: "the special space is not included" (hash_xlog.c).
pub fn encode_after_image(source: &Source<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (source.info(), source.block.id) {
        (SPLIT_ALLOCATE_PAGE, 0) | (SPLIT_COMPLETE, 0..=1) => encode(source, out).map(drop),
        _ => Ok(()),
    }
}

/// One field of another page's special space.
fn link(what: u8, block: u32, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::HashOpaque).u8(what).u32(block).done()
}

fn clear_flags(flag: u16, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::HashOpaque).u8(change::CLEAR_FLAGS).u16(flag).done()
}

fn page(prev: u32, bucket: u32, flag: u16, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::initialising(out, Kind::HashPage).u32(prev).u32(bucket).u16(flag).done()
}

fn bit(set: u8, source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::HashBit).u8(set).bytes(source.block.data.get(..4)?).done()
}

enum Count {
    Add,
    Set,
}

fn tuples(how: Count, number: f64, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::HashMetaTuples).u8(how as u8).u64(number.to_bits()).done()
}

fn delete(flag: u16, offsets: &[u8], out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::HashDelete).u16(flag).bytes(offsets).done()
}

/// xl_hash_init_meta_page: num_tuples, procid, ffactor.
fn init_meta(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (tuples, procedure, fill_factor) = (f64::from_bits(main.u64()?), main.u32()?, main.u16()?);
    let buckets = buckets_for(tuples / f64::from(fill_factor));
    DeltaWriter::initialising(out, Kind::HashMeta).u32(procedure).u16(fill_factor).u32(buckets).u32(spare_index(buckets)).done()
}

/// The first computation of _hash_init_metabuffer.
fn buckets_for(wanted: f64) -> u32 {
    const MOST: u32 = 0x4000_0000;
    if wanted <= 2.0 {
        2
    } else if wanted >= f64::from(MOST) {
        MOST
    } else {
        // No number at all, of 0 tuples with a fill factor of 0, becomes 0 here and undefined there.
        total_buckets(spare_index(wanted as u32)).max(2)
    }
}

/// HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE and HASH_SPLITPOINT_PHASE_BITS.
const SINGLE_PHASE_GROUPS: u32 = 10;
const PHASE_BITS: u32 = 2;
const PHASE_MASK: u32 = (1 << PHASE_BITS) - 1;

/// _hash_spareindex (access/hash/hashutil.c): the split point that bucket number `buckets - 1` belongs to.
fn spare_index(buckets: u32) -> u32 {
    // pg_ceil_log2_32.
    let group = if buckets < 2 { 0 } else { 32 - (buckets - 1).leading_zeros() };
    if group < SINGLE_PHASE_GROUPS {
        return group;
    }
    let phase = (buckets - 1) >> (group - (PHASE_BITS + 1)) & PHASE_MASK;
    SINGLE_PHASE_GROUPS + ((group - SINGLE_PHASE_GROUPS) << PHASE_BITS) + phase
}

/// _hash_get_totalbuckets: the buckets up to the end of a split point.
fn total_buckets(split_point: u32) -> u32 {
    if split_point < SINGLE_PHASE_GROUPS {
        return 1 << split_point;
    }
    let group = SINGLE_PHASE_GROUPS + ((split_point - SINGLE_PHASE_GROUPS) >> PHASE_BITS);
    let before = 1u32 << (group - 1);
    let phases = ((split_point - SINGLE_PHASE_GROUPS) & PHASE_MASK) + 1;
    before + (before >> PHASE_BITS) * phases
}

/// xl_hash_init_bitmap_page and xl_hash_add_ovfl_page: bmsize first.
fn bitmap(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let bytes = source.main().u16()?;
    DeltaWriter::initialising(out, Kind::HashBitmap).u16(bytes).done()
}

/// xl_hash_insert: offnum. Block: the tuple.
fn insert(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let offset = source.main().u16()?;
    DeltaWriter::new(out, Kind::IndexInsert).u16(offset).bytes(source.block.data).done()
}

/// xl_hash_add_ovfl_page: bmsize, bmpage_found. Blocks: 0 the new page, with its bucket; 1 the one before it; 2 the
/// bitmap with its bit; 3 a new bitmap page; 4 the metapage with the first free bit.
fn add_overflow(source: &Source<'_>, id: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (_, found) = (main.u16()?, main.u8()? != 0);
    let data = source.block.data;
    let block = |id| source.record.block(id).map(|block| block.block.0);
    match id {
        0 => page(block(1)?, u32::from_le_bytes(*data.first_chunk()?), flags::OVERFLOW_PAGE, out),
        1 => link(change::NEXT, block(0)?, out),
        2 => bit(1, source, out),
        3 => bitmap(source, out),
        _ => {
            let delta = DeltaWriter::new(out, Kind::HashMetaOverflow).bytes(data.get(..4)?);
            let delta = match (found, block(3)) {
                (true, _) => delta.u8(0),
                (false, None) => delta.u8(1),
                (false, Some(bitmap)) => delta.u8(2).u32(bitmap),
            };
            delta.done()
        }
    }
}

/// xl_hash_split_allocate_page: new_bucket, old_bucket_flag, new_bucket_flag, flags. Blocks: 0 the old bucket, 1 the
/// new one, 2 the metapage with masks and split point as the flags say.
fn split_allocate(source: &Source<'_>, id: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (bucket, old_flag, new_flag, parts) = (main.u32()?, main.u16()?, main.u16()?, main.u8()?);
    match id {
        0 => DeltaWriter::new(out, Kind::HashOpaque).u8(change::PREV | change::FLAG).u32(bucket).u16(old_flag).done(),
        1 => page(bucket, bucket, new_flag, out),
        _ => {
            let parts = parts & (MASKS | SPLIT_POINT);
            let length = parts.count_ones() as usize * 8;
            let data = source.block.data.get(..length)?;
            DeltaWriter::new(out, Kind::HashMetaSplit).u8(parts).u32(bucket).bytes(data).done()
        }
    }
}

/// xl_hash_split_complete: old_bucket_flag, new_bucket_flag.
fn split_complete(source: &Source<'_>, id: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (old, new) = (main.u16()?, main.u16()?);
    DeltaWriter::new(out, Kind::HashOpaque).u8(change::FLAG).u16(if id == 0 { old } else { new }).done()
}

/// Block 1: offset numbers, then as many tuples.
fn move_in(source: &Source<'_>, next: Option<u32>, count: Option<u16>, out: &mut Vec<u8>) -> Option<()> {
    let count = count?;
    let delta = DeltaWriter::new(out, Kind::HashMove);
    let delta = match next {
        Some(next) => delta.u8(1).u32(next),
        None => delta.u8(0),
    };
    delta.u16(count).bytes(if count > 0 { source.block.data } else { &[] }).done()
}

/// xl_hash_squeeze_page: prevblkno, nextblkno, ntups, is_prim_bucket_same_wrt, is_prev_bucket_same_wrt. Blocks: 1 the
/// page written to, 2 the freed one, 3 and 4 those before and after it, 5 the bitmap, 6 the metapage.
fn squeeze(source: &Source<'_>, id: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (prev, next, count) = (main.u32()?, main.u32()?, main.u16()?);
    let (_, prev_is_written) = (main.u8()?, main.u8()? != 0);
    match id {
        1 => move_in(source, prev_is_written.then_some(next), Some(count), out),
        2 => page(INVALID, INVALID, flags::UNUSED_PAGE, out),
        3 => link(change::NEXT, next, out),
        4 => link(change::PREV, prev, out),
        5 => bit(0, source, out),
        _ => DeltaWriter::new(out, Kind::HashMetaFirstFree).bytes(source.block.data.get(..4)?).done(),
    }
}

/// xl_hash_delete: clear_dead_marking, is_primary_bucket_page. Block 1: offset numbers.
fn delete_some(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let clear = source.main().u8()? != 0;
    delete(if clear { flags::HAS_DEAD_TUPLES } else { 0 }, source.block.data, out)
}

/// xl_hash_vacuum_one_page: latestRemovedXid, ntuples, offset numbers.
fn vacuum_one(source: &Source<'_>, id: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    main.u32()?;
    let count = main.i32()?;
    match id {
        0 => {
            let offsets = match main.rest() {
                [] => &[],
                rest => rest.get(..usize::try_from(count).ok()?.checked_mul(2)?)?,
            };
            delete(flags::HAS_DEAD_TUPLES, offsets, out)
        }
        _ => tuples(Count::Add, -f64::from(count), out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_come_in_groups_and_phases() {
        // Ten groups that come at once, then four phases each.
        assert_eq!([1, 2, 3, 512, 513, 640, 641, 1024, 1025].map(spare_index), [0, 1, 2, 9, 10, 10, 11, 13, 14]);
        assert_eq!([0, 1, 9, 10, 11, 13, 14].map(total_buckets), [1, 2, 512, 640, 768, 1024, 1280]);
        assert_eq!([0.0, 2.0, 3.0, 600.0, 1e12].map(buckets_for), [2, 2, 4, 640, 0x4000_0000]);
        assert_eq!(buckets_for(f64::NAN), 2);
    }
}
