//! Streams of records, the same for the same seed.

use ironpage_layout::postgres::wal::build::{WalWriter, main_data_payload};
use ironpage_layout::wire::admin::TimelineCreate;
use ironpage_layout::{Lsn, TenantId, TimelineId};

pub const TENANT: TenantId = TenantId([7; 16]);
pub const TIMELINE: TimelineId = TimelineId([9; 16]);
pub const SYSTEM_ID: u64 = 7_300_000_000_000_000_001;
/// Where the timelines of these tests start: behind a record of 104 bytes at the start of segment 1.
pub const START: Lsn = Lsn(0x0100_0028 + 104);
pub const PREV: Lsn = Lsn(0x0100_0028);
const XLOG: u8 = 0;
const NOOP: u8 = 0x20;

/// A small generator, so that a failing seed can be run again.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

pub fn create() -> TimelineCreate {
    TimelineCreate {
        tenant: TENANT,
        timeline: TIMELINE,
        start_lsn: START,
        prev_record_lsn: PREV,
        system_id: SYSTEM_ID,
        postgres_version: 150_020,
        name: "main".into(),
        readable_lsn: Lsn::INVALID,
        kind: 0,
        prefix_length: prefix().len() as u32,
    }
}

/// The WAL before `START`: a page header and one record.
pub fn prefix() -> Vec<u8> {
    let mut writer = WalWriter::new(Lsn(0x0100_0000), Lsn(0x00FF_FF00), SYSTEM_ID);
    let (start, end) = writer.append(XLOG, NOOP, 0, &main_data_payload(&[1; 78]));
    assert_eq!((start, end), (PREV, START));
    writer.bytes().to_vec()
}

pub fn writer() -> WalWriter {
    WalWriter::new(START, PREV, SYSTEM_ID)
}

/// Adds records of mixed sizes until at least `bytes` were added; returns where records end.
pub fn fill(writer: &mut WalWriter, random: &mut Random, bytes: u64) -> Vec<Lsn> {
    let from = writer.position();
    let mut ends = Vec::new();
    while writer.position().since(from) < bytes {
        let size = match random.below(20) {
            0 => random.below(30_000),
            1..4 => random.below(4_000),
            _ => random.below(200),
        };
        let filler = random.below(255) as u8;
        let data: Vec<u8> = (0..size).map(|i| filler.wrapping_add(i as u8)).collect();
        ends.push(writer.append(XLOG, NOOP, 0, &main_data_payload(&data)).1);
    }
    ends
}

/// The bytes of `writer` from `from` to `to`.
pub fn slice(writer: &WalWriter, from: Lsn, to: Lsn) -> &[u8] {
    let start = writer.start();
    &writer.bytes()[from.since(start) as usize..to.since(start) as usize]
}
