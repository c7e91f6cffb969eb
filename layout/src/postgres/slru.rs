//! Where things lie on the pages of the SLRUs, and which pages and segments come before others.

use crate::key::SLRU_PAGES_PER_SEGMENT;
use crate::rel::PAGE_SIZE;

/// Whether transaction or multixact number `a` comes before `b`, numbers running in a circle
/// (TransactionIdPrecedes for normal xids, MultiXactIdPrecedes).
pub fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// FirstNormalTransactionId: smaller ones are permanent.
pub const FIRST_NORMAL_XID: u32 = 3;
/// FirstMultiXactId.
pub const FIRST_MULTIXACT: u32 = 1;

/// TransactionIdIsNormal.
pub fn is_normal_xid(xid: u32) -> bool {
    xid >= FIRST_NORMAL_XID
}

/// TransactionIdPrecedes: permanent xids compare as plain numbers.
pub fn xid_precedes(a: u32, b: u32) -> bool {
    if is_normal_xid(a) && is_normal_xid(b) { precedes(a, b) } else { a < b }
}

/// Whether every entry of page `a` comes before every entry of page `b`: what CLOGPagePrecedes,
/// CommitTsPagePrecedes and MultiXactOffsetPagePrecedes decide with the first number `base` of their kind.
fn page_precedes(a: u32, b: u32, per_page: u32, base: u32) -> bool {
    let a = a.wrapping_mul(per_page).wrapping_add(base);
    let b = b.wrapping_mul(per_page).wrapping_add(base);
    precedes(a, b) && precedes(a, b.wrapping_add(per_page - 1))
}

/// Whether SimpleLruTruncate at `cutoff` removes the segment of `page` (SlruMayDeleteSegment).
fn segment_precedes(page: u32, cutoff: u32, precedes: impl Fn(u32, u32) -> bool) -> bool {
    let first = page - page % SLRU_PAGES_PER_SEGMENT;
    precedes(first, cutoff) && precedes(first + SLRU_PAGES_PER_SEGMENT - 1, cutoff)
}

/// pg_xact: two status bits a transaction (access/transam/clog.c).
pub mod clog {
    use super::*;

    pub const XIDS_PER_PAGE: u32 = PAGE_SIZE as u32 * 4;
    pub const COMMITTED: u8 = 1;
    pub const ABORTED: u8 = 2;

    pub fn page_of(xid: u32) -> u32 {
        xid / XIDS_PER_PAGE
    }

    pub fn set_status(page: &mut [u8; PAGE_SIZE], xid: u32, status: u8) {
        let index = xid % XIDS_PER_PAGE;
        let shift = (index % 4) * 2;
        let byte = &mut page[(index / 4) as usize];
        *byte = *byte & !(3 << shift) | (status & 3) << shift;
    }

    pub fn page_precedes(a: u32, b: u32) -> bool {
        super::page_precedes(a, b, XIDS_PER_PAGE, FIRST_NORMAL_XID + 1)
    }

    /// Whether a truncation at page `cutoff` removes `page`, with its segment.
    pub fn is_truncated(page: u32, cutoff: u32) -> bool {
        segment_precedes(page, cutoff, page_precedes)
    }
}

/// pg_commit_ts: time and origin of each commit (access/transam/commit_ts.c).
pub mod commit_ts {
    use super::*;

    /// SizeOfCommitTimestampEntry.
    pub const ENTRY_SIZE: usize = 10;
    pub const XIDS_PER_PAGE: u32 = (PAGE_SIZE / ENTRY_SIZE) as u32;

    pub fn page_of(xid: u32) -> u32 {
        xid / XIDS_PER_PAGE
    }

    pub fn set(page: &mut [u8; PAGE_SIZE], xid: u32, time: i64, origin: u16) {
        let at = (xid % XIDS_PER_PAGE) as usize * ENTRY_SIZE;
        page[at..at + 8].copy_from_slice(&time.to_le_bytes());
        page[at + 8..at + ENTRY_SIZE].copy_from_slice(&origin.to_le_bytes());
    }

    pub fn page_precedes(a: u32, b: u32) -> bool {
        super::page_precedes(a, b, XIDS_PER_PAGE, FIRST_NORMAL_XID + 1)
    }

    pub fn is_truncated(page: u32, cutoff: u32) -> bool {
        segment_precedes(page, cutoff, page_precedes)
    }
}

/// pg_multixact/offsets: where the members of each multixact begin (access/transam/multixact.c).
pub mod multi_offsets {
    use super::*;

    pub const PER_PAGE: u32 = PAGE_SIZE as u32 / 4;

    pub fn page_of(multi: u32) -> u32 {
        multi / PER_PAGE
    }

    pub fn set(page: &mut [u8; PAGE_SIZE], multi: u32, offset: u32) {
        let at = (multi % PER_PAGE) as usize * 4;
        page[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    }

    pub fn page_precedes(a: u32, b: u32) -> bool {
        super::page_precedes(a, b, PER_PAGE, FIRST_MULTIXACT + 1)
    }

    pub fn is_truncated(page: u32, cutoff: u32) -> bool {
        segment_precedes(page, cutoff, page_precedes)
    }
}

/// pg_multixact/members: groups of four flag bytes and the four xids they belong to.
pub mod multi_members {
    use super::*;

    const PER_GROUP: u32 = 4;
    const GROUP_SIZE: u32 = 20;
    const GROUPS_PER_PAGE: u32 = PAGE_SIZE as u32 / GROUP_SIZE;
    pub const PER_PAGE: u32 = GROUPS_PER_PAGE * PER_GROUP;

    pub fn page_of(offset: u32) -> u32 {
        offset / PER_PAGE
    }

    /// Segment of a member, for truncation, which counts in segments.
    pub fn segment_of(offset: u32) -> u32 {
        page_of(offset) / SLRU_PAGES_PER_SEGMENT
    }

    pub fn set(page: &mut [u8; PAGE_SIZE], offset: u32, xid: u32, status: u8) {
        let group = (offset / PER_GROUP % GROUPS_PER_PAGE * GROUP_SIZE) as usize;
        let member = (offset % PER_GROUP) as usize;
        page[group + member] = status;
        let at = group + PER_GROUP as usize + member * 4;
        page[at..at + 4].copy_from_slice(&xid.to_le_bytes());
    }

    /// Whether a truncation of the members from `start` to `end` removes `page` (PerformMembersTruncation): the segments
    /// from that of `start` up to, not including, that of `end`, running through zero if they wrap.
    pub fn is_truncated(page: u32, start: u32, end: u32) -> bool {
        let segments = segment_of(u32::MAX) + 1;
        let distance = |from: u32, to: u32| (to + segments - from) % segments;
        let (start, end, at) = (segment_of(start), segment_of(end), page / SLRU_PAGES_PER_SEGMENT);
        at < segments && distance(start, at) < distance(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_where_postgres_puts_them() {
        let mut page = [0; PAGE_SIZE];
        clog::set_status(&mut page, 5, clog::ABORTED);
        clog::set_status(&mut page, 4, clog::COMMITTED);
        clog::set_status(&mut page, 5, clog::COMMITTED);
        assert_eq!((page[1], clog::page_of(32768), clog::page_of(32767)), (0b0101, 1, 0));

        let mut page = [0; PAGE_SIZE];
        commit_ts::set(&mut page, 820, 0x0102, 9);
        assert_eq!(page[10..20], [2, 1, 0, 0, 0, 0, 0, 0, 9, 0]);
        assert_eq!(commit_ts::page_of(819), 1);

        let mut page = [0; PAGE_SIZE];
        multi_offsets::set(&mut page, 2049, 7);
        assert_eq!(page[4], 7);

        let mut page = [0; PAGE_SIZE];
        assert_eq!(multi_members::PER_PAGE, 1636);
        multi_members::set(&mut page, 1636 + 5, 0x0A0B, 4);
        assert_eq!((page[21], page[28], page[29]), (4, 0x0B, 0x0A));
        multi_members::set(&mut page, 1635, 1, 5);
        assert_eq!((page[408 * 20 + 3], page[408 * 20 + 16]), (5, 1));
    }

    #[test]
    fn truncation_goes_by_whole_segments_and_around_the_circle() {
        assert!(!clog::is_truncated(0, 31));
        assert!(clog::is_truncated(0, 32));
        assert!(clog::is_truncated(31, 33));
        assert!(!clog::is_truncated(32, 33));
        // Half the circle away is the future.
        assert!(!clog::is_truncated(60_000, 33) && clog::is_truncated(70_000, 33));
        let last = clog::page_of(u32::MAX);
        assert!(clog::is_truncated(last, 40));
        assert!(multi_offsets::is_truncated(0, 32) && !multi_offsets::is_truncated(0, 31));

        let segment = multi_members::PER_PAGE * SLRU_PAGES_PER_SEGMENT;
        assert!(multi_members::is_truncated(31, 0, segment));
        assert!(!multi_members::is_truncated(32, 0, segment));
        assert!(!multi_members::is_truncated(0, 0, segment - 1));
        let end_page = multi_members::page_of(u32::MAX);
        assert!(multi_members::is_truncated(end_page, u32::MAX - 10, 5));
        assert!(!multi_members::is_truncated(0, u32::MAX - 10, 5));
        assert!(multi_members::is_truncated(0, u32::MAX - 10, segment));
    }

    #[test]
    fn numbers_run_in_a_circle() {
        assert!(xid_precedes(u32::MAX, 3) && !xid_precedes(3, u32::MAX));
        assert!(xid_precedes(2, u32::MAX) && !xid_precedes(u32::MAX, 1));
        assert!(precedes(u32::MAX, 0));
    }
}
