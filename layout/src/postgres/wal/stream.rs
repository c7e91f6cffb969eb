//! Records out of a stream of WAL bytes, across page and segment boundaries (xlogreader.c).
//!
//! Bytes go in with [`WalStream::feed`] in pieces of any length; whole records come out of
//! [`WalStream::next_record`]. A record is reported once all bytes up to its end are there, its
//! alignment included, so `record_end` is always a position a follower of this WAL may stop at.

use super::page_header::{FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, PageHeader, PageHeaderError};
use super::{MAX_RECORD_SIZE, RECORD_HEADER_SIZE};
use crate::crc::{crc32c, crc32c_append};
use crate::lsn::{Lsn, WAL_PAGE_SIZE, WAL_SEGMENT_SIZE};
use crate::postgres::rmgr::{RM_MIN_CUSTOM_ID, RMGR_INFO_MASK, Rmgr, xlog};

/// How much of a record is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// All that Postgres checks: page headers, record headers, prev links, the CRC of each record.
    Crc,
    /// The same without the CRC; bodies are passed over, and `Record::bytes` is the header alone.
    Headers,
}

/// One whole record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Where its header begins: the LSN the next record's prev link names.
    pub start: Lsn,
    /// Its last byte rounded up to 8; the segment's end for a segment switch. No page header that may follow is skipped.
    pub end: Lsn,
    /// The record without page headers, as long as its xl_tot_len; with `Verify::Headers` its first 24 bytes.
    pub bytes: &'a [u8],
}

/// What comes next in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next<'a> {
    Record(Record<'a>),
    /// More bytes are needed to tell.
    NeedBytes,
    /// Zeros where a record, or the rest of one, should be: WAL ends at `record_end`. The stream does not move on.
    EndOfWal,
}

/// The bytes are not the WAL that should be here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    #[error("WAL from {got} was fed where {expected} is next")]
    NotContiguous { expected: Lsn, got: Lsn },
    #[error("WAL page {at}: {error}")]
    PageHeader { at: Lsn, error: PageHeaderError },
    #[error("WAL page {at} continues a record, but none began before it")]
    UnexpectedContinuation { at: Lsn },
    #[error("WAL page {at} does not continue the record that began at {record}")]
    MissingContinuation { at: Lsn, record: Lsn },
    #[error("WAL page {at} says {found} bytes are left of the record at {record}, which has {expected} left")]
    ContinuationLength { at: Lsn, record: Lsn, expected: u32, found: u32 },
    #[error("record at {at} claims a length of {length} bytes; 24 to {MAX_RECORD_SIZE} are possible")]
    RecordLength { at: Lsn, length: u32 },
    #[error("record at {at} names the resource manager {rmid}, which does not exist")]
    ResourceManager { at: Lsn, rmid: u8 },
    #[error("record at {at} names {found} as the record before it; it was {expected}")]
    PrevLink { at: Lsn, expected: Lsn, found: Lsn },
    #[error("record at {at} names {found}, not before itself, as the record before it")]
    PrevLinkAhead { at: Lsn, found: Lsn },
    #[error("record at {at} has CRC {found:#010X}, its header says {expected:#010X}")]
    Crc { at: Lsn, expected: u32, found: u32 },
    #[error("record at {at} should say that the incomplete record at {overwritten} is void")]
    NotOverwrite { at: Lsn, overwritten: Lsn },
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A record begins at `position`, behind a page header if one is there.
    Between,
    /// `got` bytes of the record at `start` were taken; the rest begins at `position`.
    Inside { start: Lsn, length: u32, got: u32 },
    /// All of the record was taken, but not yet all up to its end.
    Closing { start: Lsn, end: Lsn },
}

/// Reads the records of one timeline's WAL, in order.
#[derive(Clone, Debug)]
pub struct WalStream {
    verify: Verify,
    system_id: Option<u64>,
    buffer: Vec<u8>,
    /// Where in `buffer` the next byte to look at lies, and its LSN.
    head: usize,
    position: Lsn,
    state: State,
    /// What is here of a record that does not lie whole in `buffer`.
    record: Vec<u8>,
    record_end: Lsn,
    prev: Option<Lsn>,
    /// The record that a page marked FIRST_IS_OVERWRITE_CONTRECORD has just made void.
    overwritten: Option<Lsn>,
}

impl WalStream {
    /// A stream that begins at `start`, the end of a record (a position behind a page header is also taken).
    pub fn new(start: Lsn, verify: Verify) -> WalStream {
        let start = start.to_record_end().align_up();
        WalStream {
            verify,
            system_id: None,
            buffer: Vec::new(),
            head: 0,
            position: start,
            state: State::Between,
            record: Vec::new(),
            record_end: start,
            prev: None,
            overwritten: None,
        }
    }

    /// Sets the start of the record that ends where the stream begins, so that the first prev link is checked too.
    pub fn with_prev(mut self, prev: Lsn) -> WalStream {
        self.prev = prev.is_valid().then_some(prev);
        self
    }

    /// Refuses WAL whose segment headers name another cluster.
    pub fn with_system_id(mut self, system_id: u64) -> WalStream {
        self.system_id = Some(system_id);
        self
    }

    /// LSN of the next byte to feed.
    pub fn position(&self) -> Lsn {
        Lsn(self.position.0 + (self.buffer.len() - self.head) as u64)
    }

    /// End of the last record reported, or where the stream began.
    pub fn record_end(&self) -> Lsn {
        self.record_end
    }

    /// Start of the last record reported; `None` if there was none and none was given.
    pub fn prev(&self) -> Option<Lsn> {
        self.prev
    }

    /// Forgets what was fed beyond `record_end`: the next byte to feed is the one there.
    pub fn rewind(&mut self) {
        self.buffer.clear();
        self.record.clear();
        self.head = 0;
        self.position = self.record_end;
        self.state = State::Between;
        self.overwritten = None;
    }

    /// Adds bytes that begin at `lsn`, which must be `position()`.
    pub fn feed(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<(), WalError> {
        if lsn != self.position() {
            return Err(WalError::NotContiguous { expected: self.position(), got: lsn });
        }
        if self.head == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.head);
        }
        self.head = 0;
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole record. After an error the stream stays where it is.
    pub fn next_record(&mut self) -> Result<Next<'_>, WalError> {
        loop {
            let step = match self.state {
                State::Between => self.begin_record()?,
                State::Inside { start, length, got } => self.continue_record(start, length, got)?,
                State::Closing { start, end } => {
                    let skipped = end.since(self.position).min(self.available().len() as u64);
                    self.consume(skipped as usize);
                    if self.position < end {
                        return Ok(Next::NeedBytes);
                    }
                    self.close_record(start, end);
                    return Ok(Next::Record(Record { start, end, bytes: &self.record }));
                }
            };
            match step {
                Step::Again => {}
                Step::NeedBytes => return Ok(Next::NeedBytes),
                Step::EndOfWal => return Ok(Next::EndOfWal),
                Step::InPlace { start, end, from, length } => {
                    self.close_record(start, end);
                    let bytes = self.buffer.get(from..from + length).unwrap_or_default();
                    return Ok(Next::Record(Record { start, end, bytes }));
                }
            }
        }
    }

    fn available(&self) -> &[u8] {
        self.buffer.get(self.head..).unwrap_or_default()
    }

    fn consume(&mut self, bytes: usize) {
        self.head += bytes;
        self.position = self.position + bytes as u64;
    }

    fn close_record(&mut self, start: Lsn, end: Lsn) {
        self.state = State::Between;
        self.record_end = end;
        self.prev = Some(start);
        self.overwritten = None;
    }

    fn begin_record(&mut self) -> Result<Step, WalError> {
        let at = self.position;
        let header_size = at.header_size_here() as usize;
        let Some(header) = self.available().get(..header_size) else {
            return Ok(Step::NeedBytes);
        };
        if header_size > 0 {
            if is_zero(header) {
                return Ok(Step::EndOfWal);
            }
            let header = PageHeader::read(at, header, self.system_id).map_err(|error| WalError::PageHeader { at, error })?;
            if header.has(FIRST_IS_CONTRECORD) {
                return Err(WalError::UnexpectedContinuation { at });
            }
        }
        let start = at + header_size as u64;
        let room = (WAL_PAGE_SIZE - start.page_offset()) as usize;
        // Records are aligned, so at least the length stands on this page.
        let Some(head) = self.available().get(header_size..header_size + room.min(RECORD_HEADER_SIZE)) else {
            return Ok(Step::NeedBytes);
        };
        let length = word(head, 0);
        if length == 0 && is_zero(head) {
            return Ok(Step::EndOfWal);
        }
        if (length as usize) < RECORD_HEADER_SIZE || length > MAX_RECORD_SIZE {
            return Err(WalError::RecordLength { at: start, length });
        }
        if head.len() == RECORD_HEADER_SIZE {
            self.check_record_header(start, head)?;
        }
        let length_here = length as usize;
        let aligned = (length_here + 7) & !7;
        let whole = self.available().get(header_size..header_size + length_here);
        let in_place = whole
            .filter(|bytes| length_here <= room && self.available().len() >= header_size + aligned && !is_segment_switch(bytes));
        if let Some(bytes) = in_place {
            self.check_record(start, bytes)?;
            let from = self.head + header_size;
            let length = if self.verify == Verify::Crc { length_here } else { RECORD_HEADER_SIZE };
            self.consume(header_size + aligned);
            return Ok(Step::InPlace { start, end: self.position, from, length });
        }
        self.consume(header_size);
        self.record.clear();
        self.state = State::Inside { start, length, got: 0 };
        Ok(Step::Again)
    }

    fn continue_record(&mut self, start: Lsn, length: u32, mut got: u32) -> Result<Step, WalError> {
        let at = self.position;
        let mut header_size = 0;
        if got > 0 && at.page_offset() == 0 {
            header_size = at.header_size_here() as usize;
            let Some(header) = self.available().get(..header_size) else {
                return Ok(Step::NeedBytes);
            };
            if is_zero(header) {
                return Ok(Step::EndOfWal);
            }
            let header = PageHeader::read(at, header, self.system_id).map_err(|error| WalError::PageHeader { at, error })?;
            if header.has(FIRST_IS_OVERWRITE_CONTRECORD) {
                self.overwritten = Some(start);
                self.state = State::Between;
                return Ok(Step::Again);
            }
            if !header.has(FIRST_IS_CONTRECORD) {
                return Err(WalError::MissingContinuation { at, record: start });
            }
            let (expected, found) = (length - got, header.remaining_length.get());
            if expected != found {
                return Err(WalError::ContinuationLength { at, record: start, expected, found });
            }
            // The first bytes of a page that continues a header decide whether it is one: take both or neither.
            let needed = RECORD_HEADER_SIZE.saturating_sub(got as usize);
            if self.available().len() < header_size + needed {
                return Ok(Step::NeedBytes);
            }
        }
        let body = self.available().get(header_size..).unwrap_or_default();
        let room = (WAL_PAGE_SIZE - (at + header_size as u64).page_offset()) as usize;
        let take = body.len().min(room).min((length - got) as usize);
        if take == 0 {
            return Ok(Step::NeedBytes);
        }
        let kept = match self.verify {
            Verify::Crc => take,
            Verify::Headers => take.min(RECORD_HEADER_SIZE.saturating_sub(self.record.len())),
        };
        let record_before = self.record.len();
        self.record
            .extend_from_slice(self.buffer.get(self.head + header_size..self.head + header_size + kept).unwrap_or_default());
        let had_header = record_before >= RECORD_HEADER_SIZE;
        got += take as u32;
        let checked = match self.record.first_chunk::<RECORD_HEADER_SIZE>() {
            Some(head) if !had_header => self.check_record_header(start, head),
            _ => Ok(()),
        };
        let checked = checked.and_then(|()| if got == length { self.check_record(start, &self.record) } else { Ok(()) });
        if let Err(error) = checked {
            self.record.truncate(record_before);
            return Err(error);
        }
        self.consume(header_size + take);
        self.state = State::Inside { start, length, got };
        if got == length {
            let mut end = self.position.align_up();
            if is_segment_switch(&self.record) {
                end = Lsn(end.0.next_multiple_of(WAL_SEGMENT_SIZE));
            }
            self.state = State::Closing { start, end };
        }
        Ok(Step::Again)
    }

    /// ValidXLogRecordHeader, but for the length.
    fn check_record_header(&self, at: Lsn, head: &[u8]) -> Result<(), WalError> {
        let (rmid, info) = (byte(head, 17), byte(head, 16));
        if Rmgr::from_number(rmid).is_none() && rmid < RM_MIN_CUSTOM_ID {
            return Err(WalError::ResourceManager { at, rmid });
        }
        let found = Lsn(u64::from(word(head, 8)) | u64::from(word(head, 12)) << 32);
        match self.prev {
            Some(expected) if expected != found => return Err(WalError::PrevLink { at, expected, found }),
            None if found >= at => return Err(WalError::PrevLinkAhead { at, found }),
            _ => {}
        }
        match self.overwritten {
            Some(overwritten) if rmid != Rmgr::Xlog as u8 || info & RMGR_INFO_MASK != xlog::OVERWRITE_CONTRECORD => {
                Err(WalError::NotOverwrite { at, overwritten })
            }
            _ => Ok(()),
        }
    }

    /// ValidXLogRecord: the CRC runs over the body, then over the header up to the CRC itself.
    fn check_record(&self, at: Lsn, record: &[u8]) -> Result<(), WalError> {
        if self.verify == Verify::Headers {
            return Ok(());
        }
        let (expected, found) = (word(record, 20), record_crc(record));
        if expected != found {
            return Err(WalError::Crc { at, expected, found });
        }
        // xl_overwrite_contrecord begins with the LSN of the record it voids.
        if let Some(overwritten) = self.overwritten
            && record.get(26..34) != Some(&overwritten.0.to_le_bytes()[..])
        {
            return Err(WalError::NotOverwrite { at, overwritten });
        }
        Ok(())
    }
}

enum Step {
    Again,
    NeedBytes,
    EndOfWal,
    /// A record that lies whole in the buffer, from index `from` on.
    InPlace {
        start: Lsn,
        end: Lsn,
        from: usize,
        length: usize,
    },
}

/// The CRC that belongs into the header of `record`, which is at least a header long.
pub fn record_crc(record: &[u8]) -> u32 {
    let body = record.get(RECORD_HEADER_SIZE..).unwrap_or_default();
    crc32c_append(crc32c(body), record.get(..20).unwrap_or_default())
}

fn is_segment_switch(record: &[u8]) -> bool {
    byte(record, 17) == Rmgr::Xlog as u8 && byte(record, 16) & RMGR_INFO_MASK == xlog::SWITCH
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([byte(bytes, at), byte(bytes, at + 1), byte(bytes, at + 2), byte(bytes, at + 3)])
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
