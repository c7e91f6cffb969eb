//! Changes to many tuples of a page: pruning, vacuum, freezing.

use super::tuple::{FIELD3, HEADER, INFOMASK, INFOMASK2, XMAX_AT};
use crate::apply::Stamp;
use crate::delta::{Fields, Kind};
use crate::error::RedoError;
use crate::page::{ALL_VISIBLE, Item, Page, repair_fragmentation, set_flag, truncate_line_pointers, write};
use crate::planted;

/// XLH_FREEZE_XVAC and XLH_INVALID_XVAC.
const FREEZE_XVAC: u8 = 0x02;
const INVALID_XVAC: u8 = 0x04;
/// FrozenTransactionId.
const FROZEN_XID: u32 = 2;

/// heap_xlog_prune and heap_page_prune_execute (pruneheap.c).
///
/// redirected u16, dead u16, pairs of offsets to redirect, offsets of the dead, offsets of the unused
pub fn prune(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let (redirected, dead) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
    let redirected = fields.offsets(redirected * 2)?;
    let dead = fields.offsets(dead)?;
    let unused = fields.rest_offsets()?;
    for pair in 0..redirected.len() / 2 {
        if let (Some(from), Some(to)) = (redirected.get(pair * 2), redirected.get(pair * 2 + 1)) {
            Item::redirect(to).set(page, from)?;
        }
    }
    for offset in dead.iter() {
        Item::DEAD.set(page, offset)?;
    }
    for offset in unused.iter() {
        Item::UNUSED.set(page, offset)?;
    }
    repair_fragmentation(page)?;
    page[10] = planted::value(Kind::HeapPrune, page[10]);
    Ok(())
}

/// heap_xlog_vacuum.
///
/// offsets
pub fn vacuum(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    for offset in fields.rest_offsets()?.iter() {
        if !Item::get(page, offset)?.is_dead() {
            return Err(RedoError::Page("a line pointer that vacuum frees is not dead"));
        }
        Item::UNUSED.set(page, offset)?;
    }
    truncate_line_pointers(page)?;
    page[10] = planted::value(Kind::HeapVacuum, page[10]);
    Ok(())
}

/// heap_xlog_freeze_page and heap_execute_freeze_tuple.
///
/// per tuple: offset u16, xmax u32, infomask2 u16, infomask u16, flags u8
pub fn freeze(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    while !fields.is_empty() {
        let (offset, xmax) = (fields.u16()?, fields.u32()?);
        let (infomask2, infomask, flags) = (fields.u16()?, fields.u16()?, fields.u8()?);
        let item = Item::get(page, offset)?;
        if !item.is_normal() {
            return Err(RedoError::Page("a line pointer that is to have a tuple has none"));
        }
        let at = item.range(HEADER)?.start;
        write(page, at + XMAX_AT, &xmax.to_le_bytes())?;
        if flags & FREEZE_XVAC != 0 {
            write(page, at + FIELD3, &FROZEN_XID.to_le_bytes())?;
        }
        if flags & INVALID_XVAC != 0 {
            write(page, at + FIELD3, &[0; 4])?;
        }
        write(page, at + INFOMASK, &planted::value(Kind::HeapFreeze, infomask).to_le_bytes())?;
        write(page, at + INFOMASK2, &infomask2.to_le_bytes())?;
    }
    Ok(())
}

/// heap_xlog_visible, on the heap's page. It gets the LSN only where hint bits are logged.
///
/// hint bits are logged u8
pub fn visible(page: &mut Page, fields: &mut Fields<'_>) -> Result<Stamp, RedoError> {
    let hint_bits = fields.u8()?;
    set_flag(page, ALL_VISIBLE);
    page[10] = planted::value(Kind::HeapVisible, page[10]);
    match hint_bits {
        0 => Ok(Stamp::Nothing),
        1 => Ok(Stamp::Lsn),
        _ => Err(RedoError::Delta("a field that is 0 or 1 is neither")),
    }
}
