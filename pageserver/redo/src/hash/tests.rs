use super::{FLAG, INVALID, NEXT, PREV};
use crate::delta::Kind;
use crate::page::{Page, max_offset, read_u16, read_u32, special};
use crate::tests::{anew, delta, index_tuple, item, page_of, redo};

fn bucket() -> Page {
    page_of(&[anew(Kind::HashPage, |delta| delta.u32(3).u32(3).u16(0x92))])
}

fn field(page: &Page, at: usize) -> u32 {
    read_u32(page, special(page, 16).unwrap() + at).unwrap()
}

fn flag(page: &Page) -> u16 {
    read_u16(page, special(page, 16).unwrap() + FLAG).unwrap()
}

fn tuple(number: u8) -> Vec<u8> {
    index_tuple([0, 0, number, 0, 1, 0], &[number; 8])
}

#[test]
fn tuples_move_in_and_go() {
    let mut page = bucket();
    assert_eq!((field(&page, PREV), field(&page, NEXT), field(&page, 8), flag(&page)), (3, INVALID, 3, 0x92));
    let moved = delta(Kind::HashMove, |delta| {
        delta.u8(1).u32(9).u16(3).u16(1).u16(1).u16(3).bytes(&[tuple(1), tuple(2), tuple(3)].concat())
    });
    redo(&mut page, &moved).unwrap();
    assert_eq!([1, 2, 3].map(|offset| item(&page, offset).to_vec()), [tuple(2), tuple(1), tuple(3)]);
    assert_eq!(field(&page, NEXT), 9);
    redo(&mut page, &delta(Kind::HashDelete, |delta| delta.u16(0x80).u16(2))).unwrap();
    assert_eq!((max_offset(&page), flag(&page)), (2, 0x12));
    redo(&mut page, &delta(Kind::HashOpaque, |delta| delta.u8(7).u32(1).u32(2).u16(0x42))).unwrap();
    redo(&mut page, &delta(Kind::HashOpaque, |delta| delta.u8(8).u16(0x40))).unwrap();
    assert_eq!((field(&page, PREV), field(&page, NEXT), flag(&page)), (1, 2, 2));
    assert!(redo(&mut page, &delta(Kind::HashOpaque, |delta| delta.u8(16))).is_err());
    let cut = delta(Kind::HashMove, |delta| delta.u8(0).u16(1).u16(1).bytes(&tuple(1)[..12]));
    assert!(redo(&mut page, &cut).is_err());
}

#[test]
fn a_bitmap_has_its_bits_taken_and_freed() {
    let mut page = page_of(&[anew(Kind::HashBitmap, |delta| delta.u16(4096))]);
    assert_eq!((page[24], page[24 + 4095], page[24 + 4096]), (0xFF, 0xFF, 0));
    redo(&mut page, &delta(Kind::HashBit, |delta| delta.u8(0).u32(37))).unwrap();
    assert_eq!(page[28], 0xDF);
    redo(&mut page, &delta(Kind::HashBit, |delta| delta.u8(1).u32(37))).unwrap();
    assert_eq!(page[28], 0xFF);
    assert!(redo(&mut page, &delta(Kind::HashBit, |delta| delta.u8(1).u32(u32::MAX))).is_err());
    let long = anew(Kind::HashBitmap, |delta| delta.u16(8153));
    assert!(redo(&mut page, &long).is_err());
}

#[test]
fn the_metapage_counts_and_maps() {
    let mut page = page_of(&[anew(Kind::HashMeta, |delta| delta.u32(400).u16(307).u32(8).u32(3))]);
    let word = |page: &Page, at: usize| read_u32(page, at).unwrap();
    // hashm_maxbucket, hashm_highmask, hashm_lowmask, hashm_ovflpoint; pd_lower.
    assert_eq!([48, 52, 56, 60].map(|at| word(&page, at)), [7, 15, 7, 3]);
    assert_eq!(read_u16(&page, 12), Ok(4568));
    redo(&mut page, &[Kind::HashMetaBitmap as u8]).unwrap();
    // hashm_nmaps, hashm_mapp[0], hashm_spares[3].
    assert_eq!((word(&page, 68), word(&page, 468), word(&page, 76 + 12)), (1, 9, 1));
    for number in [1.0f64, 1.0, -1.0] {
        redo(&mut page, &delta(Kind::HashMetaTuples, |delta| delta.u8(0).u64(number.to_bits()))).unwrap();
    }
    assert_eq!(page[32..40], 1.0f64.to_le_bytes());
    redo(&mut page, &delta(Kind::HashMetaTuples, |delta| delta.u8(1).u64(5.5f64.to_bits()))).unwrap();
    assert_eq!(page[32..40], 5.5f64.to_le_bytes());
    // An overflow page, and one that needs another bitmap page: no index of these tests is that large.
    redo(&mut page, &delta(Kind::HashMetaOverflow, |delta| delta.u32(1).u8(1))).unwrap();
    redo(&mut page, &delta(Kind::HashMetaOverflow, |delta| delta.u32(2).u8(2).u32(77))).unwrap();
    assert_eq!([64, 68, 472, 76 + 12].map(|at| word(&page, at)), [2, 2, 77, 4]);
    redo(&mut page, &delta(Kind::HashMetaFirstFree, |delta| delta.u32(1))).unwrap();
    redo(&mut page, &delta(Kind::HashMetaSplit, |delta| delta.u8(3).u32(8).u32(15).u32(31).u32(4).u32(3))).unwrap();
    assert_eq!([48, 52, 56, 60, 64, 76 + 16].map(|at| word(&page, at)), [8, 31, 15, 4, 1, 3]);
    assert!(redo(&mut page, &delta(Kind::HashMetaSplit, |delta| delta.u8(2).u32(8).u32(98).u32(1))).is_err());
    page[60..64].copy_from_slice(&98u32.to_le_bytes());
    assert!(redo(&mut page, &delta(Kind::HashMetaOverflow, |delta| delta.u32(1).u8(1))).is_err());
}
