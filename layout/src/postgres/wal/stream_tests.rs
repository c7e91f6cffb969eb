//! Tests of `stream`: every way a record can lie on pages and segments.

use super::*;
use crate::postgres::wal::build::{WalWriter, main_data_payload};
use crate::postgres::wal::page_header::{PageHeader, PageHeaderError};

const SYSTEM_ID: u64 = 0x1122_3344;
const LOGICAL_MESSAGE: u8 = Rmgr::LogicalMessage as u8;

fn payload(length: usize) -> Vec<u8> {
    main_data_payload(&(0..length).map(|i| (i % 251) as u8 + 1).collect::<Vec<_>>())
}

/// All records of `bytes`, fed in pieces of `piece` bytes, as (start, end, bytes).
fn read_all(start: Lsn, bytes: &[u8], piece: usize, verify: Verify) -> Result<Vec<(Lsn, Lsn, Vec<u8>)>, WalError> {
    let mut stream = WalStream::new(start, verify).with_system_id(SYSTEM_ID);
    let mut records = Vec::new();
    for part in bytes.chunks(piece) {
        stream.feed(stream.position(), part)?;
        while let Next::Record(record) = stream.next_record()? {
            records.push((record.start, record.end, record.bytes.to_vec()));
        }
        assert!(stream.record_end() <= stream.position());
        assert_eq!(stream.prev(), records.last().map(|record| record.0));
    }
    Ok(records)
}

/// Starts at every 8-aligned offset near the end of a page or of a segment, with records that do and do not cross it.
#[test]
fn records_are_found_wherever_they_lie_around_boundaries() {
    for boundary in [0x1002000u64, 0x2000000] {
        for start in ((boundary - 96)..=(boundary + 96)).step_by(8).map(Lsn) {
            if start.record_start() != start && start.page_offset() != 0 || (1..=32).contains(&start.segment_offset()) {
                continue;
            }
            if (1..=16).contains(&start.page_offset()) {
                continue;
            }
            for first in [0, 1, 8, 40, 90, 200, 8150, 8200, 20_000] {
                let mut writer = WalWriter::new(start, Lsn(0x1000028), SYSTEM_ID);
                let mut expected = Vec::new();
                for length in [first, 3, 70] {
                    expected.push(writer.append(LOGICAL_MESSAGE, 0, 9, &payload(length)));
                }
                for (piece, verify) in [(1 << 20, Verify::Crc), (512, Verify::Crc), (8192, Verify::Headers)] {
                    let records = read_all(writer.start(), writer.bytes(), piece, verify).unwrap();
                    let found: Vec<_> = records.iter().map(|record| (record.0, record.1)).collect();
                    assert_eq!(found, expected, "start {start}, first {first}, pieces of {piece}");
                    if verify == Verify::Crc {
                        assert!(records[0].2[RECORD_HEADER_SIZE..] == payload(first));
                    } else {
                        assert!(records.iter().all(|record| record.2.len() == RECORD_HEADER_SIZE));
                    }
                }
            }
        }
    }
}

#[test]
fn pieces_of_one_byte_give_the_same_records() {
    let mut writer = WalWriter::new(Lsn(0x1FFFF00), Lsn(0x1000028), SYSTEM_ID);
    let expected: Vec<_> = [5, 300, 9000, 2].map(|length| writer.append(LOGICAL_MESSAGE, 0, 9, &payload(length))).into();
    for verify in [Verify::Crc, Verify::Headers] {
        let records = read_all(writer.start(), writer.bytes(), 1, verify).unwrap();
        assert_eq!(records.iter().map(|record| (record.0, record.1)).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_record_that_ends_with_its_page_ends_there_and_the_next_starts_behind_the_header() {
    let page = Lsn(0x1002000);
    let mut writer = WalWriter::new(page + 0x1F00, page, SYSTEM_ID);
    let first = writer.append(LOGICAL_MESSAGE, 0, 0, &payload(0x100 - 24 - 2));
    assert_eq!(first.1, page + 0x2000);
    let second = writer.append(LOGICAL_MESSAGE, 0, 0, &payload(4));
    assert_eq!(second.0, page + 0x2018);
    let records = read_all(writer.start(), writer.bytes(), 4096, Verify::Crc).unwrap();
    assert_eq!((records[0].1, records[1].0), (first.1, second.0));
}

#[test]
fn a_segment_switch_ends_at_the_end_of_its_segment() {
    let mut writer = WalWriter::new(Lsn(0x1FF0000), Lsn(0x1000028), SYSTEM_ID);
    let switch = writer.append(Rmgr::Xlog as u8, xlog::SWITCH, 0, &[]);
    let next = writer.append(LOGICAL_MESSAGE, 0, 0, &payload(4));
    assert_eq!((switch.1, next.0), (Lsn(0x2000000), Lsn(0x2000028)));
    for piece in [7, 4096, 1 << 20] {
        for verify in [Verify::Crc, Verify::Headers] {
            let records = read_all(writer.start(), writer.bytes(), piece, verify).unwrap();
            assert_eq!(records.iter().map(|record| (record.0, record.1)).collect::<Vec<_>>(), [switch, next]);
        }
    }
    // It counts only once the zeros up to the segment's end are there.
    let records = read_all(writer.start(), &writer.bytes()[..0xFFF8], 4096, Verify::Headers).unwrap();
    assert_eq!(records.len(), 0);
}

#[test]
fn zeros_are_the_end_of_wal_wherever_they_begin() {
    let mut writer = WalWriter::new(Lsn(0x1FFFF00), Lsn(0x1000028), SYSTEM_ID);
    let first = writer.append(LOGICAL_MESSAGE, 0, 9, &payload(64));
    let second = writer.append(LOGICAL_MESSAGE, 0, 9, &payload(20_000));
    for kept in [first.1.since(writer.start()) as usize, 0x100, 0x100 + 8192, 0x100 + 2 * 8192] {
        let mut bytes = writer.bytes()[..kept].to_vec();
        bytes.resize(0x100 + 3 * 8192, 0);
        for verify in [Verify::Crc, Verify::Headers] {
            let mut stream = WalStream::new(writer.start(), verify).with_prev(Lsn(0x1000028));
            stream.feed(writer.start(), &bytes).unwrap();
            assert!(matches!(stream.next_record(), Ok(Next::Record(record)) if record.end == first.1));
            assert_eq!(stream.next_record(), Ok(Next::EndOfWal));
            assert_eq!(stream.next_record(), Ok(Next::EndOfWal));
            assert_eq!(stream.record_end(), first.1);
            stream.rewind();
            assert_eq!(stream.position(), first.1);
            stream.feed(first.1, &writer.bytes()[first.1.since(writer.start()) as usize..]).unwrap();
            assert!(matches!(stream.next_record(), Ok(Next::Record(record)) if record.end == second.1));
        }
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_noticed() {
    let mut writer = WalWriter::new(Lsn(0x1001FC0), Lsn(0x1000028), SYSTEM_ID);
    let record = writer.append(LOGICAL_MESSAGE, 0x00, 9, &payload(200));
    let last = record.0.since(writer.start()) as usize + 24 + 2 + 200 + 24;
    for at in 0..last {
        // A page header's padding, timeline zero bytes and the removable flag carry nothing.
        let in_page_header = (64..88).contains(&at);
        if in_page_header && (at >= 84 || at == 66) {
            continue;
        }
        let mut bytes = writer.bytes().to_vec();
        bytes[at] ^= 0x40;
        let mut stream = WalStream::new(writer.start(), Verify::Crc).with_prev(Lsn(0x1000028));
        stream.feed(writer.start(), &bytes).unwrap();
        let first = stream.next_record().map(|_| ());
        let again = stream.next_record().map(|_| ());
        assert_eq!(first, again, "byte {at}");
        assert!(first.is_err(), "byte {at}");
    }
}

#[test]
fn the_chain_of_prev_links_is_checked() {
    let mut writer = WalWriter::new(Lsn(0x1002100), Lsn(0x1002000), SYSTEM_ID);
    let first = writer.append(LOGICAL_MESSAGE, 0, 9, &payload(10));
    let read = |prev: Lsn| {
        let mut stream = WalStream::new(writer.start(), Verify::Headers).with_prev(prev);
        stream.feed(writer.start(), writer.bytes()).unwrap();
        stream.next_record().map(|next| matches!(next, Next::Record(_)))
    };
    assert_eq!(read(Lsn(0x1002000)), Ok(true));
    assert_eq!(read(Lsn::INVALID), Ok(true));
    let wrong = WalError::PrevLink { at: first.0, expected: Lsn(0x1002008), found: Lsn(0x1002000) };
    assert_eq!(read(Lsn(0x1002008)), Err(wrong));

    let mut ahead = WalWriter::new(Lsn(0x1002100), Lsn(0x1002100), SYSTEM_ID);
    ahead.append(LOGICAL_MESSAGE, 0, 9, &payload(10));
    let error = read_all(ahead.start(), ahead.bytes(), 4096, Verify::Crc).unwrap_err();
    assert_eq!(error, WalError::PrevLinkAhead { at: Lsn(0x1002100), found: Lsn(0x1002100) });
}

#[test]
fn an_overwritten_continuation_record_is_passed_over() {
    let start = Lsn(0x1003F00);
    let mut lost = WalWriter::new(start, Lsn(0x1000028), SYSTEM_ID);
    let kept = lost.append(LOGICAL_MESSAGE, 0, 9, &payload(16));
    let aborted = lost.append(LOGICAL_MESSAGE, 0, 9, &payload(20_000));
    let page = Lsn(0x1004000);
    let overwrite = |voided: Lsn, info: u8| {
        let mut writer = WalWriter::new(page, kept.0, SYSTEM_ID);
        let mut data = voided.0.to_le_bytes().to_vec();
        data.extend_from_slice(&[0; 8]);
        let record = writer.append(Rmgr::Xlog as u8, info, 0, &main_data_payload(&data));
        let mut bytes = lost.bytes()[..0x100].to_vec();
        bytes.extend_from_slice(writer.bytes());
        bytes[0x102] = 8;
        (record, bytes)
    };
    let (record, bytes) = overwrite(aborted.0, xlog::OVERWRITE_CONTRECORD);
    for verify in [Verify::Crc, Verify::Headers] {
        let records = read_all(start, &bytes, 100, verify).unwrap();
        assert_eq!(records.iter().map(|record| (record.0, record.1)).collect::<Vec<_>>(), [kept, record]);
    }
    let (_, bytes) = overwrite(kept.0, xlog::OVERWRITE_CONTRECORD);
    let wrong = WalError::NotOverwrite { at: Lsn(0x1004018), overwritten: aborted.0 };
    assert_eq!(read_all(start, &bytes, 100, Verify::Crc), Err(wrong.clone()));
    let (_, bytes) = overwrite(aborted.0, xlog::NOOP);
    assert_eq!(read_all(start, &bytes, 100, Verify::Headers), Err(wrong));
}

#[test]
fn wrong_pages_are_named() {
    let mut writer = WalWriter::new(Lsn(0x1003F00), Lsn(0x1000028), SYSTEM_ID);
    let record = writer.append(LOGICAL_MESSAGE, 0, 9, &payload(9000)).0;
    let with = |at: usize, value: u8| {
        let mut bytes = writer.bytes().to_vec();
        bytes[at] = value;
        read_all(writer.start(), &bytes, 1 << 20, Verify::Headers).unwrap_err()
    };
    let page = Lsn(0x1004000);
    assert_eq!(with(0x102, 0), WalError::MissingContinuation { at: page, record });
    assert!(matches!(with(0x110, 0), WalError::ContinuationLength { at, .. } if at == page));
    assert_eq!(with(0x100, 9), WalError::PageHeader { at: page, error: PageHeaderError::Magic(0xD109) });
    let mut short = writer.bytes().to_vec();
    short[..2].copy_from_slice(&[23, 0]);
    assert_eq!(read_all(writer.start(), &short, 64, Verify::Headers), Err(WalError::RecordLength { at: record, length: 23 }));
    assert_eq!(with(17, 22), WalError::ResourceManager { at: record, rmid: 22 });

    // A page that continues a record where none was begun.
    let mut bytes = Vec::new();
    PageHeader::write(page, 12, 0, SYSTEM_ID, &mut bytes);
    bytes.resize(8192, 1);
    assert_eq!(read_all(page, &bytes, 8192, Verify::Headers), Err(WalError::UnexpectedContinuation { at: page }));

    let mut stream = WalStream::new(page, Verify::Crc);
    let gap = WalError::NotContiguous { expected: page, got: page + 8 };
    assert_eq!(stream.feed(page + 8, &[0; 8]), Err(gap));
}

#[test]
fn noise_never_panics() {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut writer = WalWriter::new(Lsn(0x1FFE000), Lsn(0x1000028), SYSTEM_ID);
    for length in [10, 300, 9000, 50, 20_000] {
        writer.append(LOGICAL_MESSAGE, 0, 9, &payload(length));
    }
    for _ in 0..3000 {
        let mut bytes = writer.bytes().to_vec();
        for _ in 0..(noise() % 5) {
            let at = noise() as usize % bytes.len();
            bytes[at] = noise() as u8;
        }
        let verify = if noise() % 2 == 0 { Verify::Crc } else { Verify::Headers };
        let _ = read_all(writer.start(), &bytes, 1 + noise() as usize % 9000, verify);
    }
}
