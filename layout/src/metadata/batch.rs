//! The file's head, and batches.

use super::MetadataError;
use super::record::Record;
use crate::crc::{crc32c, crc32c_append};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const FILE_MAGIC: [u8; 8] = *b"IPMETA\0\0";
/// Version of the journal's format. No other is read.
pub const METADATA_VERSION: u32 = 1;
pub const FILE_HEAD_SIZE: usize = 32;
const BATCH_MAGIC: [u8; 4] = *b"IPMB";
pub(super) const BATCH_HEAD_SIZE: usize = 32;
/// Bytes of a batch's records at most: a hundred thousand branches at once, whatever their names and safekeepers.
pub(super) const BATCH_BYTES_MAX: usize = 128 << 20;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFileHead {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    first_sequence: U64,
    reserved: [u8; 8],
}
const _: () = assert!(size_of::<RawFileHead>() == FILE_HEAD_SIZE);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBatchHead {
    magic: [u8; 4],
    length: U32,
    sequence: U64,
    records: U32,
    records_crc: U32,
    reserved: U32,
    /// Of the 28 bytes before.
    head_crc: U32,
}
const _: () = assert!(size_of::<RawBatchHead>() == BATCH_HEAD_SIZE);

/// What a journal begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHead {
    /// Of the first batch that follows. It grows when the journal is rewritten.
    pub first_sequence: u64,
}

impl FileHead {
    pub fn encode(&self) -> [u8; FILE_HEAD_SIZE] {
        let mut raw = RawFileHead::new_zeroed();
        raw.magic = FILE_MAGIC;
        raw.version = U32::new(METADATA_VERSION);
        raw.first_sequence = U64::new(self.first_sequence);
        raw.crc = U32::new(crc32c(raw.as_bytes()));
        zerocopy::transmute!(raw)
    }

    pub fn decode(bytes: &[u8]) -> Result<FileHead, MetadataError> {
        let (mut raw, _) =
            RawFileHead::read_from_prefix(bytes).map_err(|_| MetadataError::NoHead { found: bytes.len() as u64 })?;
        if raw.magic != FILE_MAGIC {
            return Err(MetadataError::BadMagic { found: raw.magic });
        }
        let crc = std::mem::take(&mut raw.crc).get();
        if crc32c(raw.as_bytes()) != crc {
            return Err(MetadataError::Damaged { offset: 0, why: "the CRC of the file's head is wrong".into() });
        }
        // The version comes last: a damaged one must not be taken for that of another release.
        if raw.version.get() != METADATA_VERSION {
            return Err(MetadataError::BadVersion { found: raw.version.get() });
        }
        Ok(FileHead { first_sequence: raw.first_sequence.get() })
    }
}

/// Records that are taken together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Where it begins in the file.
    pub offset: u64,
    pub sequence: u64,
    pub records: Vec<Record>,
}

/// Appends a batch to `out`. The records must have no more than 128 MiB.
pub fn encode_batch(sequence: u64, records: &[Record], out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; BATCH_HEAD_SIZE]);
    records.iter().for_each(|record| record.encode(out));
    let body = &out[at + BATCH_HEAD_SIZE..];
    assert!(body.len() <= BATCH_BYTES_MAX, "a batch of {} bytes", body.len());
    let mut head = RawBatchHead {
        magic: BATCH_MAGIC,
        length: U32::new(body.len() as u32),
        sequence: U64::new(sequence),
        records: U32::new(records.len() as u32),
        records_crc: U32::new(crc32c(body)),
        reserved: U32::new(0),
        head_crc: U32::new(0),
    };
    head.head_crc = U32::new(head_crc(&head));
    out[at..at + BATCH_HEAD_SIZE].copy_from_slice(head.as_bytes());
}

fn head_crc(head: &RawBatchHead) -> u32 {
    crc32c_append(0, &head.as_bytes()[..BATCH_HEAD_SIZE - 4])
}

/// The head of a batch, if it is one: its sequence and the bytes and number of its records.
pub(super) struct BatchHead {
    pub sequence: u64,
    pub length: usize,
    records: u32,
    records_crc: u32,
}

impl BatchHead {
    /// `None` if the bytes are no whole head.
    pub fn decode(bytes: &[u8]) -> Option<BatchHead> {
        let (raw, _) = RawBatchHead::read_from_prefix(bytes).ok()?;
        let length = raw.length.get() as usize;
        let is_head = raw.magic == BATCH_MAGIC && raw.head_crc.get() == head_crc(&raw) && length <= BATCH_BYTES_MAX;
        is_head.then_some(BatchHead {
            sequence: raw.sequence.get(),
            length,
            records: raw.records.get(),
            records_crc: raw.records_crc.get(),
        })
    }

    pub fn is_of(&self, body: &[u8]) -> bool {
        crc32c(body) == self.records_crc
    }

    /// The records in `body`, whose CRC is right and which lies at `offset` of the file.
    pub fn records(&self, body: &[u8], offset: u64) -> Result<Vec<Record>, MetadataError> {
        let mut records = Vec::new();
        let mut at = 0;
        while let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty()) {
            let (record, length) = Record::decode(rest, offset + at as u64)?;
            records.push(record);
            at += length;
        }
        if records.len() as u64 != u64::from(self.records) {
            let why = format!("a batch of {} records has {}", self.records, records.len());
            return Err(MetadataError::Damaged { offset, why });
        }
        Ok(records)
    }
}
