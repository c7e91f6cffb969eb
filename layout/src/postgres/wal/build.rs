//! WAL that Postgres takes for its own: records, and the pages they lie on.

use super::page_header::PageHeader;
use super::stream::record_crc;
use crate::lsn::{Lsn, WAL_PAGE_SIZE, WAL_SEGMENT_SIZE};
use crate::postgres::rmgr::{RMGR_INFO_MASK, Rmgr, xlog};

/// What the header of a record says, apart from its length and CRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    pub xid: u32,
    /// Start of the record before it.
    pub prev: Lsn,
    pub info: u8,
    pub rmid: u8,
}

/// A whole record: its header with length and CRC, and `payload`, all that follows the header.
///
/// Panics if the payload is longer than a record can be.
pub fn encode_record(head: RecordHead, payload: &[u8]) -> Vec<u8> {
    let length = super::RECORD_HEADER_SIZE + payload.len();
    assert!(length <= super::MAX_RECORD_SIZE as usize, "record of {length} bytes");
    let mut record = Vec::with_capacity(length);
    record.extend_from_slice(&(length as u32).to_le_bytes());
    record.extend_from_slice(&head.xid.to_le_bytes());
    record.extend_from_slice(&head.prev.0.to_le_bytes());
    record.extend_from_slice(&[head.info, head.rmid, 0, 0]);
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(payload);
    let crc = record_crc(&record);
    record[20..24].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The payload of a record that has main data and nothing else (XLogRecordDataHeaderShort and Long).
pub fn main_data_payload(data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(data.len() + 5);
    match u8::try_from(data.len()) {
        Ok(0) => {}
        Ok(length) => payload.extend_from_slice(&[255, length]),
        Err(_) => {
            payload.push(254);
            payload.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
    }
    payload.extend_from_slice(data);
    payload
}

/// Lays records out on WAL pages, page headers included (CopyXLogRecordToWAL, xlog.c).
#[derive(Clone, Debug)]
pub struct WalWriter {
    start: Lsn,
    bytes: Vec<u8>,
    prev: Lsn,
    system_id: u64,
}

impl WalWriter {
    /// Starts at `start`, a record end; `prev` is the start of the record that ends there.
    pub fn new(start: Lsn, prev: Lsn, system_id: u64) -> WalWriter {
        WalWriter { start: start.to_record_end().align_up(), bytes: Vec::new(), prev, system_id }
    }

    /// Where the bytes begin.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// End of the last record, or `start`.
    pub fn position(&self) -> Lsn {
        self.start + self.bytes.len() as u64
    }

    /// Start of the last record.
    pub fn prev(&self) -> Lsn {
        self.prev
    }

    /// All bytes from `start` to `position`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a record; returns where it starts and ends. A segment switch ends at its segment's end, zeros behind it.
    pub fn append(&mut self, rmid: u8, info: u8, xid: u32, payload: &[u8]) -> (Lsn, Lsn) {
        let record = encode_record(RecordHead { xid, prev: self.prev, info, rmid }, payload);
        let start = self.position().record_start();
        let mut rest = &record[..];
        while !rest.is_empty() {
            let at = self.position();
            if at.page_offset() == 0 {
                let remaining = if rest.len() == record.len() { 0 } else { rest.len() as u32 };
                PageHeader::write(at, remaining, 0, self.system_id, &mut self.bytes);
            }
            let room = (WAL_PAGE_SIZE - self.position().page_offset()) as usize;
            let (here, later) = rest.split_at(rest.len().min(room));
            self.bytes.extend_from_slice(here);
            rest = later;
        }
        let mut end = self.position().align_up();
        if rmid == Rmgr::Xlog as u8 && info & RMGR_INFO_MASK == xlog::SWITCH {
            end = Lsn(end.0.next_multiple_of(WAL_SEGMENT_SIZE));
        }
        self.bytes.resize(end.since(self.start) as usize, 0);
        self.prev = start;
        (start, end)
    }
}
