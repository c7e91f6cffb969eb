//! The header every page of a relation starts with (storage/bufpage.h), and the visibility map's bits.

use crate::lsn::Lsn;
use crate::rel::{BlockNumber, PAGE_SIZE};

/// All bytes of a page.
pub type Page = [u8; PAGE_SIZE];

/// SizeOfPageHeaderData.
pub const PAGE_HEADER_SIZE: usize = 24;
/// PG_PAGE_LAYOUT_VERSION of Postgres 8.3 and later.
const LAYOUT_VERSION: u16 = 4;

const UPPER: usize = 14;
const SPECIAL: usize = 16;

fn field(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn set_field(page: &mut Page, at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// pd_lsn: its high half comes first (PageXLogRecPtr).
pub fn lsn(page: &Page) -> Lsn {
    let word = |at: usize| u64::from(u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    Lsn(word(0) << 32 | word(4))
}

pub fn set_lsn(page: &mut Page, lsn: Lsn) {
    page[..4].copy_from_slice(&((lsn.0 >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn.0 as u32).to_le_bytes());
}

/// PageIsNew: never initialised, which pd_upper tells.
pub fn is_new(page: &Page) -> bool {
    field(page, UPPER) == 0
}

/// pd_special: where the access method's own part begins. As the page says, which may be beyond the page.
pub fn special_offset(page: &Page) -> u16 {
    field(page, SPECIAL)
}

/// PageInit: an empty page whose last `special_size` bytes are the access method's.
///
/// Panics if `special_size` does not fit a page.
pub fn init(page: &mut Page, special_size: usize) {
    let special = PAGE_SIZE - special_size.next_multiple_of(8);
    assert!(special >= PAGE_HEADER_SIZE, "special space of {special_size} bytes");
    page.fill(0);
    set_field(page, 12, PAGE_HEADER_SIZE as u16);
    set_field(page, UPPER, special as u16);
    set_field(page, SPECIAL, special as u16);
    set_field(page, 18, PAGE_SIZE as u16 | LAYOUT_VERSION);
}

/// The visibility map: two bits for each heap block (access/heap/visibilitymap.c).
pub mod visibility {
    use super::{BlockNumber, PAGE_HEADER_SIZE, PAGE_SIZE, Page};

    pub const ALL_VISIBLE: u8 = 1;
    pub const ALL_FROZEN: u8 = 2;
    /// VISIBILITYMAP_VALID_BITS.
    pub const VALID_BITS: u8 = ALL_VISIBLE | ALL_FROZEN;

    /// MAPSIZE: bytes of bits on one page.
    pub const MAP_SIZE: usize = PAGE_SIZE - PAGE_HEADER_SIZE;
    /// HEAPBLOCKS_PER_PAGE.
    pub const HEAP_BLOCKS_PER_PAGE: u32 = MAP_SIZE as u32 * 4;

    /// The map page that has the bits of this heap block.
    pub fn map_block(heap_block: u32) -> BlockNumber {
        BlockNumber(heap_block / HEAP_BLOCKS_PER_PAGE)
    }

    /// Where on its page the bits of a heap block are: byte of the page, and shift.
    fn place(heap_block: u32) -> (usize, u8) {
        let index = heap_block % HEAP_BLOCKS_PER_PAGE;
        (PAGE_HEADER_SIZE + (index / 4) as usize, (index % 4) as u8 * 2)
    }

    pub fn get(page: &Page, heap_block: u32) -> u8 {
        let (byte, shift) = place(heap_block);
        page[byte] >> shift & VALID_BITS
    }

    /// visibilitymap_set, bits alone.
    pub fn set(page: &mut Page, heap_block: u32, flags: u8) {
        let (byte, shift) = place(heap_block);
        page[byte] |= (flags & VALID_BITS) << shift;
    }

    /// visibilitymap_clear.
    pub fn clear(page: &mut Page, heap_block: u32, flags: u8) {
        let (byte, shift) = place(heap_block);
        page[byte] &= !((flags & VALID_BITS) << shift);
    }

    /// The bits of this heap block and of all behind it on the page (visibilitymap_prepare_truncate).
    pub fn clear_from(page: &mut Page, heap_block: u32) {
        let (byte, shift) = place(heap_block);
        page[byte] &= (1u8 << shift) - 1;
        page[byte + 1..].fill(0);
    }
}

/// The free space map's tree of pages, as far as truncation needs it (storage/freespace/freespace.c).
pub mod free_space {
    use super::{PAGE_HEADER_SIZE, PAGE_SIZE};

    /// NodesPerPage, NonLeafNodesPerPage and SlotsPerFSMPage (storage/fsm_internals.h).
    const NODES_PER_PAGE: u32 = (PAGE_SIZE - PAGE_HEADER_SIZE - 4) as u32;
    const NON_LEAF_NODES_PER_PAGE: u32 = PAGE_SIZE as u32 / 2 - 1;
    const SLOTS_PER_PAGE: u32 = NODES_PER_PAGE - NON_LEAF_NODES_PER_PAGE;
    const TREE_DEPTH: u32 = 3;

    /// Blocks the map keeps when the heap is cut to this many blocks (FreeSpaceMapPrepareTruncateRel).
    pub fn blocks_after_truncation(heap_blocks: u32) -> u32 {
        let leaf = heap_blocks / SLOTS_PER_PAGE;
        let mut below = leaf;
        let mut pages = 0;
        for _ in 0..TREE_DEPTH {
            pages += below + 1;
            below /= SLOTS_PER_PAGE;
        }
        // The leaf page itself is the last of `pages`; it stays unless its first slot goes.
        if heap_blocks.is_multiple_of(SLOTS_PER_PAGE) { pages - 1 } else { pages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_page_is_what_postgres_makes() {
        let mut page = [7; PAGE_SIZE];
        init(&mut page, 0);
        // pd_lower 24, pd_upper and pd_special 8192, pd_pagesize_version 8196.
        assert_eq!(page[12..20], [24, 0, 0, 0x20, 0, 0x20, 4, 0x20]);
        assert!(!is_new(&page) && is_new(&[0; PAGE_SIZE]));
        assert_eq!(special_offset(&page), 8192);
        init(&mut page, 12);
        assert_eq!(special_offset(&page), 8176);
        set_lsn(&mut page, Lsn(0x0000_0001_0200_0300));
        assert_eq!(page[..8], [1, 0, 0, 0, 0, 3, 0, 2]);
        assert_eq!(lsn(&page), Lsn(0x0000_0001_0200_0300));
    }

    #[test]
    fn map_bits_are_set_and_cleared_alone() {
        use visibility::*;
        let mut page = [0; PAGE_SIZE];
        for block in [0, 1, 5, HEAP_BLOCKS_PER_PAGE - 1] {
            set(&mut page, block, VALID_BITS);
        }
        assert_eq!(page[24], 0x0F);
        clear(&mut page, 1, ALL_FROZEN);
        assert_eq!((get(&page, 0), get(&page, 1), get(&page, 5), get(&page, 6)), (3, 1, 3, 0));
        clear_from(&mut page, 1);
        assert_eq!((get(&page, 0), get(&page, 1), get(&page, 5)), (3, 0, 0));
        assert_eq!(get(&page, HEAP_BLOCKS_PER_PAGE - 1), 0);
        assert_eq!(map_block(32672), BlockNumber(1));
        set(&mut page, HEAP_BLOCKS_PER_PAGE - 1, ALL_VISIBLE);
        clear_from(&mut page, HEAP_BLOCKS_PER_PAGE - 1);
        assert_eq!(get(&page, HEAP_BLOCKS_PER_PAGE - 1), 0);
    }

    #[test]
    fn free_space_maps_shrink_with_their_heap() {
        use free_space::blocks_after_truncation;
        // A map of a small heap has three pages: root, middle, leaf.
        assert_eq!(blocks_after_truncation(1), 3);
        assert_eq!(blocks_after_truncation(4068), 3);
        assert_eq!(blocks_after_truncation(4069), 3);
        assert_eq!(blocks_after_truncation(4070), 4);
        assert_eq!(blocks_after_truncation(0), 2);
    }
}
