//! What a timeline's history says at a record's end: when the last commit was, and what lies just before.
//!
//! The WAL is cut into buckets of 256 KiB; each has a key of its own (`KeyKind::History`). A bucket has a version at
//! the first record that ends in it, one at every commit, and one wherever a head may be loaded from. A bucket in which
//! no record ends has one at its first byte, as of the record before. So "when" is found from "where" in one lookup,
//! and "where" from "when" by halving.

use crate::lsn::Lsn;

/// A bucket is 2^18 bytes of WAL.
pub const BUCKET_BITS: u32 = 18;
/// Bytes of an encoded [`History`].
pub const HISTORY_SIZE: usize = 32;
/// The commit time where no commit is known.
pub const NO_COMMIT: i64 = i64::MIN;

/// The bucket a record that ends at `lsn` belongs to.
pub fn bucket_of(lsn: Lsn) -> u64 {
    lsn.0 >> BUCKET_BITS
}

/// First LSN of a bucket.
pub fn bucket_start(bucket: u64) -> Lsn {
    Lsn(bucket << BUCKET_BITS)
}

/// History at the end of one record. Times are Postgres's: microseconds since 2000-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct History {
    /// When the last commit at or before this LSN says it was; `NO_COMMIT` if none is known.
    pub commit_time: i64,
    /// The latest of all commit times up to here: clocks go back, this does not. Where a timeline was imported it
    /// begins with the first moment that may come after all that the import holds.
    pub commit_time_max: i64,
    /// End of the record before the one that ends here.
    pub before: Lsn,
    /// Start of the record that ends here.
    pub prev_record_lsn: Lsn,
}

impl History {
    pub fn encode(&self) -> [u8; HISTORY_SIZE] {
        let mut bytes = [0; HISTORY_SIZE];
        bytes[..8].copy_from_slice(&self.commit_time.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.commit_time_max.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.before.0.to_le_bytes());
        bytes[24..].copy_from_slice(&self.prev_record_lsn.0.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not 32, or their times or LSNs contradict each other.
    pub fn decode(bytes: &[u8]) -> Option<History> {
        let bytes: &[u8; HISTORY_SIZE] = bytes.try_into().ok()?;
        let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let history = History {
            commit_time: word(0)? as i64,
            commit_time_max: word(8)? as i64,
            before: Lsn(word(16)?),
            prev_record_lsn: Lsn(word(24)?),
        };
        (history.commit_time <= history.commit_time_max && history.before <= history.prev_record_lsn).then_some(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_round_trips_and_contradictions_do_not_decode() {
        let history = History { commit_time: -5, commit_time_max: 7, before: Lsn(0x2000), prev_record_lsn: Lsn(0x2018) };
        let bytes = history.encode();
        assert_eq!(History::decode(&bytes), Some(history));
        assert_eq!(History::decode(&bytes[1..]), None);
        assert_eq!(History::decode(&History { commit_time: 8, ..history }.encode()), None);
        assert_eq!(History::decode(&History { before: Lsn(0x2020), ..history }.encode()), None);
        // Pinned: it is stored.
        let pinned = "fbffffffffffffff0700000000000000002000000000000018200000000000";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hex.starts_with(pinned), "{hex}");
    }

    #[test]
    fn buckets_begin_where_they_say() {
        assert_eq!(bucket_of(Lsn(0x3_FFFF)), 0);
        assert_eq!(bucket_of(Lsn(0x4_0000)), 1);
        assert_eq!(bucket_start(bucket_of(Lsn(0x12_3456_789A))), Lsn(0x12_3454_0000));
    }
}
