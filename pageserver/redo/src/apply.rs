//! From a page and a delta to the page after.

use crate::delta::{Fields, Kind, initialises};
use crate::error::RedoError;
use crate::{btree, hash, heap, image, page, sequence};
use ironpage_layout::postgres::page::{Page, is_new, lsn, set_lsn};
use ironpage_layout::{BlockNumber, Lsn};

/// Where and when a delta applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The page's block in its fork.
    pub block: BlockNumber,
    /// End of the record the delta was made of: the page's LSN afterwards.
    pub end_lsn: Lsn,
}

/// Whether the page gets the record's LSN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    Lsn,
    Nothing,
}

/// Changes `page` as `delta` says.
///
/// A page that has this LSN or a later one already has the change (XLogReadBufferForRedoExtended, xlogutils.c)
/// and stays. After an error the page may be half-changed.
pub fn apply(page: &mut Page, place: Place, delta: &[u8]) -> Result<(), RedoError> {
    let kind = Kind::of(delta)?;
    if !initialises(delta) {
        if is_new(page) {
            return Err(RedoError::Uninitialised);
        }
        if place.end_lsn <= lsn(page) {
            return Ok(());
        }
    }
    change(page, place, kind, delta)
}

/// [`apply`] without a look at the page's LSN.
pub(crate) fn change(page: &mut Page, place: Place, kind: Kind, delta: &[u8]) -> Result<(), RedoError> {
    let mut fields = Fields::new(delta.get(1..).unwrap_or_default());
    let fields = &mut fields;
    let fresh = page::Start::of(delta);
    match kind {
        Kind::Image => return image::apply(page, place, fields),
        Kind::HeapInsert => heap::insert(page, place, fresh, fields)?,
        Kind::HeapMultiInsert => heap::multi_insert(page, place, fresh, fields)?,
        Kind::HeapDelete => heap::delete(page, place, fields)?,
        Kind::HeapUpdateOld => heap::update_old(page, fields)?,
        Kind::HeapUpdate => heap::update(page, place, fields)?,
        Kind::HeapLock => heap::lock(page, place, fields)?,
        Kind::HeapLockUpdated => heap::lock_updated(page, fields)?,
        Kind::HeapConfirm => heap::confirm(page, place, fields)?,
        Kind::HeapInplace => heap::inplace(page, fields)?,
        Kind::HeapPrune => heap::prune(page, fields)?,
        Kind::HeapVacuum => heap::vacuum(page, fields)?,
        Kind::HeapFreeze => heap::freeze(page, fields)?,
        Kind::HeapVisible => {
            if heap::visible(page, fields)? == Stamp::Nothing {
                return fields.end();
            }
        }
        Kind::IndexInsert => page::insert_index_tuple(page, fields)?,
        Kind::BtreeInsertPosting => btree::insert_posting(page, fields)?,
        Kind::BtreeClearIncompleteSplit => btree::clear_incomplete_split(page)?,
        Kind::BtreeMeta => btree::meta(page, fields)?,
        Kind::BtreePage => btree::page(page, fields)?,
        Kind::BtreeSplitLeft => btree::split_left(page, fields)?,
        Kind::BtreeSibling => btree::sibling(page, fields)?,
        Kind::BtreeDedup => btree::dedup(page, fields)?,
        Kind::BtreeDelete => btree::delete(page, fields)?,
        Kind::BtreeHalfDeadParent => btree::half_dead_parent(page, fields)?,
        Kind::BtreeDeletedPage => btree::deleted_page(page, fields)?,
        Kind::HashPage => hash::page(page, fields)?,
        Kind::HashOpaque => hash::opaque(page, fields)?,
        Kind::HashBitmap => hash::bitmap(page, fields)?,
        Kind::HashBit => hash::bit(page, fields)?,
        Kind::HashMove => hash::move_in(page, fields)?,
        Kind::HashDelete => hash::delete(page, fields)?,
        Kind::HashMeta => hash::meta(page, fields)?,
        Kind::HashMetaBitmap => hash::meta_bitmap(page, fields)?,
        Kind::HashMetaTuples => hash::meta_tuples(page, fields)?,
        Kind::HashMetaOverflow => hash::meta_overflow(page, fields)?,
        Kind::HashMetaFirstFree => hash::meta_first_free(page, fields)?,
        Kind::HashMetaSplit => hash::meta_split(page, fields)?,
        Kind::Sequence => sequence::apply(page, fields)?,
    }
    fields.end()?;
    set_lsn(page, place.end_lsn);
    Ok(())
}
