//! Whole pages, and the few fields by which pages know one another.

use super::{CYCLE_ID, FLAGS, LEVEL, NEXT, OPAQUE_SIZE, PREV, TupleHead, flags, opaque};
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{CONTENTS, Item, Page, align, bounds, delete_index_tuple, read_u16, set_lower, set_upper, write};
use crate::planted;
use ironpage_layout::postgres::page::{PAGE_HEADER_SIZE, init};

/// BTREE_MAGIC, sizeof(BTMetaPageData).
const MAGIC: u32 = 0x05_3162;
const META_SIZE: usize = 48;

/// Writes the special space; btpo_cycleid is 0 in all that redo makes.
fn set_opaque(page: &mut Page, prev: u32, next: u32, level: u32, flags: u16) -> Result<(), RedoError> {
    let at = opaque(page)?;
    write(page, at + PREV, &prev.to_le_bytes())?;
    write(page, at + NEXT, &next.to_le_bytes())?;
    write(page, at + LEVEL, &level.to_le_bytes())?;
    write(page, at + FLAGS, &flags.to_le_bytes())?;
    write(page, at + CYCLE_ID, &[0; 2])
}

/// A page made anew of items as a page has them, the last first: the right half of btree_xlog_split, the root of
/// btree_xlog_newroot, the half-dead leaf of btree_xlog_mark_page_halfdead and btree_xlog_unlink_page.
///
/// prev u32, next u32, level u32, flags u16, items
pub fn page(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (prev, next, level, flags) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u16()?);
    let items = fields.rest();
    init(page, OPAQUE_SIZE);
    set_opaque(page, planted::value(Kind::BtreePage, prev), next, level, flags)?;
    restore_items(page, items)
}

/// _bt_restore_page. Adding the items one by one puts each below the one before, which is how they lie in `items`.
fn restore_items(page: &mut Page, items: &[u8]) -> Result<(), RedoError> {
    let sizes = || {
        let mut rest = items;
        std::iter::from_fn(move || {
            let head = rest.first_chunk()?;
            let size = align(TupleHead::from_bytes(*head).size());
            // A size of 0 would never end.
            rest = rest.split_at_checked(size).filter(|_| size > 0)?.1;
            Some(size)
        })
    };
    let count = sizes().count();
    if sizes().sum::<usize>() != items.len() {
        return Err(RedoError::Delta("a tuple of a new page is cut off"));
    }
    let bounds = bounds(page)?;
    let upper = bounds.upper.checked_sub(items.len()).filter(|upper| *upper >= bounds.lower + count * 4);
    let upper = upper.ok_or(RedoError::Delta("the tuples of a new page are longer than it"))?;
    write(page, upper, items)?;
    set_lower(page, bounds.lower + count * 4);
    set_upper(page, upper);
    let mut at = upper;
    for (number, size) in sizes().enumerate() {
        Item::normal(at, size).set(page, (count - number) as u16)?;
        at += size;
    }
    Ok(())
}

/// BTPageSetDeleted, on the target of btree_xlog_unlink_page.
///
/// prev u32, next u32, level u32, safe xid u64
pub fn deleted_page(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (prev, next, level, safe_xid) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u64()?);
    init(page, OPAQUE_SIZE);
    let leaf = if level == 0 { flags::LEAF } else { 0 };
    set_opaque(page, prev, next, level, flags::DELETED | flags::HAS_FULLXID | leaf)?;
    set_lower(page, CONTENTS + 8);
    write(page, CONTENTS, &planted::value(Kind::BtreeDeletedPage, safe_xid).to_le_bytes())
}

/// _bt_restore_meta.
///
/// version u32, root u32, level u32, fast root u32, fast level u32, deleted pages u32, all equal image u8
pub fn meta(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    // Root, its level, the fast root, its level, btm_last_cleanup_num_delpages: in the page as in the record.
    let (version, links): (_, [u8; 20]) = (fields.u32()?, fields.array()?);
    let all_equal_image = fields.u8()?;
    init(page, OPAQUE_SIZE);
    write(page, CONTENTS, &MAGIC.to_le_bytes())?;
    write(page, CONTENTS + 4, &planted::value(Kind::BtreeMeta, version).to_le_bytes())?;
    write(page, CONTENTS + 8, &links)?;
    // btm_last_cleanup_num_heap_tuples stands on a multiple of 8.
    write(page, CONTENTS + 32, &(-1.0f64).to_le_bytes())?;
    write(page, CONTENTS + 40, &[all_equal_image])?;
    set_lower(page, CONTENTS + META_SIZE);
    set_opaque(page, 0, 0, 0, flags::META)
}

/// Another left or right sibling: the pages beside those that btree_xlog_split and btree_xlog_unlink_page change.
///
/// 0 for the left, 1 for the right u8, block u32
pub fn sibling(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (side, block) = (fields.u8()?, fields.u32()?);
    let field = match side {
        0 => PREV,
        1 => NEXT,
        _ => return Err(RedoError::Delta("a sibling is neither left nor right")),
    };
    let at = opaque(page)?;
    write(page, at + field, &planted::value(Kind::BtreeSibling, block).to_le_bytes())
}

/// _bt_clear_incomplete_split.
pub fn clear_incomplete_split(page: &mut Page) -> Result<(), RedoError> {
    let at = opaque(page)? + FLAGS;
    let flags = read_u16(page, at)? & !flags::INCOMPLETE_SPLIT;
    write(page, at, &planted::value(Kind::BtreeClearIncompleteSplit, flags).to_le_bytes())
}

/// The parent in btree_xlog_mark_page_halfdead: the next tuple's downlink takes the place of this one's.
///
/// offset u16
pub fn half_dead_parent(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let offset = fields.u16()?;
    let next = offset.checked_add(1).ok_or(RedoError::Delta("an offset number is too large"))?;
    let next_at = Item::get(page, next)?.range(TupleHead::SIZE)?.start;
    let at = Item::get(page, offset)?.range(TupleHead::SIZE)?.start;
    let downlink = planted::value(Kind::BtreeHalfDeadParent, TupleHead::read(page, next_at)?.block);
    let head = TupleHead { block: downlink, ..TupleHead::read(page, at)? };
    write(page, at, &head.to_bytes())?;
    delete_index_tuple(page, next)
}

const _: () = assert!(PAGE_HEADER_SIZE == CONTENTS);
