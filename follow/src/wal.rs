//! WAL in memory: the newest part of what was received, for safekeepers that do not have it yet and for the next
//! comparison with the source.

use ironpage_layout::Lsn;
use ironpage_layout::lsn::WAL_PAGE_SIZE;
use ironpage_layout::postgres::wal::{Next, Verify, WalStream};

/// What is kept behind the commit position, for safekeepers that lag a little.
const KEPT_BYTES: u64 = 32 << 20;

/// A run of WAL that grows at its end.
#[derive(Debug)]
pub struct WalLog {
    start: Lsn,
    bytes: Vec<u8>,
}

impl WalLog {
    pub fn new(start: Lsn) -> WalLog {
        WalLog { start, bytes: Vec::new() }
    }

    pub fn start(&self) -> Lsn {
        self.start
    }

    pub fn end(&self) -> Lsn {
        self.start + self.bytes.len() as u64
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `length` bytes from `begin` on; `None` if they are not all here.
    pub fn get(&self, begin: Lsn, length: usize) -> Option<&[u8]> {
        if begin < self.start {
            return None;
        }
        let from = begin.since(self.start) as usize;
        self.bytes.get(from..from.checked_add(length)?)
    }

    /// Forgets what nobody is likely to ask for: far before `commit`, and before the segment at our end.
    pub fn trim(&mut self, commit: Lsn) {
        let keep = Lsn(commit.0.saturating_sub(KEPT_BYTES)).min(self.end().segment_start());
        // By halves, so that the copying stays small beside the receiving.
        if keep.since(self.start) > KEPT_BYTES {
            self.bytes.drain(..keep.since(self.start) as usize);
            self.start = keep;
        }
    }
}

/// Start of the last record that ends at `end`, from the WAL before it, which begins at `from`: a record end, or the start
/// of a WAL page. `None` if no record begins in it, or none ends at `end`.
pub fn last_record(from: Lsn, bytes: &[u8], end: Lsn) -> Option<Lsn> {
    let first = if from.page_offset() == 0 { first_record(from, bytes)? } else { from };
    let mut stream = WalStream::new(first, Verify::Headers);
    let begin = stream.position();
    stream.feed(begin, bytes.get(begin.since(from) as usize..end.since(from) as usize)?).ok()?;
    while let Ok(Next::Record(_)) = stream.next_record() {}
    stream.prev().filter(|_| stream.record_end() == end)
}

/// Where the first record that begins in `bytes` does: behind the rest of one that began before `from`, a page start.
fn first_record(from: Lsn, bytes: &[u8]) -> Option<Lsn> {
    // XLogPageHeaderData: xlp_rem_len stands at 16.
    let remaining = |page: Lsn| {
        let field = bytes.get(page.since(from) as usize + 16..)?.first_chunk::<4>()?;
        Some(u64::from(u32::from_le_bytes(*field)))
    };
    let (mut page, mut left) = (from, remaining(from)?);
    if left == 0 {
        return Some(from);
    }
    loop {
        let body = WAL_PAGE_SIZE - page.header_size_here();
        if left < body {
            return Some((page + page.header_size_here() + left).align_up());
        }
        left -= body;
        page = page + WAL_PAGE_SIZE;
        if left == 0 {
            return Some(page);
        }
        if remaining(page)? != left {
            // The record was given up after a crash: the page begins another.
            return Some(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
    use ironpage_layout::postgres::wal::build::{WalWriter, main_data_payload};

    #[test]
    fn the_last_record_is_found_from_a_segment_start_in_the_middle_of_one() {
        let start = Lsn(3 * WAL_SEGMENT_SIZE - 5000);
        let start = start.align_up();
        let mut writer = WalWriter::new(start, Lsn(start.0 - 64), 7);
        let mut records = Vec::new();
        for length in [20_000, 30, 9000, 40] {
            records.push(writer.append(10, 0, 0, &main_data_payload(&vec![1; length])));
        }
        let from = Lsn(3 * WAL_SEGMENT_SIZE);
        let bytes = &writer.bytes()[from.since(start) as usize..];
        for (record, end) in &records[1..] {
            assert_eq!(last_record(from, bytes, *end), Some(*record));
        }
        // The record that crosses the segment's start does not begin in it.
        assert_eq!(last_record(from, bytes, records[0].1), None);
        assert_eq!(
            last_record(records[0].1, &writer.bytes()[records[0].1.since(start) as usize..], records[2].1),
            Some(records[2].0)
        );
    }

    #[test]
    fn a_log_keeps_the_segment_it_ends_in_and_what_lags() {
        let mut log = WalLog::new(Lsn(WAL_SEGMENT_SIZE));
        for _ in 0..100 {
            log.append(&vec![7; 1 << 20]);
        }
        log.trim(Lsn(WAL_SEGMENT_SIZE));
        assert_eq!(log.start(), Lsn(WAL_SEGMENT_SIZE), "nothing is committed");
        log.trim(log.end());
        assert_eq!(log.start(), Lsn(log.end().0 - KEPT_BYTES));
        assert!(log.get(log.start(), 10).is_some() && log.get(Lsn(WAL_SEGMENT_SIZE), 1).is_none());
        assert!(log.get(log.end(), 0).is_some() && log.get(log.end(), 1).is_none());
    }
}
