//! Which valid blocks must stay in the local files, because WAL alone would not give them back as they are.
//!
//! A page holds state that no WAL record carries as long as somebody is at work on it: cmin and cmax, speculative
//! tokens, combo command ids, btree's vacuum cycle ids, whatever an unknown access method keeps. All of it dies with the
//! transaction or the vacuum that wrote it, so a written block stays until all that ran at the write have ended.
//!
//! Vacuums may run without a transaction id, so they are told apart in the manner of RCU. The janitor numbers
//! generations. It opens g+1 once every vacuum that was active when it opened g has ended. A vacuum active at a write in
//! generation g was active when g was opened, or began in g and is then active when g+1 is opened: either way it has
//! ended when g+2 is.

use crate::cache::{BlockKey, Entry};
use ironpage_layout::rel::{GLOBAL_TABLESPACE, PAGE_SIZE};

/// Why a block stays. `IronpagePin` in cache.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Pin {
    None = 0,
    /// A transaction that ran at the write still runs.
    Xid = 1,
    /// A vacuum that ran at the write may still run.
    Vacuum = 2,
    /// The page's LSN is no real one: index builds that write their WAL at the end, `GistBuildLSN`.
    LowLsn = 3,
    /// Visibility map: its bits are cleared before the record that says so exists (visibilitymap_clear in heapam.c).
    Vm = 4,
    /// A sequence: its page is up to 32 values behind what WAL says (SEQ_LOG_VALS in sequence.c).
    Sequence = 5,
    /// Shared and initial catalogs: without them nobody can connect while the pageserver is away. The only one that keeps
    /// the pageserver's copies too.
    Catalog = 6,
}

impl Pin {
    pub fn from_number(number: u8) -> Pin {
        [Pin::None, Pin::Xid, Pin::Vacuum, Pin::LowLsn, Pin::Vm, Pin::Sequence, Pin::Catalog]
            .into_iter()
            .find(|pin| *pin as u8 == number)
            .unwrap_or(Pin::Catalog)
    }
}

/// Smallest LSN that a real record of a started cluster can have: initdb's WAL begins with segment 1.
const FIRST_REAL_LSN: u64 = 16 << 20;
/// SEQ_MAGIC (commands/sequence.c).
const SEQUENCE_MAGIC: u32 = 0x1717;
/// FirstNormalObjectId (access/transam.h).
const FIRST_NORMAL_OID: u32 = 16384;
/// pg_largeobject and its index (catalog/pg_largeobject.h): people's data, as much as they like.
const LARGE_OBJECTS: [u32; 2] = [2613, 2683];
/// VISIBILITYMAP_FORKNUM.
const VM_FORK: u32 = 2;

fn is_catalog(key: &BlockKey) -> bool {
    key.tablespace == GLOBAL_TABLESPACE || (key.relation < FIRST_NORMAL_OID && !LARGE_OBJECTS.contains(&key.relation))
}

/// The pin that a page, written by a backend, has for as long as it is that copy.
pub fn standing_pin(key: &BlockKey, page: &[u8; PAGE_SIZE]) -> Pin {
    let u16_at = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    if is_catalog(key) {
        return Pin::Catalog;
    }
    if key.fork == VM_FORK {
        return Pin::Vm;
    }
    // Space a relation was extended by and nobody has used: the pageserver has zeros there as well, or no block at all,
    // which it serves as zeros.
    if page.iter().all(|byte| *byte == 0) {
        return Pin::None;
    }
    // PageHeaderData (storage/bufpage.h): pd_lsn as two halves, high first; pd_special at 16.
    let lsn = u64::from(u32_at(0)) << 32 | u64::from(u32_at(4));
    if lsn < FIRST_REAL_LSN {
        return Pin::LowLsn;
    }
    let special = usize::from(u16_at(16));
    if special == PAGE_SIZE - 8 && u32_at(special) == SEQUENCE_MAGIC {
        return Pin::Sequence;
    }
    Pin::None
}

/// What was true when a decision is made. `IronpageView` in cache.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct View {
    /// Oldest full transaction id that still runs, or the next one if none does.
    pub oldest_xid: u64,
    pub vacuum_generation: u64,
    /// Everything up to here is at the pageserver.
    pub ingested_lsn: u64,
}

/// What the janitor may do with a block. `IronpageVerdict` in cache.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Free,
    Pinned(Pin),
    /// The pageserver does not have its last change yet.
    Unacknowledged,
}

/// Why the block would be lost, or not come back as it is, if it were dropped at this moment.
pub fn pin_now(entry: &Entry, view: &View) -> Pin {
    if entry.written.local == 0 {
        return Pin::None;
    }
    if entry.standing_pin() != Pin::None {
        return entry.standing_pin();
    }
    if cfg!(not(feature = "planted-drop-xid-pin")) && view.oldest_xid < entry.written.next_xid {
        return Pin::Xid;
    }
    if view.vacuum_generation < entry.written.vacuum_generation + 2 {
        return Pin::Vacuum;
    }
    Pin::None
}

/// May the janitor drop the block?
pub fn verdict(entry: &Entry, view: &View) -> Verdict {
    match pin_now(entry, view) {
        Pin::None if is_catalog(&entry.key) => Verdict::Pinned(Pin::Catalog),
        Pin::None if cfg!(feature = "planted-punch-before-ack") => Verdict::Free,
        Pin::None if entry.written.lwlsn > view.ingested_lsn => Verdict::Unacknowledged,
        Pin::None => Verdict::Free,
        pin => Verdict::Pinned(pin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Written;
    use std::sync::atomic::AtomicU8;

    const HEAP: BlockKey = BlockKey { tablespace: 1663, database: 5, relation: 16400, fork: 0, block: 0 };

    fn page(lsn: u64, special: Option<u32>) -> [u8; PAGE_SIZE] {
        let mut page = [0; PAGE_SIZE];
        page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        let at = if special.is_some() { PAGE_SIZE - 8 } else { PAGE_SIZE };
        page[16..18].copy_from_slice(&(at as u16).to_le_bytes());
        if let Some(magic) = special {
            page[at..at + 4].copy_from_slice(&magic.to_le_bytes());
        }
        page
    }

    fn entry(written: Written) -> Entry {
        Entry { key: HEAP, hash: 0, written, next: 0, accessed: AtomicU8::new(0), reserved: [0; 3] }
    }

    #[test]
    fn standing_pins_by_kind_of_page() {
        let real = page(0x2000000, None);
        assert_eq!(standing_pin(&HEAP, &real), Pin::None);
        assert_eq!(standing_pin(&HEAP, &page(0x0FF_FFFF, None)), Pin::LowLsn);
        assert_eq!(standing_pin(&HEAP, &page(1 << 32, None)), Pin::None);
        assert_eq!(standing_pin(&HEAP, &[0; PAGE_SIZE]), Pin::None);
        assert_eq!(standing_pin(&HEAP, &page(0, None)), Pin::LowLsn);
        assert_eq!(standing_pin(&HEAP, &page(0x2000000, Some(0x1717))), Pin::Sequence);
        assert_eq!(standing_pin(&HEAP, &page(0x2000000, Some(0x1718))), Pin::None);
        assert_eq!(standing_pin(&BlockKey { fork: 2, ..HEAP }, &real), Pin::Vm);
        assert_eq!(standing_pin(&BlockKey { relation: 16383, ..HEAP }, &real), Pin::Catalog);
        assert_eq!(standing_pin(&BlockKey { tablespace: 1664, ..HEAP }, &real), Pin::Catalog);
        assert_eq!(standing_pin(&BlockKey { relation: 2613, ..HEAP }, &real), Pin::None);
    }

    #[test]
    fn a_special_offset_from_a_damaged_page_is_no_panic() {
        let mut damaged = page(0x2000000, None);
        damaged[16..18].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(standing_pin(&HEAP, &damaged), Pin::None);
    }

    #[test]
    #[cfg(not(feature = "planted-drop-xid-pin"))]
    fn a_transaction_that_ran_at_the_write_holds_the_block() {
        let written = Written { lwlsn: 100, next_xid: 50, vacuum_generation: 1, local: 1, ..Written::default() };
        let view = View { oldest_xid: 49, vacuum_generation: 9, ingested_lsn: 100 };
        assert_eq!(verdict(&entry(written), &view), Verdict::Pinned(Pin::Xid));
        assert_eq!(verdict(&entry(written), &View { oldest_xid: 50, ..view }), Verdict::Free);
    }

    #[test]
    fn a_vacuum_that_ran_at_the_write_holds_the_block_for_two_generations() {
        let written = Written { lwlsn: 100, next_xid: 50, vacuum_generation: 7, local: 1, ..Written::default() };
        let view = |generation| View { oldest_xid: 60, vacuum_generation: generation, ingested_lsn: 100 };
        assert_eq!(verdict(&entry(written), &view(7)), Verdict::Pinned(Pin::Vacuum));
        assert_eq!(verdict(&entry(written), &view(8)), Verdict::Pinned(Pin::Vacuum));
        assert_eq!(verdict(&entry(written), &view(9)), Verdict::Free);
    }

    #[test]
    #[cfg(not(feature = "planted-punch-before-ack"))]
    fn only_what_the_pageserver_has_is_free() {
        let written = Written { lwlsn: 100, local: 1, ..Written::default() };
        let view = View { oldest_xid: 60, vacuum_generation: 9, ingested_lsn: 99 };
        assert_eq!(verdict(&entry(written), &view), Verdict::Unacknowledged);
        assert_eq!(verdict(&entry(written), &View { ingested_lsn: 100, ..view }), Verdict::Free);
    }

    #[test]
    fn a_copy_from_the_pageserver_is_free_at_once_unless_it_is_of_a_catalog() {
        let view = View { oldest_xid: 0, vacuum_generation: 0, ingested_lsn: 0 };
        let copy = entry(Written::default());
        assert_eq!(verdict(&copy, &view), Verdict::Free);
        let catalog = Entry { key: BlockKey { relation: 1259, ..HEAP }, ..copy };
        assert_eq!(verdict(&catalog, &view), Verdict::Pinned(Pin::Catalog));
        assert_eq!(pin_now(&catalog, &view), Pin::None, "a damaged one can be read again");
    }
}
