//! Deltas of B-tree records (access/nbtxlog.h).

use super::split::{LEAF, NEW_ON_LEFT};
use super::{NONE, TupleHead, flags};
use crate::delta::{DeltaWriter, Kind};
use crate::encode::{Encoded, Source};
use crate::error::EncodeError;

const INSERT_LEAF: u8 = 0x00;
const INSERT_UPPER: u8 = 0x10;
const INSERT_META: u8 = 0x20;
const SPLIT_L: u8 = 0x30;
const SPLIT_R: u8 = 0x40;
const INSERT_POST: u8 = 0x50;
const DEDUP: u8 = 0x60;
const DELETE: u8 = 0x70;
const UNLINK_PAGE: u8 = 0x80;
const UNLINK_PAGE_META: u8 = 0x90;
const NEWROOT: u8 = 0xA0;
const MARK_PAGE_HALFDEAD: u8 = 0xB0;
const VACUUM: u8 = 0xC0;
const META_CLEANUP: u8 = 0xE0;

const LEFT_SIBLING: u8 = 0;
const RIGHT_SIBLING: u8 = 1;

/// RM_BTREE_ID.
pub fn encode(source: &Source<'_>, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    let encoded = match (source.info(), source.block.id) {
        (INSERT_LEAF | INSERT_UPPER | INSERT_META, 0) => insert(source, out),
        (INSERT_POST, 0) => insert_posting(source, out),
        (INSERT_UPPER | INSERT_META, 1) | (NEWROOT, 1) | (SPLIT_L | SPLIT_R, 3) => clear_incomplete_split(out),
        (INSERT_META, 2) | (NEWROOT, 2) | (META_CLEANUP, 0) | (UNLINK_PAGE_META, 4) => meta(source, out),
        (SPLIT_L | SPLIT_R, 0) => split_left(source, out),
        (SPLIT_L | SPLIT_R, 1) => split_right(source, out),
        (SPLIT_L | SPLIT_R, 2) => other_block(source, 1).and_then(|right| sibling(LEFT_SIBLING, right, out)),
        (DEDUP, 0) => dedup(source, out),
        (DELETE, 0) => delete(source, Latest::Xid, out),
        (VACUUM, 0) => delete(source, Latest::None, out),
        (MARK_PAGE_HALFDEAD, 0) => half_dead_leaf(source, out),
        (MARK_PAGE_HALFDEAD, 1) => half_dead_parent(source, out),
        (UNLINK_PAGE | UNLINK_PAGE_META, id @ 0..=3) => unlink(source, id, out),
        (NEWROOT, 0) => new_root(source, out),
        _ => return Err(EncodeError("it references a block that records of its type do not")),
    };
    encoded.map(|()| Encoded::Native).ok_or(EncodeError("its data is shorter than its fields"))
}

fn other_block(source: &Source<'_>, id: u8) -> Option<u32> {
    source.record.block(id).map(|block| block.block.0)
}

fn sibling(side: u8, block: u32, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::BtreeSibling).u8(side).u32(block).done()
}

fn clear_incomplete_split(out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::new(out, Kind::BtreeClearIncompleteSplit).done()
}

/// xl_btree_insert: offnum. Block: the tuple.
fn insert(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let offset = source.main().u16()?;
    DeltaWriter::new(out, Kind::IndexInsert).u16(offset).bytes(source.block.data).done()
}

/// The same, and before the tuple where the posting list is split.
fn insert_posting(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let offset = source.main().u16()?;
    DeltaWriter::new(out, Kind::BtreeInsertPosting).u16(offset).bytes(source.block.data).done()
}

/// xl_btree_metadata: version, root, level, fastroot, fastlevel, last_cleanup_num_delpages, allequalimage.
fn meta(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    DeltaWriter::initialising(out, Kind::BtreeMeta).bytes(source.block.data.get(..25)?).done()
}

/// xl_btree_split: level, firstrightoff, newitemoff, postingoff.
struct Split {
    level: u32,
    first_right: u16,
    new_offset: u16,
    posting_offset: u16,
}

impl Split {
    fn read(source: &Source<'_>) -> Option<Split> {
        let mut main = source.main();
        Some(Split { level: main.u32()?, first_right: main.u16()?, new_offset: main.u16()?, posting_offset: main.u16()? })
    }
}

/// Block 0: the new tuple if it goes left or splits a posting list, the high key.
fn split_left(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let split = Split::read(source)?;
    let right = other_block(source, 1)?;
    let leaf = if split.level == 0 { LEAF } else { 0 };
    let on_left = if source.info() == SPLIT_L { NEW_ON_LEFT } else { 0 };
    DeltaWriter::new(out, Kind::BtreeSplitLeft)
        .u8(leaf | on_left)
        .u16(split.first_right)
        .u16(split.new_offset)
        .u16(split.posting_offset)
        .u32(right)
        .bytes(source.block.data)
        .done()
}

fn page<'a>(out: &'a mut Vec<u8>, prev: u32, next: u32, level: u32, flags: u16) -> DeltaWriter<'a> {
    DeltaWriter::initialising(out, Kind::BtreePage).u32(prev).u32(next).u32(level).u16(flags)
}

/// Block 1: the tuples that go right.
fn split_right(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let split = Split::read(source)?;
    let (left, after) = (other_block(source, 0)?, other_block(source, 2).unwrap_or(NONE));
    let flags = if split.level == 0 { flags::LEAF } else { 0 };
    page(out, left, after, split.level, flags).bytes(source.block.data).done()
}

/// xl_btree_dedup: nintervals. Block: BTDedupInterval, baseoff and nitems each.
fn dedup(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let count = usize::from(source.main().u16()?);
    DeltaWriter::new(out, Kind::BtreeDedup).bytes(source.block.data.get(..count * 4)?).done()
}

/// What stands before the counts in the record: a standby's conflict horizon.
enum Latest {
    None,
    Xid,
}

/// xl_btree_vacuum and xl_btree_delete: [latestRemovedXid], ndeleted, nupdated. Block: offsets of the deleted, of
/// the updated, and xl_btree_update for each of these.
fn delete(source: &Source<'_>, latest: Latest, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    if let Latest::Xid = latest {
        main.u32()?;
    }
    let (deleted, updated) = (main.u16()?, main.u16()?);
    DeltaWriter::new(out, Kind::BtreeDelete).u16(deleted).u16(updated).bytes(source.block.data).done()
}

/// A half-dead leaf has one tuple, whose downlink is the topmost parent to go (BTreeTupleSetTopParent).
fn half_dead(prev: u32, next: u32, top_parent: u32, out: &mut Vec<u8>) -> Option<()> {
    let info = TupleHead::SIZE as u16 | TupleHead::ALT_TID;
    let tuple = TupleHead { block: top_parent, offset: 0, info };
    page(out, prev, next, 0, flags::HALF_DEAD | flags::LEAF).bytes(&tuple.to_bytes()).done()
}

/// xl_btree_mark_page_halfdead: poffset, leafblk, leftblk, rightblk, topparent.
fn half_dead_leaf(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    main.take(8)?;
    let (left, right, top_parent) = (main.u32()?, main.u32()?, main.u32()?);
    half_dead(left, right, top_parent, out)
}

fn half_dead_parent(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let offset = source.main().u16()?;
    DeltaWriter::new(out, Kind::BtreeHalfDeadParent).u16(offset).done()
}

/// xl_btree_unlink_page: leftsib, rightsib, level, safexid on a multiple of 8, leafleftsib, leafrightsib, leaftopparent.
fn unlink(source: &Source<'_>, id: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    let (left, right, level) = (main.u32()?, main.u32()?, main.u32()?);
    main.align(8)?;
    let safe_xid = main.u64()?;
    let (leaf_left, leaf_right, top_parent) = (main.u32()?, main.u32()?, main.u32()?);
    match id {
        0 => DeltaWriter::initialising(out, Kind::BtreeDeletedPage).u32(left).u32(right).u32(level).u64(safe_xid).done(),
        1 => sibling(RIGHT_SIBLING, right, out),
        2 => sibling(LEFT_SIBLING, left, out),
        _ => half_dead(leaf_left, leaf_right, top_parent, out),
    }
}

/// xl_btree_newroot: rootblk, level. Block 0: its tuples, if it is no leaf.
fn new_root(source: &Source<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut main = source.main();
    main.u32()?;
    let level = main.u32()?;
    let (leaf, tuples) = if level == 0 { (flags::LEAF, &[][..]) } else { (0, source.block.data) };
    page(out, NONE, NONE, level, flags::ROOT | leaf).bytes(tuples).done()
}
