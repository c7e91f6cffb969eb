//! Deltas of heap records (access/heapam_xlog.h).

use super::flags;
use super::tuple::XL_HEADER;
use crate::delta::{DeltaWriter, Kind};
use crate::encode::{Encoded, Source};
use crate::error::EncodeError;
use crate::version::HintBits;
use ironpage_layout::postgres::bytes::Reader;
use ironpage_layout::postgres::rmgr::heap;

const SHORT: EncodeError = EncodeError("its data is shorter than its fields");

/// XLH_INSERT_ALL_VISIBLE_CLEARED, XLH_DELETE_ALL_VISIBLE_CLEARED, XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED.
const ALL_VISIBLE_CLEARED: u8 = 0x01;
const INSERT_ALL_FROZEN_SET: u8 = 0x20;
const UPDATE_NEW_ALL_VISIBLE_CLEARED: u8 = 0x02;
const UPDATE_PREFIX_FROM_OLD: u8 = 0x20;
const UPDATE_SUFFIX_FROM_OLD: u8 = 0x40;
const DELETE_IS_SUPER: u8 = 0x08;
const DELETE_IS_PARTITION_MOVE: u8 = 0x10;

fn when(condition: bool, flag: u8) -> u8 {
    if condition { flag } else { 0 }
}

/// RM_HEAP_ID.
pub fn encode_heap(source: &Source<'_>, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    match source.info() & heap::OP_MASK {
        heap::INSERT => source.only_block(0, insert(source, out)),
        heap::DELETE => source.only_block(0, delete(source, out)),
        heap::UPDATE | heap::HOT_UPDATE => update(source, out).ok_or(SHORT)?,
        heap::CONFIRM => source.only_block(0, single_offset(source, Kind::HeapConfirm, &[], out)),
        heap::LOCK => source.only_block(0, lock(source, Kind::HeapLock, out)),
        heap::INPLACE => source.only_block(0, single_offset(source, Kind::HeapInplace, source.block.data, out)),
        // Of other blocks it has none.
        _ => Ok(Encoded::Worker),
    }
}

/// RM_HEAP2_ID.
pub fn encode_heap2(source: &Source<'_>, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    match source.info() & heap::OP_MASK {
        heap::HEAP2_PRUNE => source.only_block(0, prune(source, out)),
        heap::HEAP2_VACUUM => source.only_block(0, vacuum(source, out)),
        heap::HEAP2_FREEZE_PAGE => source.only_block(0, freeze(source, out)),
        heap::HEAP2_VISIBLE => match source.block.id {
            // The map's page has values of its own.
            0 => Ok(Encoded::Worker),
            _ => source.only_block(1, visible(source, out)),
        },
        heap::HEAP2_MULTI_INSERT => source.only_block(0, multi_insert(source, out)),
        heap::HEAP2_LOCK_UPDATED => source.only_block(0, lock(source, Kind::HeapLockUpdated, out)),
        _ => Ok(Encoded::Worker),
    }
}

fn writer<'a>(source: &Source<'_>, kind: Kind, out: &'a mut Vec<u8>) -> DeltaWriter<'a> {
    if source.info() & heap::INIT_PAGE != 0 { DeltaWriter::initialising(out, kind) } else { DeltaWriter::new(out, kind) }
}

/// xl_heap_insert: offnum, flags. Block: xl_heap_header, data.
fn insert(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (offset, flags) = (main.u16()?, main.u8()?);
    let tuple = source.block.data;
    let flags = when(flags & ALL_VISIBLE_CLEARED != 0, flags::CLEAR_ALL_VISIBLE);
    tuple.get(..XL_HEADER)?;
    writer(source, Kind::HeapInsert, out).u8(flags).u16(offset).u32(source.record.xid).bytes(tuple).done()
}

/// xl_heap_multi_insert: flags, ntuples, offsets unless the page starts anew. Block: xl_multi_insert_tuple, each
/// on an even place: datalen, infomask2, infomask, hoff, data.
fn multi_insert(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let flags = main.u8()?;
    main.align(2)?;
    let count = main.u16()?;
    let init = source.info() & heap::INIT_PAGE != 0;
    let flags = when(flags & ALL_VISIBLE_CLEARED != 0, flags::CLEAR_ALL_VISIBLE)
        | when(flags & INSERT_ALL_FROZEN_SET != 0, flags::SET_ALL_VISIBLE);
    let mut delta = writer(source, Kind::HeapMultiInsert, out).u8(flags).u32(source.record.xid).u16(count);
    let mut tuples = Reader::new(source.block.data);
    for number in 0..count {
        let offset = if init { number.checked_add(1)? } else { main.u16()? };
        tuples.align(2)?;
        let length = tuples.u16()?;
        delta = delta.u16(offset).u16(length).bytes(tuples.take(XL_HEADER)?).bytes(tuples.take(usize::from(length))?);
    }
    tuples.rest().is_empty().then_some(())
}

/// xl_heap_delete: xmax, offnum, infobits_set, flags.
fn delete(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (xmax, offset, infobits, flags) = (main.u32()?, main.u16()?, main.u8()?, main.u8()?);
    let flags = when(flags & ALL_VISIBLE_CLEARED != 0, flags::CLEAR_ALL_VISIBLE)
        | when(flags & DELETE_IS_SUPER != 0, flags::SUPER)
        | when(flags & DELETE_IS_PARTITION_MOVE != 0, flags::PARTITION_MOVE);
    DeltaWriter::new(out, Kind::HeapDelete).u8(flags).u16(offset).u8(infobits).u32(xmax).u32(source.record.xid).done()
}

/// xl_heap_update: old_xmax, old_offnum, old_infobits_set, flags, new_xmax, new_offnum. Block 0, the new tuple's:
/// [prefix], [suffix], xl_heap_header, data. Block 1: the old tuple's page, if it is another.
fn update(source: &Source<'_>, out: &mut Vec<u8>) -> Option<Result<Encoded, EncodeError>> {
    let mut main = source.main();
    let (old_xmax, old_offset, infobits, bits) = (main.u32()?, main.u16()?, main.u8()?, main.u8()?);
    let (new_xmax, new_offset) = (main.u32()?, main.u16()?);
    let xid = source.record.xid;
    let hot = when(source.info() & heap::OP_MASK == heap::HOT_UPDATE, flags::HOT);
    let old_flags = hot | when(bits & ALL_VISIBLE_CLEARED != 0, flags::CLEAR_ALL_VISIBLE);
    let new_flags = when(bits & UPDATE_NEW_ALL_VISIBLE_CLEARED != 0, flags::CLEAR_ALL_VISIBLE);
    let xmax_flag = when(new_xmax != 0, flags::XMAX);
    let xmax_bytes = new_xmax.to_le_bytes();
    let xmax_bytes = if new_xmax != 0 { &xmax_bytes[..] } else { &[] };
    let (prefix, suffix) = (bits & UPDATE_PREFIX_FROM_OLD != 0, bits & UPDATE_SUFFIX_FROM_OLD != 0);
    let two_pages = source.record.block(1).is_some();
    if two_pages && (prefix || suffix) {
        return Some(Err(EncodeError("a tuple takes bytes from one on another page")));
    }
    match (source.block.id, two_pages) {
        (1, _) => {
            let new = source.record.block(0)?;
            DeltaWriter::new(out, Kind::HeapUpdateOld)
                .u8(old_flags)
                .u16(old_offset)
                .u8(infobits)
                .u32(old_xmax)
                .u32(xid)
                .u32(new.block.0)
                .u16(new_offset);
        }
        (0, true) => {
            let tuple = source.block.data;
            tuple.get(..XL_HEADER)?;
            let delta = writer(source, Kind::HeapInsert, out).u8(new_flags | xmax_flag);
            delta.u16(new_offset).u32(xid).bytes(xmax_bytes).bytes(tuple);
        }
        (0, false) => {
            if source.block.will_init {
                return Some(Err(EncodeError("an update within a page starts the page anew")));
            }
            let tuple = source.block.data;
            tuple.get(..XL_HEADER + when(prefix, 2) as usize + when(suffix, 2) as usize)?;
            // Both clear the same bit of the same page.
            let flags = old_flags | new_flags | xmax_flag | when(prefix, flags::PREFIX) | when(suffix, flags::SUFFIX);
            DeltaWriter::new(out, Kind::HeapUpdate)
                .u8(flags)
                .u16(old_offset)
                .u8(infobits)
                .u32(old_xmax)
                .u32(xid)
                .u16(new_offset)
                .bytes(xmax_bytes)
                .bytes(tuple);
        }
        _ => return Some(Err(EncodeError("an update has more than two pages"))),
    }
    Some(Ok(Encoded::Native))
}

/// xl_heap_lock and xl_heap_lock_updated: xmax, offnum, infobits_set, flags.
fn lock(source: &Source<'_>, kind: Kind, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (xmax, offset, infobits) = (main.u32()?, main.u16()?, main.u8()?);
    DeltaWriter::new(out, kind).u16(offset).u8(infobits).u32(xmax).done()
}

/// xl_heap_confirm and xl_heap_inplace: offnum.
fn single_offset(source: &Source<'_>, kind: Kind, data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let offset = source.main().u16()?;
    DeltaWriter::new(out, kind).u16(offset).bytes(data).done()
}

/// xl_heap_prune: latestRemovedXid, nredirected, ndead. Block: offset numbers.
fn prune(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    main.u32()?;
    let (redirected, dead) = (main.u16()?, main.u16()?);
    DeltaWriter::new(out, Kind::HeapPrune).u16(redirected).u16(dead).bytes(source.block.data).done()
}

/// xl_heap_vacuum: nunused. Block: as many offset numbers.
fn vacuum(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let count = usize::from(source.main().u16()?);
    DeltaWriter::new(out, Kind::HeapVacuum).bytes(source.block.data.get(..count * 2)?).done()
}

/// xl_heap_freeze_page: cutoff_xid, ntuples. Block: xl_heap_freeze_tuple, 12 bytes each: xmax, offset, infomask2,
/// infomask, frzflags.
fn freeze(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    main.u32()?;
    let count = main.u16()?;
    let mut tuples = Reader::new(source.block.data);
    let mut delta = DeltaWriter::new(out, Kind::HeapFreeze);
    for _ in 0..count {
        let (xmax, offset, infomask2, infomask) = (tuples.u32()?, tuples.u16()?, tuples.u16()?, tuples.u16()?);
        let flags = tuples.u8()?;
        tuples.align(4)?;
        delta = delta.u16(offset).u32(xmax).u16(infomask2).u16(infomask).u8(flags);
    }
    delta.done()
}

/// xl_heap_visible, on the heap's page.
fn visible(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::HeapVisible).u8(u8::from(source.hint_bits == HintBits::Logged)).done()
}
