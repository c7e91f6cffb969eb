use super::encode;
use crate::tests::{at, heap_page};
use crate::{Kind, RedoError, apply};
use ironpage_layout::Lsn;
use ironpage_layout::postgres::page::lsn;
use ironpage_layout::postgres::wal::record::{Compression, Image};
use ironpage_layout::rel::PAGE_SIZE;

fn image(bytes: &[u8], hole: (u16, u16), compression: Option<Compression>) -> Vec<u8> {
    let (hole_offset, hole_length) = hole;
    let mut delta = Vec::new();
    encode(&Image { bytes, hole_offset, hole_length, compression, apply: true }, &mut delta).unwrap();
    delta
}

#[test]
fn an_image_is_the_page_but_for_its_hole() {
    let page = heap_page(&[b"one", b"two"]);
    let (lower, upper) = (32, 8192 - 64);
    let bytes = [&page[..lower], &page[upper..]].concat();
    let hole = (lower as u16, (upper - lower) as u16);
    let mut restored = [0xEE; PAGE_SIZE];
    apply(&mut restored, at(800), &image(&bytes, hole, None)).unwrap();
    assert_eq!((lsn(&restored), &restored[8..], restored[lower]), (Lsn(800), &page[8..], 0));
    let short = image(&bytes[1..], hole, None);
    assert!(matches!(apply(&mut restored, at(800), &short), Err(RedoError::Delta(_))));
}

#[test]
fn compressed_images_are_the_same() {
    // lz4: four literals, a match of all but the last five, which are literals again (its rule for the end).
    let mut lz4 = vec![0x4F, 1, 2, 3, 4, 4, 0];
    let length = PAGE_SIZE - 4 - 5;
    let rest = length - 19;
    lz4.extend(std::iter::repeat_n(255, rest / 255));
    lz4.extend([(rest % 255) as u8, 0x50, 4, 1, 2, 3, 4]);
    let mut expected: Vec<u8> = [1, 2, 3, 4].into_iter().cycle().take(PAGE_SIZE).collect();
    expected[PAGE_SIZE - 5..].copy_from_slice(&[4, 1, 2, 3, 4]);
    let mut page = [0; PAGE_SIZE];
    apply(&mut page, at(8), &image(&lz4, (0, 0), Some(Compression::Lz4))).unwrap();
    assert_eq!(page[8..], expected[8..]);
    lz4.truncate(20);
    assert!(apply(&mut page, at(8), &image(&lz4, (0, 0), Some(Compression::Lz4))).is_err());

    // zstd: magic, a frame of one segment with its size in two bytes, one block of a repeated byte, the last.
    let size = PAGE_SIZE - 100;
    let [low, high] = ((size - 256) as u16).to_le_bytes();
    let block = ((size as u32) << 3 | 0b011).to_le_bytes();
    let zstd = [0x28, 0xB5, 0x2F, 0xFD, 0x60, low, high, block[0], block[1], block[2], 7];
    apply(&mut page, at(8), &image(&zstd, (50, 100), Some(Compression::Zstd))).unwrap();
    assert_eq!((page[49], page[50], page[149], page[150], page[PAGE_SIZE - 1]), (7, 0, 0, 7, 7));
    let wrong = Image { bytes: &zstd[..8], hole_offset: 0, hole_length: 0, compression: Some(Compression::Zstd), apply: true };
    assert!(encode(&wrong, &mut Vec::new()).is_err());
}

#[test]
fn a_delta_may_follow_but_no_image() {
    let page = heap_page(&[b"one"]);
    let mut delta = image(&page, (0, 0), None);
    delta.extend([Kind::HeapConfirm as u8, 1, 0]);
    apply(&mut [0; PAGE_SIZE], at(80), &delta).unwrap();
    let mut twice = image(&page, (0, 0), None);
    twice.extend(image(&page, (0, 0), None));
    assert!(matches!(apply(&mut [0; PAGE_SIZE], at(80), &twice), Err(RedoError::Delta(_))));
    // An image of a page that was never initialised gets no LSN.
    let mut zeros = [1; PAGE_SIZE];
    apply(&mut zeros, at(80), &image(&[0; PAGE_SIZE], (0, 0), None)).unwrap();
    assert_eq!(zeros, [0; PAGE_SIZE]);
}
