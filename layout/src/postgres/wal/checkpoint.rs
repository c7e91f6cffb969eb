//! A shutdown checkpoint where a stock Postgres looks for one, so that it starts at any record end.

use super::build::{WalWriter, main_data_payload};
use super::page_header::{PageHeader, PageHeaderError};
use crate::lsn::{Lsn, WAL_SEGMENT_SIZE, segment_file_name};
use crate::postgres::control::{CheckPoint, ControlFile, state};
use crate::postgres::rmgr::{Rmgr, xlog};
use zerocopy::little_endian::{I32, U32, U64};

/// The WAL a data directory starts with: a shutdown checkpoint right behind a record end, and what leads up to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointWal {
    /// Start of the checkpoint's record: what pg_control must name, and its redo.
    pub start: Lsn,
    /// Its end.
    pub end: Lsn,
    /// The checkpoint as written.
    pub checkpoint: CheckPoint,
    /// Whole segments by number: one, or two where the record or the WAL before it crosses into the next.
    pub segments: Vec<(u64, Vec<u8>)>,
}

/// The WAL before the checkpoint does not lead up to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointWalError {
    #[error("{0} is not a record end: it is unaligned, 0, or lies inside a page header")]
    NotARecordEnd(Lsn),
    #[error("{length} bytes of WAL before {at} do not begin at a WAL page and reach from the start of {at}'s page")]
    Prefix { at: Lsn, length: usize },
    #[error("WAL page {at} before the checkpoint: {error}")]
    PageHeader { at: Lsn, error: PageHeaderError },
}

impl CheckpointWal {
    /// Writes a shutdown checkpoint at `at.record_start()`.
    ///
    /// `at` is a record end, `prev` the start of the record that ends there, `prefix` the bytes of WAL
    /// before `at`, from a WAL page boundary on. They reach at least from the start of the page `at` lies in; they may
    /// be empty if `at` is a page boundary. More of them let pg_waldump read across. Of `checkpoint`, `redo`,
    /// the timelines and `oldest_active_xid` are filled in.
    pub fn fabricate(
        at: Lsn,
        prev: Lsn,
        checkpoint: &CheckPoint,
        system_id: u64,
        prefix: &[u8],
    ) -> Result<CheckpointWal, CheckpointWalError> {
        if !at.is_valid() || at.align_up() != at || at.to_record_end() != at || is_inside_page_header(at) {
            return Err(CheckpointWalError::NotARecordEnd(at));
        }
        let first = Lsn(at.0.saturating_sub(prefix.len() as u64));
        if first.page_offset() != 0 || first > at.page_start() || prefix.len() as u64 > at.0 {
            return Err(CheckpointWalError::Prefix { at, length: prefix.len() });
        }
        if at.page_offset() != 0 {
            let page = at.page_start();
            let header = prefix.get(page.since(first) as usize..).unwrap_or_default();
            PageHeader::read(page, header, Some(system_id))
                .map_err(|error| CheckpointWalError::PageHeader { at: page, error })?;
        }

        let start = at.record_start();
        let mut checkpoint = *checkpoint;
        checkpoint.redo = U64::new(start.0);
        checkpoint.timeline = U32::new(1);
        checkpoint.previous_timeline = U32::new(1);
        checkpoint.oldest_active_xid = U32::ZERO;
        let mut writer = WalWriter::new(at, prev, system_id);
        let payload = main_data_payload(&checkpoint.to_bytes());
        let (_, end) = writer.append(Rmgr::Xlog as u8, xlog::CHECKPOINT_SHUTDOWN, 0, &payload);

        let mut segments = Vec::new();
        for segment in first.segment()..=Lsn(end.0 - 1).segment() {
            let segment_start = Lsn(segment * WAL_SEGMENT_SIZE);
            let mut bytes = Vec::with_capacity(WAL_SEGMENT_SIZE as usize);
            // Readers check a segment's first page whatever page they want (ReadPageInternal, xlogreader.c).
            PageHeader::write(segment_start, 0, 0, system_id, &mut bytes);
            bytes.resize(WAL_SEGMENT_SIZE as usize, 0);
            overlay(&mut bytes, segment_start, first, prefix);
            overlay(&mut bytes, segment_start, at, writer.bytes());
            segments.push((segment, bytes));
        }
        Ok(CheckpointWal { start, end, checkpoint, segments })
    }

    /// `control` as it is after a clean shutdown with this checkpoint.
    pub fn control(&self, control: &ControlFile) -> ControlFile {
        let mut control = *control;
        control.state = I32::new(state::SHUTDOWNED);
        control.checkpoint = U64::new(self.start.0);
        control.checkpoint_copy = self.checkpoint;
        control.time = self.checkpoint.time;
        control.min_recovery_point = U64::ZERO;
        control.min_recovery_point_timeline = U32::ZERO;
        control.backup_start_point = U64::ZERO;
        control.backup_end_point = U64::ZERO;
        control.backup_end_required = 0;
        control
    }

    /// File names and contents for pg_wal.
    pub fn files(&self) -> impl Iterator<Item = (String, &[u8])> {
        self.segments.iter().map(|(segment, bytes)| (segment_file_name(*segment), bytes.as_slice()))
    }
}

/// No record ends inside or right behind a page header.
fn is_inside_page_header(at: Lsn) -> bool {
    at.page_offset() != 0 && at.page_offset() <= at.page_start().header_size_here()
}

/// Copies the part of `bytes`, which begin at `at`, that lies in the segment.
fn overlay(segment: &mut [u8], segment_start: Lsn, at: Lsn, bytes: &[u8]) {
    let skip = segment_start.since(at) as usize;
    let to = at.since(segment_start) as usize;
    let (Some(bytes), Some(target)) = (bytes.get(skip..), segment.get_mut(to..)) else {
        return;
    };
    let length = bytes.len().min(target.len());
    if let (Some(target), Some(bytes)) = (target.get_mut(..length), bytes.get(..length)) {
        target.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::WAL_PAGE_SIZE;
    use crate::postgres::control::tests::sample;
    use crate::postgres::wal::{Next, Verify, WalStream};

    const SYSTEM_ID: u64 = 0x1122_3344_5566_7788;

    /// WAL whose last record ends at `end`: (bytes from a page boundary on, start of the last record).
    pub(super) fn wal_up_to(end: Lsn) -> (Vec<u8>, Lsn) {
        let from = Lsn(end.0.saturating_sub(3 * WAL_PAGE_SIZE)).page_start();
        let mut writer = WalWriter::new(from, Lsn(from.0 - 64), SYSTEM_ID);
        loop {
            let start = writer.position().record_start();
            let mut left = end.since(start);
            left -= if end.page_start() > start && end.page_offset() > 0 { end.page_start().header_size_here() } else { 0 };
            // A record with d bytes of main data is 26 + d bytes long; leave room for one more, or end exactly.
            let length = if left <= 280 { left } else { 120 };
            let (_, at) = writer.append(Rmgr::Xlog as u8, xlog::NOOP, 0, &main_data_payload(&vec![3; length as usize - 26]));
            if at == end {
                return (writer.bytes().to_vec(), writer.prev());
            }
            assert!(at < end, "{at} passed {end}");
        }
    }

    #[test]
    fn the_stream_reads_across_it_at_every_offset() {
        for boundary in [0x3002000u64, 0x4000000] {
            let around = (boundary - 200..=boundary + 200).step_by(8);
            for at in around.map(Lsn).filter(|at| at.page_offset() == 0 || at.page_offset() > 64) {
                let (prefix, prev) = wal_up_to(at);
                let wal = CheckpointWal::fabricate(at, prev, &sample().checkpoint_copy, SYSTEM_ID, &prefix).unwrap();
                assert_eq!(wal.start, at.record_start());
                let first = Lsn(at.0 - prefix.len() as u64);
                let mut stream = WalStream::new(first, Verify::Crc).with_system_id(SYSTEM_ID);
                let mut last = None;
                for (segment, bytes) in &wal.segments {
                    assert_eq!(bytes.len() as u64, WAL_SEGMENT_SIZE);
                    let skip = stream.position().since(Lsn(segment * WAL_SEGMENT_SIZE)) as usize;
                    stream.feed(stream.position(), &bytes[skip..]).unwrap();
                    while let Next::Record(record) = stream.next_record().unwrap() {
                        last = Some((record.start, record.end, record.bytes.to_vec()));
                    }
                }
                let (start, end, bytes) = last.unwrap();
                assert_eq!((start, end), (wal.start, wal.end), "at {at}");
                let record = crate::postgres::wal::DecodedRecord::decode(&bytes).unwrap();
                assert_eq!(CheckPoint::read(record.main_data), Some(wal.checkpoint));
                assert_eq!(wal.checkpoint.redo.get(), start.0);
            }
        }
    }

    #[test]
    fn what_does_not_lead_up_to_it_is_refused() {
        let at = Lsn(0x3002100);
        let (prefix, prev) = wal_up_to(at);
        let make = |at: Lsn, prefix: &[u8]| {
            CheckpointWal::fabricate(at, prev, &sample().checkpoint_copy, SYSTEM_ID, prefix).map(|wal| wal.segments.len())
        };
        assert_eq!(make(at, &prefix), Ok(2));
        assert_eq!(make(at + 1, &prefix), Err(CheckpointWalError::NotARecordEnd(at + 1)));
        for inside in [Lsn(0x3002008), Lsn(0x3002018), Lsn(0x3000028), Lsn(0)] {
            assert_eq!(make(inside, &[]), Err(CheckpointWalError::NotARecordEnd(inside)));
        }
        assert!(matches!(make(at, &[]), Err(CheckpointWalError::Prefix { .. })));
        assert!(matches!(make(at, &prefix[8..]), Err(CheckpointWalError::Prefix { .. })));
        let zeros = vec![0; prefix.len()];
        assert!(matches!(make(at, &zeros), Err(CheckpointWalError::PageHeader { .. })));
        assert_eq!(make(Lsn(0x4000000), &[]), Ok(1));
    }

    /// pg_waldump's own reading of a fabricated segment: where the checkpoint's record lies, and what is before it.
    // The test drives a program of Postgres; the crate itself has no I/O.
    #[allow(clippy::disallowed_methods)]
    fn waldump(program: &std::path::Path, dir: &std::path::Path, prev: Lsn, wal: &CheckpointWal) -> String {
        use std::os::unix::fs::FileExt;
        let mut paths = Vec::new();
        for (name, bytes) in wal.files() {
            let path = dir.join(name);
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            for (index, page) in bytes.chunks(WAL_PAGE_SIZE as usize).enumerate() {
                if page != [0; WAL_PAGE_SIZE as usize] {
                    file.write_all_at(page, index as u64 * WAL_PAGE_SIZE).unwrap();
                }
            }
            paths.push(path);
        }
        let (start, end) = (prev.to_string(), wal.end.to_string());
        let first = dir.join(prev.segment_file_name());
        let last = dir.join(Lsn(wal.end.0 - 1).segment_file_name());
        let mut command = std::process::Command::new(program);
        let output = command.args(["-s", &start, "-e", &end]).arg(first).arg(last).output().unwrap();
        paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        assert!(output.status.success(), "{prev}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn pg_waldump_reads_it_all_over_a_page_and_across_a_segment() {
        let bindir = std::process::Command::new("pg_config").arg("--bindir").output().expect("Postgres 15 is needed");
        let program = std::path::Path::new(String::from_utf8(bindir.stdout).unwrap().trim()).join("pg_waldump");
        let dir = std::env::temp_dir().join(format!("ironpage-checkpoint-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        // Every offset near the ends of the page, where records cross; some between.
        let page = (0x3004000..0x3006000u64).step_by(8).filter(|at| at % 64 == 0 || !(256..7936).contains(&(at % 8192)));
        let segment = (0x4000000 - 256..0x4000000u64).step_by(8);
        for at in page.chain(segment).map(Lsn).filter(|at| at.page_offset() == 0 || at.page_offset() > 64) {
            let (prefix, prev) = wal_up_to(at);
            let wal = CheckpointWal::fabricate(at, prev, &sample().checkpoint_copy, SYSTEM_ID, &prefix).unwrap();
            let text = waldump(&program, &dir, prev, &wal);
            let lines: Vec<&str> = text.lines().collect();
            let place = |lsn: Lsn, prev: Lsn| {
                let padded = |lsn: Lsn| format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 as u32);
                format!("lsn: {}, prev {}", padded(lsn), padded(prev))
            };
            assert_eq!(lines.len(), 2, "at {at}: {text}");
            assert!(lines[0].contains("NOOP"), "at {at}: {text}");
            assert!(lines[1].contains(&place(wal.start, prev)) && lines[1].contains("CHECKPOINT_SHUTDOWN"), "at {at}: {text}");
        }
        std::fs::remove_dir(&dir).unwrap();
    }
}
