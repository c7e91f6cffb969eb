//! Tests of `record`: every part of a record, and every way to contradict itself.

use super::*;
use crate::postgres::wal::build::{RecordHead, encode_record, main_data_payload};

const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

fn record(payload: &[u8]) -> Vec<u8> {
    encode_record(RecordHead { xid: 700, prev: Lsn(0x1000028), info: 0x80, rmid: Rmgr::Heap as u8 }, payload)
}

fn rel_bytes(rel: RelTag) -> Vec<u8> {
    [rel.tablespace, rel.database, rel.relation].iter().flat_map(|oid| oid.to_le_bytes()).collect()
}

/// A block reference: flags without SAME_REL name `REL`.
fn block(id: u8, flags: u8, data_length: u16, image: &[u8], number: u32) -> Vec<u8> {
    let mut out = vec![id, flags];
    out.extend_from_slice(&data_length.to_le_bytes());
    out.extend_from_slice(image);
    if flags & SAME_REL == 0 {
        out.extend_from_slice(&rel_bytes(REL));
    }
    out.extend_from_slice(&number.to_le_bytes());
    out
}

fn image_header(length: u16, hole_offset: u16, info: u8) -> Vec<u8> {
    let mut out = length.to_le_bytes().to_vec();
    out.extend_from_slice(&hole_offset.to_le_bytes());
    out.push(info);
    out
}

fn decode_error(payload: &[u8]) -> &'static str {
    let bytes = record(payload);
    DecodedRecord::decode(&bytes).expect_err("should not decode").0
}

#[test]
fn blocks_images_origin_and_data_are_found() {
    let image = image_header(8192 - 100, 40, IMAGE_HAS_HOLE | IMAGE_APPLY);
    let mut payload = block(0, WILL_INIT | HAS_DATA, 3, &[], 7);
    payload.extend(block(2, SAME_REL | HAS_IMAGE | HAS_DATA | 2, 2, &image, 9));
    payload.extend([BLOCK_ID_ORIGIN, 4, 0, BLOCK_ID_TOPLEVEL_XID, 9, 0, 0, 0, BLOCK_ID_DATA_SHORT, 4]);
    payload.extend([1, 2, 3]);
    payload.extend((0..8092u32).map(|i| i as u8 | 1));
    payload.extend([4, 5]);
    payload.extend(b"main");
    let bytes = record(&payload);
    let decoded = DecodedRecord::decode(&bytes).unwrap();
    assert_eq!((decoded.xid, decoded.prev, decoded.info, decoded.rmgr()), (700, Lsn(0x1000028), 0x80, Some(Rmgr::Heap)));
    assert_eq!((decoded.origin, decoded.toplevel_xid, decoded.main_data), (4, 9, &b"main"[..]));
    let first = decoded.block(0).unwrap();
    assert_eq!((first.rel, first.fork, first.block, first.data), (REL, Fork::Main, BlockNumber(7), &[1, 2, 3][..]));
    assert!(first.will_init && first.image.is_none());
    assert_eq!(decoded.block(1), None);
    let second = decoded.block(2).unwrap();
    assert_eq!((second.rel, second.fork, second.block, second.data), (REL, Fork::Vm, BlockNumber(9), &[4, 5][..]));

    let page = DecodedRecord::restore_image(second, Lsn(0x1_0000_1000)).unwrap();
    assert_eq!(page::lsn(&page), Lsn(0x1_0000_1000));
    assert_eq!(page[8..40], payload_image(8, 40)[..]);
    assert!(page[40..140].iter().all(|byte| *byte == 0));
    assert_eq!(page[140..], payload_image(40, 8092)[..]);
    assert_eq!(DecodedRecord::restore_image(first, Lsn(8)), None);
}

fn payload_image(from: u32, to: u32) -> Vec<u8> {
    (from..to).map(|i| i as u8 | 1).collect()
}

#[test]
fn a_new_page_keeps_its_zero_lsn_and_a_compressed_one_is_left_alone() {
    let mut payload = block(0, HAS_IMAGE, 0, &image_header(8192, 0, IMAGE_APPLY), 0);
    payload.extend([0; 8192]);
    let bytes = record(&payload);
    let decoded = DecodedRecord::decode(&bytes).unwrap();
    assert_eq!(DecodedRecord::restore_image(&decoded.blocks[0], Lsn(64)).unwrap()[..], [0; 8192]);

    let mut image = image_header(100, 40, IMAGE_HAS_HOLE | IMAGE_APPLY | 4);
    image.extend(200u16.to_le_bytes());
    let mut payload = block(0, HAS_IMAGE, 0, &image, 0);
    payload.extend([1; 100]);
    let bytes = record(&payload);
    let decoded = DecodedRecord::decode(&bytes).unwrap();
    assert!(decoded.blocks[0].applied_image().unwrap().compression.is_some());
    assert_eq!(decoded.blocks[0].image.unwrap().bytes, [1; 100]);
    assert_eq!(DecodedRecord::restore_image(&decoded.blocks[0], Lsn(64)), None);
}

#[test]
fn long_main_data_and_none_at_all() {
    let data = vec![7; 70_000];
    let bytes = record(&main_data_payload(&data));
    assert_eq!(DecodedRecord::decode(&bytes).unwrap().main_data, data);
    let bytes = record(&[]);
    assert_eq!(DecodedRecord::decode(&bytes).unwrap().main_data, b"");
}

#[test]
fn contradictions_are_errors() {
    let hole = |info, offset, length| {
        let mut payload = block(0, HAS_IMAGE, 0, &image_header(length, offset, info), 0);
        payload.extend(vec![1; usize::from(length)]);
        decode_error(&payload)
    };
    assert!(hole(IMAGE_HAS_HOLE, 0, 8000).contains("hole"));
    assert!(hole(IMAGE_HAS_HOLE, 40, 8192).contains("hole"));
    assert!(hole(0, 40, 8192).contains("hole"));
    assert!(hole(0, 0, 8000).contains("hole"));
    assert!(hole(IMAGE_HAS_HOLE, 8100, 8000).contains("outside"));
    assert!(hole(0, 0, 9000).contains("longer"));
    assert!(hole(4, 0, 8192).contains("longer"));

    assert!(decode_error(&block(0, SAME_REL, 0, &[], 1)).contains("no relation"));
    assert!(decode_error(&block(0, 0, 0, &[], u32::MAX)).contains("no block has"));
    assert!(decode_error(&block(0, 7, 0, &[], 1)).contains("fork"));
    assert!(decode_error(&block(0, HAS_DATA, 0, &[], 1)).contains("contradicts"));
    assert!(decode_error(&block(0, 0, 3, &[], 1)).contains("contradicts"));
    assert!(decode_error(&[block(1, 0, 0, &[], 1), block(1, 0, 0, &[], 1)].concat()).contains("order"));
    assert!(decode_error(&[100, 0, 0]).contains("unknown kind"));
    assert!(decode_error(&[BLOCK_ID_DATA_SHORT, 9, 1, 2]).contains("shorter"));
    assert!(decode_error(&[BLOCK_ID_DATA_SHORT, 1, 1, 2]).contains("shorter"));
    assert!(decode_error(&[BLOCK_ID_DATA_LONG, 255, 255, 255, 255, 2]).contains("shorter"));

    let mut bytes = record(&[]);
    bytes.push(0);
    assert!(DecodedRecord::decode(&bytes).unwrap_err().0.contains("length"));
    assert!(DecodedRecord::decode(&[]).is_err());
}

#[test]
fn noise_never_panics() {
    let mut payload = block(0, WILL_INIT | HAS_DATA, 3, &[], 7);
    payload.extend(block(2, SAME_REL | HAS_IMAGE, 0, &image_header(60, 40, IMAGE_HAS_HOLE | IMAGE_APPLY), 9));
    payload.extend([BLOCK_ID_DATA_SHORT, 4]);
    payload.extend([9; 67]);
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    for round in 0..200_000u32 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut bytes = record(&payload);
        for change in 0..(round % 4) {
            let at = 24 + (seed >> (change * 16)) as usize % (bytes.len() - 24);
            bytes[at] = (seed >> (change * 8)) as u8;
        }
        if let Ok(decoded) = DecodedRecord::decode(&bytes) {
            for block in &decoded.blocks {
                let _ = DecodedRecord::restore_image(block, Lsn(8));
            }
        }
    }
}
