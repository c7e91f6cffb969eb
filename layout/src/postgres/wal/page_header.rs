//! The header of each WAL page (access/xlog_internal.h), and what makes one valid.

use crate::lsn::{Lsn, WAL_LONG_HEADER_SIZE, WAL_PAGE_SIZE, WAL_SEGMENT_SIZE, WAL_SHORT_HEADER_SIZE};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// XLOG_PAGE_MAGIC of Postgres 15.
pub const PAGE_MAGIC: u16 = 0xD110;

/// The page starts with the rest of a record that began before it.
pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
pub const LONG_HEADER: u16 = 0x0002;
/// No backup was running; of no meaning here.
pub const BKP_REMOVABLE: u16 = 0x0004;
/// The record that began before it was given up after a crash; this page starts another.
pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// XLogPageHeaderData, padded as SizeOfXLogShortPHD is.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PageHeader {
    pub magic: U16,
    pub info: U16,
    /// Postgres timeline of the first record on the page.
    pub timeline: U32,
    pub page_address: U64,
    /// Bytes left of the record that began before the page.
    pub remaining_length: U32,
    pub padding: [u8; 4],
}
const _: () = assert!(size_of::<PageHeader>() == WAL_SHORT_HEADER_SIZE as usize);

/// XLogLongPageHeaderData: of the first page of a segment.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LongPageHeader {
    pub page: PageHeader,
    pub system_id: U64,
    pub segment_size: U32,
    pub page_size: U32,
}
const _: () = assert!(size_of::<LongPageHeader>() == WAL_LONG_HEADER_SIZE as usize);

/// What is wrong with a WAL page header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageHeaderError {
    #[error("magic number {0:#06X}, not 0xD110 of Postgres 15")]
    Magic(u16),
    #[error("unknown info bits {0:#06X}")]
    Flags(u16),
    #[error("a long header in the middle of a segment, or none at its start")]
    HeaderLength,
    #[error("it names itself {found}: bytes of another place, perhaps of a recycled segment")]
    Address { found: Lsn },
    #[error("Postgres timeline {0}, not 1")]
    Timeline(u32),
    #[error("system identifier {found}, not {expected}: WAL of another cluster")]
    SystemId { expected: u64, found: u64 },
    #[error("segments of {segment} bytes and pages of {page}: only 16 MiB and 8 KiB are supported (initdb --wal-segsize)")]
    Sizes { segment: u32, page: u32 },
}

impl PageHeader {
    /// Reads and checks the header of the page at `at`, as XLogReaderValidatePageHeader does. `bytes` holds
    /// `at.header_size_here()` bytes; fewer read as a header of the wrong length.
    pub fn read(at: Lsn, bytes: &[u8], system_id: Option<u64>) -> Result<PageHeader, PageHeaderError> {
        let (header, _) = PageHeader::read_from_prefix(bytes).map_err(|_| PageHeaderError::HeaderLength)?;
        if header.magic.get() != PAGE_MAGIC {
            return Err(PageHeaderError::Magic(header.magic.get()));
        }
        let info = header.info.get();
        if info & !ALL_FLAGS != 0 {
            return Err(PageHeaderError::Flags(info));
        }
        let long = at.segment_offset() == 0;
        if (info & LONG_HEADER != 0) != long {
            return Err(PageHeaderError::HeaderLength);
        }
        if header.page_address.get() != at.0 {
            return Err(PageHeaderError::Address { found: Lsn(header.page_address.get()) });
        }
        if header.timeline.get() != 1 {
            return Err(PageHeaderError::Timeline(header.timeline.get()));
        }
        if long {
            let (header, _) = LongPageHeader::read_from_prefix(bytes).map_err(|_| PageHeaderError::HeaderLength)?;
            let (segment, page) = (header.segment_size.get(), header.page_size.get());
            if u64::from(segment) != WAL_SEGMENT_SIZE || u64::from(page) != WAL_PAGE_SIZE {
                return Err(PageHeaderError::Sizes { segment, page });
            }
            let found = header.system_id.get();
            if let Some(expected) = system_id.filter(|expected| *expected != found) {
                return Err(PageHeaderError::SystemId { expected, found });
            }
        }
        Ok(header)
    }

    pub fn has(&self, flag: u16) -> bool {
        self.info.get() & flag != 0
    }

    /// Appends the header of the page at `at`, on Postgres timeline 1, `remaining` bytes of a record going on.
    pub fn write(at: Lsn, remaining: u32, flags: u16, system_id: u64, out: &mut Vec<u8>) {
        let long = at.segment_offset() == 0;
        let mut info = flags;
        if long {
            info |= LONG_HEADER;
        }
        if remaining > 0 {
            info |= FIRST_IS_CONTRECORD;
        }
        let page = PageHeader {
            magic: U16::new(PAGE_MAGIC),
            info: U16::new(info),
            timeline: U32::new(1),
            page_address: U64::new(at.0),
            remaining_length: U32::new(remaining),
            padding: [0; 4],
        };
        if long {
            let long = LongPageHeader {
                page,
                system_id: U64::new(system_id),
                segment_size: U32::new(WAL_SEGMENT_SIZE as u32),
                page_size: U32::new(WAL_PAGE_SIZE as u32),
            };
            out.extend_from_slice(long.as_bytes());
        } else {
            out.extend_from_slice(page.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_each_wrong_field_is_named() {
        for at in [Lsn(0x1000000), Lsn(0x1002000)] {
            let mut bytes = Vec::new();
            PageHeader::write(at, 5, BKP_REMOVABLE, 77, &mut bytes);
            assert_eq!(bytes.len() as u64, at.header_size_here());
            let header = PageHeader::read(at, &bytes, Some(77)).unwrap();
            assert!(header.has(FIRST_IS_CONTRECORD));
            assert_eq!(header.remaining_length.get(), 5);
            assert!(PageHeader::read(at + 0x2000, &bytes, None).is_err());
            for (offset, value) in [(0, 0), (3, 0xFF), (2, 0x49), (4, 2), (9, 1)] {
                let mut damaged = bytes.clone();
                damaged[offset] = value;
                assert!(PageHeader::read(at, &damaged, Some(77)).is_err(), "byte {offset}");
            }
        }
        let mut bytes = Vec::new();
        PageHeader::write(Lsn(0x1000000), 0, 0, 77, &mut bytes);
        let error = PageHeader::read(Lsn(0x1000000), &bytes, Some(78)).unwrap_err();
        assert_eq!(error, PageHeaderError::SystemId { expected: 78, found: 77 });
        assert_eq!(PageHeader::read(Lsn(0x1000000), &bytes[..30], None), Err(PageHeaderError::HeaderLength));
        bytes[34] = 2;
        assert!(matches!(PageHeader::read(Lsn(0x1000000), &bytes, None), Err(PageHeaderError::Sizes { .. })));
    }
}
