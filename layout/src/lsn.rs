//! Positions in the WAL, and the arithmetic of its pages and segments.

use std::fmt;
use std::str::FromStr;

/// A byte position in a timeline's WAL. `Lsn::INVALID` (0) is before any record, as in Postgres.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Bytes of a WAL page: XLOG_BLCKSZ of every build Ironpage supports.
pub const WAL_PAGE_SIZE: u64 = 8192;
/// Bytes of a WAL segment: the default of initdb, and the only size Ironpage accepts.
pub const WAL_SEGMENT_SIZE: u64 = 16 << 20;
/// Bytes of the header that starts a segment: SizeOfXLogLongPHD (access/xlog_internal.h).
pub const WAL_LONG_HEADER_SIZE: u64 = 40;
/// Bytes of the header that starts any other WAL page: SizeOfXLogShortPHD.
pub const WAL_SHORT_HEADER_SIZE: u64 = 24;

impl Lsn {
    pub const INVALID: Lsn = Lsn(0);
    pub const MAX: Lsn = Lsn(u64::MAX);

    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Rounded up to 8 bytes: where a record that follows may start (MAXALIGN).
    pub fn align_up(self) -> Lsn {
        Lsn((self.0 + 7) & !7)
    }

    /// Bytes from the start of the WAL page this position lies in.
    pub fn page_offset(self) -> u64 {
        self.0 % WAL_PAGE_SIZE
    }

    pub fn page_start(self) -> Lsn {
        Lsn(self.0 - self.page_offset())
    }

    /// Number of the segment this position lies in.
    pub fn segment(self) -> u64 {
        self.0 / WAL_SEGMENT_SIZE
    }

    pub fn segment_offset(self) -> u64 {
        self.0 % WAL_SEGMENT_SIZE
    }

    pub fn segment_start(self) -> Lsn {
        Lsn(self.0 - self.segment_offset())
    }

    /// Bytes of page header between `self`, a record end, and the next record: 0 inside a page.
    pub fn header_size_here(self) -> u64 {
        if self.segment_offset() == 0 {
            WAL_LONG_HEADER_SIZE
        } else if self.page_offset() == 0 {
            WAL_SHORT_HEADER_SIZE
        } else {
            0
        }
    }

    /// Where the record after a record that ends at `self` starts: past a page header, if one stands here.
    pub fn record_start(self) -> Lsn {
        let at = self.align_up();
        Lsn(at.0 + at.header_size_here())
    }

    /// The inverse of [`Lsn::record_start`]: an insert position just behind a page header is turned back
    /// into the end of the record before it (XLogBytePosToEndRecPtr against XLogBytePosToRecPtr, xlog.c).
    pub fn to_record_end(self) -> Lsn {
        if self.segment_offset() == WAL_LONG_HEADER_SIZE {
            Lsn(self.0 - WAL_LONG_HEADER_SIZE)
        } else if self.page_offset() == WAL_SHORT_HEADER_SIZE && self.segment_offset() > WAL_PAGE_SIZE {
            Lsn(self.0 - WAL_SHORT_HEADER_SIZE)
        } else {
            self
        }
    }

    /// Bytes from `earlier` to `self`, 0 if `earlier` is later.
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Name of the segment file this position lies in, on Postgres timeline 1.
    pub fn segment_file_name(self) -> String {
        segment_file_name(self.segment())
    }
}

/// `00000001XXXXXXXXXXXXXXXX`: XLogFileName (access/xlog_internal.h) for Postgres timeline 1.
pub fn segment_file_name(segment: u64) -> String {
    let per_id = (1u64 << 32) / WAL_SEGMENT_SIZE;
    format!("{:08X}{:08X}{:08X}", 1, segment / per_id, segment % per_id)
}

impl std::ops::Add<u64> for Lsn {
    type Output = Lsn;
    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `HEX/HEX` of 32 bits each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an LSN: write it as Postgres does, like 0/16B3748")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let parse = |half: &str| {
            let hex = !half.is_empty() && half.len() <= 8 && half.bytes().all(|b| b.is_ascii_hexdigit());
            if hex { u64::from_str_radix(half, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(parse(high)? << 32 | parse(low)?)))
            .ok_or_else(|| ParseLsnError(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_rejects_nonsense() {
        assert_eq!("1/2A".parse::<Lsn>(), Ok(Lsn(0x1_0000_002A)));
        assert_eq!(Lsn(0x1_0000_002A).to_string(), "1/2A");
        for bad in ["", "/", "1/", "1/123456789", "+1/2", "1-2", "1/2/3"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn insert_positions_behind_headers_become_record_ends() {
        // Seen on Debian's 15.20: insert 0/1518018 while flush was 0/1518000 and no record ended at the former.
        assert_eq!(Lsn(0x1518018).to_record_end(), Lsn(0x1518000));
        assert_eq!(Lsn(0x2000028).to_record_end(), Lsn(0x2000000));
        assert_eq!(Lsn(0x2000018).to_record_end(), Lsn(0x2000018));
        assert_eq!(Lsn(0x1518020).to_record_end(), Lsn(0x1518020));
        for end in [0x1518000u64, 0x2000000, 0x1518020] {
            assert_eq!(Lsn(end).record_start().to_record_end(), Lsn(end));
        }
    }
}
