//! A page with line pointers (storage/bufpage.h, storage/itemid.h): its header, its items, and their moves.
//!
//! Every offset on a page is of doubtful quality; what points outside is an error.

mod compact;
mod items;

pub use compact::{delete_index_tuple, delete_index_tuples, overwrite_index_tuple, repair_fragmentation, truncate_line_pointers};
pub use items::{Item, Put, insert_index_tuple, put_item};

use crate::error::RedoError;
use ironpage_layout::postgres::page::PAGE_HEADER_SIZE;
pub use ironpage_layout::postgres::page::Page;
use ironpage_layout::rel::PAGE_SIZE;
use std::ops::Range;

const FLAGS: usize = 10;
const LOWER: usize = 12;
const UPPER: usize = 14;
const SPECIAL: usize = 16;
const PRUNE_XID: usize = 20;

/// PD_HAS_FREE_LINES and PD_ALL_VISIBLE.
pub const HAS_FREE_LINES: u16 = 0x0001;
pub const ALL_VISIBLE: u16 = 0x0004;

/// Bytes of a line pointer.
pub const LINE_POINTER: usize = 4;
/// Where the contents of a page without line pointers begin (PageGetContents).
pub const CONTENTS: usize = PAGE_HEADER_SIZE;
const _: () = assert!(CONTENTS == 24);

/// MAXALIGN.
pub const fn align(size: usize) -> usize {
    (size + 7) & !7
}

/// Whether a delta starts its page anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Anew,
    FromPage,
}

impl Start {
    pub fn of(delta: &[u8]) -> Start {
        if crate::delta::initialises(delta) { Start::Anew } else { Start::FromPage }
    }
}

#[inline]
fn header(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

#[inline]
fn set_header(page: &mut Page, at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// pd_lower, pd_upper and pd_special, in order and on the page.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub lower: usize,
    pub upper: usize,
    pub special: usize,
}

/// The check that PageAddItemExtended makes; the others ask for an aligned special space besides.
#[inline]
pub fn bounds(page: &Page) -> Result<Bounds, RedoError> {
    let bounds = Bounds {
        lower: usize::from(header(page, LOWER)),
        upper: usize::from(header(page, UPPER)),
        special: usize::from(header(page, SPECIAL)),
    };
    let Bounds { lower, upper, special } = bounds;
    if lower < PAGE_HEADER_SIZE || lower > upper || upper > special || special > PAGE_SIZE {
        return Err(RedoError::Page("its header's pointers are out of order"));
    }
    Ok(bounds)
}

#[inline]
pub fn aligned_bounds(page: &Page) -> Result<Bounds, RedoError> {
    let bounds = bounds(page)?;
    if bounds.special != align(bounds.special) {
        return Err(RedoError::Page("its special space is not aligned"));
    }
    Ok(bounds)
}

#[inline]
pub fn set_lower(page: &mut Page, lower: usize) {
    set_header(page, LOWER, lower as u16);
}

#[inline]
pub fn set_upper(page: &mut Page, upper: usize) {
    set_header(page, UPPER, upper as u16);
}

#[inline]
pub fn set_flag(page: &mut Page, flag: u16) {
    let flags = header(page, FLAGS) | flag;
    set_header(page, FLAGS, flags);
}

#[inline]
pub fn clear_flag(page: &mut Page, flag: u16) {
    let flags = header(page, FLAGS) & !flag;
    set_header(page, FLAGS, flags);
}

/// PageSetPrunable.
#[inline]
pub fn set_prunable(page: &mut Page, xid: u32) {
    let old = u32::from_le_bytes([page[PRUNE_XID], page[PRUNE_XID + 1], page[PRUNE_XID + 2], page[PRUNE_XID + 3]]);
    if old == 0 || ironpage_layout::postgres::slru::xid_precedes(xid, old) {
        page[PRUNE_XID..PRUNE_XID + 4].copy_from_slice(&xid.to_le_bytes());
    }
}

/// PageGetMaxOffsetNumber.
#[inline]
pub fn max_offset(page: &Page) -> u16 {
    header(page, LOWER).saturating_sub(PAGE_HEADER_SIZE as u16) / LINE_POINTER as u16
}

const OUTSIDE: RedoError = RedoError::Page("something on it lies outside of it");

#[inline]
pub fn read<const N: usize>(page: &Page, at: usize) -> Result<[u8; N], RedoError> {
    page.get(at..).and_then(|from| from.first_chunk()).copied().ok_or(OUTSIDE)
}

#[inline]
pub fn write(page: &mut Page, at: usize, bytes: &[u8]) -> Result<(), RedoError> {
    let end = at.checked_add(bytes.len()).ok_or(OUTSIDE)?;
    page.get_mut(at..end).ok_or(OUTSIDE)?.copy_from_slice(bytes);
    Ok(())
}

#[inline]
pub fn read_u16(page: &Page, at: usize) -> Result<u16, RedoError> {
    read(page, at).map(u16::from_le_bytes)
}

#[inline]
pub fn read_u32(page: &Page, at: usize) -> Result<u32, RedoError> {
    read(page, at).map(u32::from_le_bytes)
}

/// Moves bytes within the page; the ranges may overlap.
#[inline]
pub fn shift(page: &mut Page, from: Range<usize>, to: usize) -> Result<(), RedoError> {
    let fits = from.start <= from.end && from.end <= PAGE_SIZE && to + (from.end - from.start) <= PAGE_SIZE;
    if !fits {
        return Err(OUTSIDE);
    }
    page.copy_within(from, to);
    Ok(())
}

/// Where the special space of `size` bytes begins (PageGetSpecialPointer).
#[inline]
pub fn special(page: &Page, size: usize) -> Result<usize, RedoError> {
    let special = usize::from(header(page, SPECIAL));
    if special < PAGE_HEADER_SIZE || special + size > PAGE_SIZE {
        return Err(RedoError::Page("its special space is not that of its access method"));
    }
    Ok(special)
}
