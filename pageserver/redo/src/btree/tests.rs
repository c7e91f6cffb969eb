use super::posting::Posting;
use super::{FLAGS, NEXT, PREV, flags, opaque};
use crate::delta::Kind;
use crate::error::RedoError;
use crate::page::{Page, max_offset, read_u16, read_u32};
use crate::tests::{anew, delta, index_tuple, item, leaf, page_of, redo};

fn tid(number: u8) -> [u8; 6] {
    [0, 0, number, 0, 1, 0]
}

fn tuple(number: u8) -> Vec<u8> {
    index_tuple(tid(number), &[number; 8])
}

/// A tuple with a list of these TIDs behind its key.
fn posting(key: u8, tids: &[u8]) -> Vec<u8> {
    let mut tuple = index_tuple([0, 0, 16, 0, tids.len() as u8, 0x20], &[key; 8]);
    tuple.extend(tids.iter().flat_map(|number| tid(*number)));
    tuple.resize(tuple.len().next_multiple_of(8), 0);
    let size = tuple.len() as u16 | 0x2000;
    tuple[6..8].copy_from_slice(&size.to_le_bytes());
    tuple
}

fn tuples(page: &Page) -> Vec<Vec<u8>> {
    (1..=max_offset(page)).map(|offset| item(page, offset).to_vec()).collect()
}

fn field(page: &Page, at: usize) -> u32 {
    read_u32(page, opaque(page).unwrap() + at).unwrap()
}

fn page_flags(page: &Page) -> u16 {
    read_u16(page, opaque(page).unwrap() + FLAGS).unwrap()
}

#[test]
fn a_new_page_has_its_tuples_in_order() {
    let page = leaf(&[tuple(1), posting(2, &[3, 4]), tuple(5)]);
    assert_eq!(tuples(&page), [tuple(1), posting(2, &[3, 4]), tuple(5)]);
    assert_eq!((field(&page, PREV), field(&page, NEXT), page_flags(&page)), (7, 0, flags::LEAF));
    let cut = &tuple(1)[..12];
    let mut page = page;
    let cut = anew(Kind::BtreePage, |delta| delta.u32(0).u32(0).u32(0).u16(1).bytes(cut));
    assert!(matches!(redo(&mut page, &cut), Err(RedoError::Delta(_))));
    let endless = anew(Kind::BtreePage, |delta| delta.u32(0).u32(0).u32(0).u16(1).bytes(&[0; 16]));
    assert!(matches!(redo(&mut page, &endless), Err(RedoError::Delta(_))));
    let long: Vec<u8> = (0..200).flat_map(|_| index_tuple(tid(1), &[1; 40])).collect();
    let long = anew(Kind::BtreePage, |delta| delta.u32(0).u32(0).u32(0).u16(1).bytes(&long));
    assert!(matches!(redo(&mut page, &long), Err(RedoError::Delta(_))));
}

#[test]
fn a_tuple_comes_between_others() {
    let mut page = leaf(&[tuple(1), tuple(3)]);
    redo(&mut page, &delta(Kind::IndexInsert, |delta| delta.u16(2).bytes(&tuple(2)))).unwrap();
    assert_eq!(tuples(&page), [tuple(1), tuple(2), tuple(3)]);
    let far = delta(Kind::IndexInsert, |delta| delta.u16(5).bytes(&tuple(2)));
    assert!(matches!(redo(&mut page, &far), Err(RedoError::Page(_))));
}

#[test]
fn a_tid_goes_into_a_posting_list_and_its_last_comes_out() {
    let mut page = leaf(&[posting(1, &[2, 4, 6])]);
    let new = index_tuple(tid(3), &[1; 8]);
    redo(&mut page, &delta(Kind::BtreeInsertPosting, |delta| delta.u16(2).u16(1).bytes(&new))).unwrap();
    assert_eq!(tuples(&page), [posting(1, &[2, 3, 4]), index_tuple(tid(6), &[1; 8])]);
    for wrong in [0, 3] {
        let delta = delta(Kind::BtreeInsertPosting, |delta| delta.u16(2).u16(wrong).bytes(&new));
        assert!(matches!(redo(&mut page.clone(), &delta), Err(RedoError::Page(_))));
    }
    let no_list = delta(Kind::BtreeInsertPosting, |delta| delta.u16(3).u16(1).bytes(&new));
    assert!(matches!(redo(&mut page, &no_list), Err(RedoError::Page(_))));
    assert!(Posting::read(&page, 8000..8016).is_err());
}

/// first right, new offset, posting offset
fn split(flags: u8, offsets: [u16; 3], tuples: &[Vec<u8>]) -> Vec<u8> {
    delta(Kind::BtreeSplitLeft, |delta| {
        let [first_right, new, posting] = offsets;
        delta.u8(flags).u16(first_right).u16(new).u16(posting).u32(44).bytes(&tuples.concat())
    })
}

#[test]
fn the_left_half_of_a_split_keeps_its_part() {
    let all = [tuple(1), tuple(3), tuple(5), tuple(7)];
    let mut page = leaf(&all);
    redo(&mut page, &split(1, [3, 4, 0], &[tuple(5)])).unwrap();
    assert_eq!(tuples(&page), [tuple(5), tuple(1), tuple(3)]);
    assert_eq!((field(&page, NEXT), page_flags(&page)), (44, flags::LEAF | flags::INCOMPLETE_SPLIT));
    redo(&mut page, &[Kind::BtreeClearIncompleteSplit as u8]).unwrap();
    assert_eq!(page_flags(&page), flags::LEAF);
    // The new tuple in the middle, and at the end.
    for (new, expected) in [(2, [tuple(5), tuple(1), tuple(2), tuple(3)]), (3, [tuple(5), tuple(1), tuple(3), tuple(2)])] {
        let mut page = leaf(&all);
        redo(&mut page, &split(3, [3, new, 0], &[tuple(2), tuple(5)])).unwrap();
        assert_eq!(tuples(&page), expected);
    }
    for missing in [&[][..], &[tuple(2)], &[tuple(2), tuple(5), tuple(6)]] {
        assert!(matches!(redo(&mut leaf(&all), &split(3, [3, 2, 0], missing)), Err(RedoError::Delta(_))));
    }
    assert!(matches!(redo(&mut leaf(&all), &split(1, [9, 4, 0], &[tuple(5)])), Err(RedoError::Page(_))));
}

#[test]
fn a_split_may_split_a_posting_list_too() {
    let all = [tuple(1), posting(3, &[2, 4, 6]), tuple(5)];
    let new = index_tuple(tid(3), &[3; 8]);
    // The new tuple goes left behind the list, or right.
    let mut page = leaf(&all);
    redo(&mut page, &split(3, [3, 3, 1], &[new.clone(), tuple(5)])).unwrap();
    assert_eq!(tuples(&page), [tuple(5), tuple(1), posting(3, &[2, 3, 4]), index_tuple(tid(6), &[3; 8])]);
    let mut page = leaf(&all);
    redo(&mut page, &split(1, [3, 3, 1], &[new, tuple(5)])).unwrap();
    assert_eq!(tuples(&page), [tuple(5), tuple(1), posting(3, &[2, 3, 4])]);
}

#[test]
fn equal_tuples_are_merged() {
    let mut page = leaf(&[
        index_tuple(tid(1), &[9; 8]),
        index_tuple(tid(2), &[9; 8]),
        posting(9, &[3, 4]),
        tuple(5),
        index_tuple(tid(6), &[9; 8]),
    ]);
    let garbage = opaque(&page).unwrap() + FLAGS;
    page[garbage] |= flags::HAS_GARBAGE as u8;
    redo(&mut page, &delta(Kind::BtreeDedup, |delta| delta.u16(1).u16(3))).unwrap();
    assert_eq!(tuples(&page), [posting(9, &[1, 2, 3, 4]), tuple(5), index_tuple(tid(6), &[9; 8])]);
    assert_eq!(page_flags(&page), flags::LEAF);
    for wrong in [[1, 1], [9, 2]] {
        let delta = delta(Kind::BtreeDedup, |delta| delta.u16(wrong[0]).u16(wrong[1]));
        assert!(redo(&mut page.clone(), &delta).is_err());
    }
}

#[test]
fn posting_lists_lose_tids_and_tuples_go() {
    let all = [tuple(1), posting(3, &[2, 4, 6]), posting(5, &[7, 8]), tuple(9)];
    let mut page = leaf(&all);
    // Tuple 1 goes; the first list loses two TIDs, so that it is none any more, the second one none.
    let vacuum = delta(Kind::BtreeDelete, |delta| delta.u16(1).u16(1).u16(1).u16(2).u16(2).u16(0).u16(2));
    redo(&mut page, &vacuum).unwrap();
    assert_eq!(tuples(&page), [index_tuple(tid(4), &[3; 8]), posting(5, &[7, 8]), tuple(9)]);
    let mut page = leaf(&all);
    redo(&mut page, &delta(Kind::BtreeDelete, |delta| delta.u16(0).u16(1).u16(2).u16(1).u16(1))).unwrap();
    assert_eq!(tuples(&page)[1], posting(3, &[2, 6]));
    // Three and more go at once.
    let mut page = leaf(&[tuple(1), tuple(2), tuple(3), tuple(4), tuple(5)]);
    redo(&mut page, &delta(Kind::BtreeDelete, |delta| delta.u16(3).u16(0).u16(1).u16(3).u16(4))).unwrap();
    assert_eq!(tuples(&page), [tuple(2), tuple(5)]);
    redo(&mut page, &delta(Kind::BtreeDelete, |delta| delta.u16(2).u16(0).u16(1).u16(2))).unwrap();
    assert_eq!(max_offset(&page), 0);
    // All TIDs of a list; TIDs and offsets out of order.
    for wrong in [&[0, 1, 2, 3, 0, 1, 2][..], &[0, 1, 2, 2, 1, 0], &[3, 0, 3, 2, 1]] {
        let delta = delta(Kind::BtreeDelete, |delta| wrong.iter().fold(delta, |delta, word| delta.u16(*word)));
        assert!(redo(&mut leaf(&all), &delta).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_page_leaves_the_tree() {
    let mut parent = leaf(&[tuple(1), tuple(2), tuple(3)]);
    redo(&mut parent, &delta(Kind::BtreeHalfDeadParent, |delta| delta.u16(2))).unwrap();
    assert_eq!(tuples(&parent), [tuple(1), index_tuple(tid(3), &[2; 8])]);
    assert!(redo(&mut parent, &delta(Kind::BtreeHalfDeadParent, |delta| delta.u16(2))).is_err());
    redo(&mut parent, &delta(Kind::BtreeSibling, |delta| delta.u8(1).u32(99))).unwrap();
    assert_eq!((field(&parent, PREV), field(&parent, NEXT)), (7, 99));
    assert!(redo(&mut parent, &delta(Kind::BtreeSibling, |delta| delta.u8(2).u32(99))).is_err());

    let page = page_of(&[anew(Kind::BtreeDeletedPage, |delta| delta.u32(3).u32(4).u32(0).u64(0x1_0000_0005))]);
    assert_eq!(page_flags(&page), flags::LEAF | flags::DELETED | flags::HAS_FULLXID);
    assert_eq!((page[24], page[28], page[12]), (5, 1, 32));
}

#[test]
fn a_metapage_is_where_readers_look() {
    let page = page_of(&[anew(Kind::BtreeMeta, |delta| delta.u32(4).u32(3).u32(1).u32(3).u32(1).u32(0).u8(1))]);
    assert_eq!((page[24..28].to_vec(), page[32], page[12], page[64]), (vec![0x62, 0x31, 5, 0], 3, 72, 1));
    assert_eq!((page[56..64].to_vec(), page_flags(&page)), ((-1.0f64).to_le_bytes().to_vec(), flags::META));
}
