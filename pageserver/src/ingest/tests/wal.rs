//! WAL from the segment files of a stopped Postgres, and what pg_waldump says of it.

use super::scratch::Scratch;
use crate::ingest::Head;
use ironpage_layout::Lsn;
use ironpage_layout::lsn::segment_file_name;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::rmgr::{RMGR_INFO_MASK, Rmgr, rmgr_name, xlog};
use ironpage_layout::postgres::wal::{CheckpointWal, DecodedRecord, Next, Record, WalStream};
use std::path::PathBuf;

/// A record that outlives the stream's buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedRecord {
    pub start: Lsn,
    pub end: Lsn,
    pub bytes: Vec<u8>,
}

impl OwnedRecord {
    pub fn borrow(&self) -> Record<'_> {
        Record { start: self.start, end: self.end, bytes: &self.bytes }
    }

    pub fn is_shutdown_checkpoint(&self) -> bool {
        let kind = (self.bytes[17], self.bytes[16] & RMGR_INFO_MASK);
        kind == (Rmgr::Xlog as u8, xlog::CHECKPOINT_SHUTDOWN)
    }
}

pub struct Reader {
    dir: PathBuf,
}

impl Reader {
    pub fn new(dir: PathBuf) -> Reader {
        Reader { dir }
    }

    /// The next record; `None` at the end of WAL. Reads the files again from there the next time.
    pub fn next(&mut self, stream: &mut WalStream) -> Option<OwnedRecord> {
        loop {
            match stream.next_record() {
                Ok(Next::Record(record)) => {
                    return Some(OwnedRecord { start: record.start, end: record.end, bytes: record.bytes.to_vec() });
                }
                Ok(Next::NeedBytes) => {}
                Ok(Next::EndOfWal) => {
                    stream.rewind();
                    return None;
                }
                // A segment that was recycled, or zeros within a record: only at the end of WAL is the latter allowed.
                Err(error) => panic!("{error}"),
            }
            let at = stream.position();
            let Ok(segment) = std::fs::read(self.dir.join(segment_file_name(at.segment()))) else {
                stream.rewind();
                return None;
            };
            let from = at.segment_offset() as usize;
            stream.feed(at, &segment[from..segment.len().min(from + 65536)]).expect("contiguous");
        }
    }
}

/// What pg_waldump prints of a record, as far as we decode it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    rmgr: String,
    length: u32,
    xid: u32,
    lsn: Lsn,
    prev: Lsn,
    blocks: Vec<String>,
}

impl Summary {
    pub fn of(record: &DecodedRecord<'_>, at: &OwnedRecord) -> Summary {
        let block = |block: &ironpage_layout::postgres::wal::record::Block<'_>| {
            let fork = ["", " fork fsm", " fork vm", " fork init"][block.fork as usize];
            let image = if block.image.is_some() { " FPW" } else { "" };
            format!("{}: rel {}{fork} blk {}{image}", block.id, block.rel, block.block.0)
        };
        Summary {
            rmgr: rmgr_name(record.rmid).to_string(),
            length: record.bytes.len() as u32,
            xid: record.xid,
            lsn: at.start,
            prev: record.prev,
            blocks: record.blocks.iter().map(block).collect(),
        }
    }

    /// A line such as `rmgr: Heap len (rec/tot): 54/ 7054, tx: 733, lsn: 0/01500140, prev 0/01500108, desc: …, blkref #0: rel 1663/5/1259 blk 3 FPW`.
    fn parse(line: &str) -> Summary {
        let after = |label: &str| line.split(label).nth(1).unwrap_or_else(|| panic!("{line} has no {label}"));
        let number =
            |text: &str| text.trim().chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("number");
        let lsn = |text: &str| text.trim().split(',').next().and_then(|text| text.trim().parse::<Lsn>().ok()).expect("an LSN");
        let blocks = line.split("blkref #").skip(1);
        let blocks = blocks.map(|text| {
            let text = text.split(", ").next().unwrap_or(text).trim();
            let words: Vec<&str> = text.split_whitespace().collect();
            words.join(" ")
        });
        let length = after("len (rec/tot):").split('/').nth(1).expect("a total");
        Summary {
            rmgr: after("rmgr:").split_whitespace().next().expect("a name").to_string(),
            length: number(length),
            xid: number(after(", tx:")),
            lsn: lsn(after(", lsn:")),
            prev: lsn(after(", prev ")),
            blocks: blocks.collect(),
        }
    }
}

pub fn compare_with_waldump(postgres: &Scratch, start: Lsn, end: Lsn, records: &[Summary]) {
    let dir = postgres.path("pg_wal");
    let (start, last) = (start.record_start().to_string(), end.to_string());
    let text = postgres.run("pg_waldump", &["-p", dir.to_str().expect("UTF-8"), "-s", &start, "-e", &last]);
    let mut lines = text.lines();
    for record in records {
        let line = lines.next().unwrap_or_else(|| panic!("pg_waldump ends before {record:?}"));
        assert_eq!(*record, Summary::parse(line), "{line}");
    }
    assert_eq!(lines.next(), None);
}

/// Removes all WAL, puts a shutdown checkpoint where it ended, and has Postgres start from that alone.
pub fn start_from_a_fabricated_checkpoint(postgres: &Scratch, head: &Head) {
    let (at, prev) = (head.last_record_lsn(), head.prev_record_lsn());
    let control = head.control().expect("pg_control");
    let file = postgres.read(&format!("pg_wal/{}", segment_file_name(at.segment())));
    let prefix = &file[..at.segment_offset() as usize];
    let wal = CheckpointWal::fabricate(at, prev, &control.checkpoint_copy, control.system_id.get(), prefix).expect("fabricated");
    for (name, path) in super::scratch::files_in(&postgres.path("pg_wal")) {
        if name.len() == 24 {
            std::fs::remove_file(path).expect("a segment");
        }
    }
    for (name, bytes) in wal.files() {
        postgres.write(&format!("pg_wal/{name}"), bytes);
    }
    postgres.write("global/pg_control", &wal.control(control).to_file());
    postgres.start(&[("wal_level", "replica")]);
    assert_eq!(postgres.psql("postgres", "SELECT count(*) FROM pgbench_branches").trim(), "1");
    postgres.psql("postgres", "CREATE TABLE after_fabrication AS SELECT 1");
    postgres.stop();
    let control = ControlFile::read(&postgres.read("global/pg_control")).expect("pg_control");
    assert!(control.checkpoint.get() > wal.end.0);
    let (start, end) = (prev.to_string(), Lsn(control.checkpoint.get()).to_string());
    // Named, because pg_waldump takes the segment size from whatever file of a directory it finds first.
    let segment = postgres.path(&format!("pg_wal/{}", prev.segment_file_name()));
    let text = postgres.run("pg_waldump", &["-s", &start, "-e", &end, segment.to_str().expect("UTF-8")]);
    let lines: Vec<Summary> = text.lines().map(Summary::parse).collect();
    assert_eq!((lines[0].lsn, lines[1].lsn, lines[1].prev), (prev, wal.start, prev));
    assert!(lines.len() > 10);
}
