//! The WAL a scratch cluster wrote.

use crate::scratch::Scratch;
use ironpage_layout::Lsn;
use ironpage_layout::postgres::wal::{Next, Verify, WalStream};

/// The WAL of the workload.
pub struct Wal {
    pub start: Lsn,
    /// Start of the record that ends at `start`.
    pub prev: Lsn,
    pub end: Lsn,
    /// Start of the record that ends at `end`, the shutdown checkpoint.
    pub last_record: Lsn,
    /// From `start` to `end`.
    pub bytes: Vec<u8>,
    pub system_id: u64,
}

impl Wal {
    pub fn of(scratch: &Scratch) -> Wal {
        let prev = scratch.initial.checkpoint();
        let system_id = scratch.primary.control().system_id.get();
        let mut stream = WalStream::new(prev, Verify::Crc).with_system_id(system_id);
        let from = stream.position();
        stream.feed(from, &scratch.primary.wal(from)).unwrap();
        let mut ends = Vec::new();
        while let Ok(Next::Record(record)) = stream.next_record() {
            ends.push((record.start, record.end));
        }
        let (start, &(last_record, end)) = (ends[0].1, ends.last().unwrap());
        assert_eq!(last_record, scratch.primary.checkpoint(), "the WAL is read up to the shutdown checkpoint");
        let bytes = scratch.primary.wal(start)[..end.since(start) as usize].to_vec();
        eprintln!("{} records, {} MiB of WAL", ends.len(), bytes.len() >> 20);
        Wal { start, prev, end, last_record, bytes, system_id }
    }
}
