use crate::delta::Kind;
use crate::error::RedoError;
use crate::page::{Item, bounds, max_offset};
use crate::tests::{BLOCK, anew, delta, heap_insert, heap_page, item, page_of, redo};
use ironpage_layout::BlockNumber;

use super::tuple::item_pointer;

#[test]
fn a_tuple_is_made_of_its_header_and_its_data() {
    let page = heap_page(&[b"first", b"second"]);
    let tuple = item(&page, 2);
    let mut expected = vec![0xBC, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // The block number in halves, the high one first; then offset, infomask2, infomask, hoff and its padding.
    expected.extend([1, 0, 2, 0, 2, 0, 2, 0, 2, 8, 24, 0]);
    expected.extend(b"second");
    assert_eq!(tuple, expected);
    assert_eq!(item_pointer(BLOCK, 2)[..], tuple[12..18]);
    assert_eq!((bounds(&page).unwrap().lower, bounds(&page).unwrap().upper), (32, 8192 - 64));
}

#[test]
fn an_insert_takes_a_free_line_pointer_or_the_next() {
    let mut page = heap_page(&[b"one", b"two"]);
    assert!(matches!(redo(&mut page, &heap_insert(2, b"x")), Err(RedoError::Page(_))));
    let mut page = heap_page(&[b"one", b"two"]);
    assert!(matches!(redo(&mut page, &heap_insert(4, b"x")), Err(RedoError::Page(_))));
    // Pruned away: unused, the array stays as long as it is.
    redo(&mut page, &delta(Kind::HeapPrune, |delta| delta.u16(0).u16(0).u16(1))).unwrap();
    let free = heap_insert(1, b"again");
    redo(&mut page, &[&[Kind::HeapInsert as u8], &free[1..]].concat()).unwrap();
    assert_eq!((&item(&page, 1)[24..], &item(&page, 2)[24..], max_offset(&page)), (&b"again"[..], &b"two"[..], 2));
}

/// flags, offset, infobits, xmax, xid
fn delete(flags: u8, offset: u16, infobits: u8) -> Vec<u8> {
    delta(Kind::HeapDelete, |delta| delta.u8(flags).u16(offset).u8(infobits).u32(900).u32(901))
}

#[test]
fn a_deleted_tuple_points_to_itself_or_away() {
    let mut page = heap_page(&[b"one", b"two"]);
    redo(&mut page, &delete(0, 2, 0x10)).unwrap();
    let tuple = item(&page, 2);
    assert_eq!((&tuple[4..8], &tuple[12..18]), (&900u32.to_le_bytes()[..], &item_pointer(BLOCK, 2)[..]));
    // HEAP_KEYS_UPDATED; HEAP_XMAX_INVALID is gone; the page is prunable.
    assert_eq!((tuple[19], tuple[21]), (0x20, 0));
    assert_eq!(page[20..24], 901u32.to_le_bytes());
    // The older of two transactions may be pruned first.
    redo(&mut page, &delta(Kind::HeapDelete, |delta| delta.u8(0).u16(1).u8(0).u32(9).u32(800))).unwrap();
    assert_eq!(page[20..24], 800u32.to_le_bytes());

    let mut page = heap_page(&[b"one"]);
    redo(&mut page, &delete(super::flags::PARTITION_MOVE, 1, 0)).unwrap();
    assert_eq!(item(&page, 1)[12..18], item_pointer(BlockNumber(u32::MAX), 0xFFFD));
    let mut page = heap_page(&[b"one"]);
    redo(&mut page, &delete(super::flags::SUPER, 1, 0)).unwrap();
    assert_eq!(item(&page, 1)[..8], [0; 8]);
    assert!(matches!(redo(&mut page, &delete(0, 2, 0)), Err(RedoError::Page(_))));
}

#[test]
fn an_update_takes_what_stays_from_the_old_tuple() {
    let mut page = heap_page(&[b"begin-middle-end"]);
    let flags = super::flags::HOT | super::flags::PREFIX | super::flags::SUFFIX | super::flags::XMAX;
    let update = |prefix, suffix| {
        delta(Kind::HeapUpdate, |delta| {
            let head = delta.u8(flags).u16(1).u8(0).u32(900).u32(900).u16(2).u32(77).u16(prefix).u16(suffix);
            // The header's padding comes before the prefix, the rest after it.
            head.u16(0x8002).u16(0x2802).u8(24).u8(0).bytes(b"MIDDLE")
        })
    };
    redo(&mut page, &update(6, 4)).unwrap();
    assert_eq!(&item(&page, 2)[24..], b"begin-MIDDLE-end");
    assert_eq!((&item(&page, 2)[..8], item(&page, 1)[19]), (&[0x84, 3, 0, 0, 77, 0, 0, 0][..], 0x40));
    assert_eq!(item(&page, 1)[12..18], item_pointer(BLOCK, 2));
    let mut page = heap_page(&[b"short"]);
    assert!(matches!(redo(&mut page, &update(6, 4)), Err(RedoError::Page(_))));
    let mut page = heap_page(&[b"short"]);
    assert!(matches!(redo(&mut page, &update(0, 600)), Err(RedoError::Page(_) | RedoError::Delta(_))));
}

#[test]
fn the_old_tuple_of_an_update_points_to_the_other_page() {
    let mut page = heap_page(&[b"one"]);
    redo(&mut page, &delta(Kind::HeapUpdateOld, |delta| delta.u8(0).u16(1).u8(1).u32(5).u32(900).u32(66).u16(3))).unwrap();
    assert_eq!(item(&page, 1)[12..18], item_pointer(BlockNumber(66), 3));
    // HEAP_XMAX_IS_MULTI.
    assert_eq!(item(&page, 1)[21], 0x10);
}

#[test]
fn a_lock_breaks_no_chain_of_versions() {
    let mut page = heap_page(&[b"one"]);
    redo(&mut page, &delta(Kind::HeapUpdateOld, |delta| delta.u8(0).u16(1).u8(0).u32(5).u32(900).u32(66).u16(3))).unwrap();
    // A multixact with an update in it.
    redo(&mut page, &delta(Kind::HeapLock, |delta| delta.u16(1).u8(0x01).u32(8))).unwrap();
    assert_eq!((&item(&page, 1)[12..18], item(&page, 1)[4]), (&item_pointer(BlockNumber(66), 3)[..], 8));
    redo(&mut page, &delta(Kind::HeapLockUpdated, |delta| delta.u16(1).u8(0x02).u32(9))).unwrap();
    assert_eq!((item(&page, 1)[16], item(&page, 1)[4]), (3, 9));
    // Only a lock.
    redo(&mut page, &delta(Kind::HeapLock, |delta| delta.u16(1).u8(0x02).u32(8))).unwrap();
    assert_eq!(item(&page, 1)[12..18], item_pointer(BLOCK, 1));
}

#[test]
fn several_tuples_come_at_once() {
    let rows = anew(Kind::HeapMultiInsert, |delta| {
        let delta = delta.u8(super::flags::SET_ALL_VISIBLE).u32(700).u16(2);
        let delta = delta.u16(1).u16(4).u16(1).u16(2).u8(24).u8(0).bytes(b"abc");
        delta.u16(2).u16(2).u16(1).u16(2).u8(24).u8(0).bytes(b"d")
    });
    let page = page_of(&[rows]);
    assert_eq!((&item(&page, 1)[24..], &item(&page, 2)[24..], page[10]), (&b"abc"[..], &b"d"[..], 4));
}

#[test]
fn confirmed_and_overwritten_in_place() {
    let mut page = heap_page(&[b"one"]);
    redo(&mut page, &delta(Kind::HeapConfirm, |delta| delta.u16(1))).unwrap();
    redo(&mut page, &delta(Kind::HeapInplace, |delta| delta.u16(1).bytes(b"two"))).unwrap();
    assert_eq!(&item(&page, 1)[24..], b"two");
    let longer = delta(Kind::HeapInplace, |delta| delta.u16(1).bytes(b"three"));
    assert!(matches!(redo(&mut page, &longer), Err(RedoError::Page(_))));
}

#[test]
fn pruning_moves_what_stays_to_the_end() {
    let rows: [&[u8]; 5] = [b"aaaaaaaa", b"bbbbbbbb", b"cccccccc", b"dddddddd", b"eeeeeeee"];
    let mut page = heap_page(&rows);
    // 1 redirects to 3, 2 is dead, 4 and 5 are unused: those at the end go.
    let prune = delta(Kind::HeapPrune, |delta| delta.u16(1).u16(1).u16(1).u16(3).u16(2).u16(4).u16(5));
    redo(&mut page, &prune).unwrap();
    assert_eq!((max_offset(&page), bounds(&page).unwrap().upper), (3, 8192 - 32));
    assert_eq!(Item::get(&page, 1), Ok(Item::redirect(3)));
    assert_eq!(Item::get(&page, 2), Ok(Item::DEAD));
    assert_eq!((&item(&page, 3)[24..], page[10] & 1), (&b"cccccccc"[..], 0));
    // Where the tuple was, its bytes still are.
    assert_eq!(&page[8192 - 32 * 3 + 24..8192 - 64], b"cccccccc");

    redo(&mut page, &delta(Kind::HeapVacuum, |delta| delta.u16(2))).unwrap();
    assert_eq!((max_offset(&page), page[10] & 1), (3, 1));
    assert!(matches!(redo(&mut page, &delta(Kind::HeapVacuum, |delta| delta.u16(3))), Err(RedoError::Page(_))));
}

#[test]
fn tuples_out_of_order_are_moved_through_a_copy() {
    let mut page = heap_page(&[&[b'a'; 8], &[b'b'; 8], &[b'c'; 8]]);
    redo(&mut page, &delta(Kind::HeapPrune, |delta| delta.u16(0).u16(0).u16(1))).unwrap();
    // The first line pointer's tuple now lies below the others.
    let again = heap_insert(1, &[b'A'; 40]);
    redo(&mut page, &[&[Kind::HeapInsert as u8], &again[1..]].concat()).unwrap();
    redo(&mut page, &delta(Kind::HeapPrune, |delta| delta.u16(0).u16(0).u16(2))).unwrap();
    assert_eq!((&item(&page, 1)[24..], &item(&page, 3)[24..]), (&[b'A'; 40][..], &[b'c'; 8][..]));
    assert_eq!((Item::get(&page, 1).unwrap().offset(), Item::get(&page, 3).unwrap().offset()), (8192 - 64, 8192 - 96));
}

#[test]
fn frozen_tuples_and_visible_pages() {
    let mut page = heap_page(&[b"one"]);
    redo(&mut page, &delta(Kind::HeapFreeze, |delta| delta.u16(1).u32(0).u16(2).u16(0x0B02).u8(2))).unwrap();
    assert_eq!((&item(&page, 1)[8..12], &item(&page, 1)[20..22]), (&[2, 0, 0, 0][..], &[2, 0x0B][..]));
    let before = ironpage_layout::postgres::page::lsn(&page);
    redo(&mut page, &delta(Kind::HeapVisible, |delta| delta.u8(0))).unwrap();
    assert_eq!((page[10], ironpage_layout::postgres::page::lsn(&page)), (4, before));
    redo(&mut page, &delta(Kind::HeapVisible, |delta| delta.u8(1))).unwrap();
    assert_eq!(ironpage_layout::postgres::page::lsn(&page), before + 8);
}
