//! The first block of a layer file.

use super::{BLOCK_SIZE, LAYER_VERSION, LayerError, LayerId, Salt, block_align_up};
use crate::crc::{crc32c, crc32c_append};
use crate::id::{Slot, TenantId, TimelineId};
use crate::key::{KEY_SIZE, Key};
use crate::lsn::Lsn;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"IPLAYER\0";
const WHAT: &str = "layer header";

/// `crc` covers the block of 4096 bytes with the field zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    tenant: [u8; 16],
    timeline: [u8; 16],
    sequence: U64,
    lsn_min: U64,
    lsn_max: U64,
    slot: U16,
    key_min: [u8; KEY_SIZE],
    key_max: [u8; KEY_SIZE],
    reserved: [u8; 2],
    keys: U64,
    versions: U64,
    runs: U64,
    index: U64,
    fences: U64,
    filter: U64,
    file_length: U64,
    index_blocks: U32,
    fences_crc: U32,
    filter_words: U32,
    filter_crc: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 184);

/// What a layer is, what it spans, and where its sections are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub id: LayerId,
    /// Lowest and highest LSN of its versions.
    pub lsn_min: Lsn,
    pub lsn_max: Lsn,
    /// First and last key.
    pub key_min: Key,
    pub key_max: Key,
    pub keys: u64,
    pub versions: u64,
    /// Offset of the runs; the images lie between the header and here.
    pub runs: u64,
    /// Offset of the index; the runs end at or before it.
    pub index: u64,
    pub index_blocks: u32,
    pub fences: u64,
    pub fences_crc: u32,
    pub filter: u64,
    pub filter_words: u32,
    pub filter_crc: u32,
    pub file_length: u64,
}

impl Header {
    pub fn salt(&self) -> Salt {
        self.id.salt()
    }

    /// Bytes of the fences section.
    pub fn fences_length(&self) -> u64 {
        u64::from(self.index_blocks) * KEY_SIZE as u64
    }

    /// Bytes of the filter section.
    pub fn filter_length(&self) -> u64 {
        u64::from(self.filter_words) * 8
    }

    /// Offset of an index block.
    pub fn index_block(&self, number: u32) -> u64 {
        self.index + u64::from(number) * BLOCK_SIZE as u64
    }

    /// The whole first block.
    pub fn encode(&self) -> [u8; BLOCK_SIZE] {
        let mut raw = RawHeader::new_zeroed();
        raw.magic = MAGIC;
        raw.version = U32::new(LAYER_VERSION);
        raw.tenant = self.id.tenant.0;
        raw.timeline = self.id.timeline.0;
        raw.sequence = U64::new(self.id.sequence);
        raw.lsn_min = U64::new(self.lsn_min.0);
        raw.lsn_max = U64::new(self.lsn_max.0);
        raw.slot = U16::new(self.id.slot.0);
        raw.key_min = self.key_min.encode();
        raw.key_max = self.key_max.encode();
        raw.keys = U64::new(self.keys);
        raw.versions = U64::new(self.versions);
        raw.runs = U64::new(self.runs);
        raw.index = U64::new(self.index);
        raw.fences = U64::new(self.fences);
        raw.filter = U64::new(self.filter);
        raw.file_length = U64::new(self.file_length);
        raw.index_blocks = U32::new(self.index_blocks);
        raw.fences_crc = U32::new(self.fences_crc);
        raw.filter_words = U32::new(self.filter_words);
        raw.filter_crc = U32::new(self.filter_crc);
        let mut block = [0; BLOCK_SIZE];
        block[..size_of::<RawHeader>()].copy_from_slice(raw.as_bytes());
        let crc = crc32c(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads the first block of a file.
    pub fn decode(block: &[u8]) -> Result<Header, LayerError> {
        let needed = BLOCK_SIZE as u64;
        let cut = LayerError::Truncated { what: WHAT, offset: 0, needed, found: block.len() as u64 };
        let block = block.get(..BLOCK_SIZE).ok_or(cut.clone())?;
        let (raw, _) = RawHeader::read_from_prefix(block).map_err(|_| cut)?;
        if raw.magic != MAGIC {
            return Err(LayerError::BadMagic { what: "a layer file", found: raw.magic });
        }
        let (version, expected) = (raw.version.get(), raw.crc.get());
        let found = crc32c_append(crc32c_append(crc32c(&block[..12]), &[0; 4]), &block[16..]);
        if found != expected {
            return Err(LayerError::BadCrc { what: WHAT, offset: 0, expected, found });
        }
        if version != LAYER_VERSION {
            return Err(LayerError::BadVersion { what: WHAT, expected: LAYER_VERSION, found: version });
        }
        let malformed = |why| LayerError::Malformed { what: WHAT, offset: 0, why };
        let key = |bytes| Key::decode(bytes).ok_or(malformed("a key of unknown kind"));
        let header = Header {
            id: LayerId {
                tenant: TenantId(raw.tenant),
                timeline: TimelineId(raw.timeline),
                slot: Slot(raw.slot.get()),
                sequence: raw.sequence.get(),
            },
            lsn_min: Lsn(raw.lsn_min.get()),
            lsn_max: Lsn(raw.lsn_max.get()),
            key_min: key(&raw.key_min)?,
            key_max: key(&raw.key_max)?,
            keys: raw.keys.get(),
            versions: raw.versions.get(),
            runs: raw.runs.get(),
            index: raw.index.get(),
            index_blocks: raw.index_blocks.get(),
            fences: raw.fences.get(),
            fences_crc: raw.fences_crc.get(),
            filter: raw.filter.get(),
            filter_words: raw.filter_words.get(),
            filter_crc: raw.filter_crc.get(),
            file_length: raw.file_length.get(),
        };
        if header.sections_fit() { Ok(header) } else { Err(malformed("its sections do not fit each other")) }
    }

    fn sections_fit(&self) -> bool {
        let block = BLOCK_SIZE as u64;
        let starts = [block, self.runs, self.index, self.fences, self.filter, self.file_length];
        // Far beyond any file, and low enough that no sum below overflows.
        let sane = starts.iter().all(|start| start % block == 0 && *start < 1 << 50) && starts.is_sorted();
        sane && self.index_blocks > 0
            && self.index + u64::from(self.index_blocks) * block == self.fences
            && block_align_up(self.fences + self.fences_length()) == self.filter
            && block_align_up(self.filter + self.filter_length()) == self.file_length
            && self.key_min <= self.key_max
            && self.lsn_min <= self.lsn_max
    }

    /// Whether this is the layer that was asked for.
    pub fn check_id(&self, expected: &LayerId) -> Result<(), LayerError> {
        let foreign = |what, expected: String, found: String| Err(LayerError::Foreign { what, expected, found });
        let found = &self.id;
        if found.tenant != expected.tenant {
            return foreign("tenant", expected.tenant.to_string(), found.tenant.to_string());
        }
        if found.timeline != expected.timeline {
            return foreign("timeline", expected.timeline.to_string(), found.timeline.to_string());
        }
        if found.slot != expected.slot {
            return foreign("slot", expected.slot.0.to_string(), found.slot.0.to_string());
        }
        if found.sequence != expected.sequence {
            return foreign("flush", expected.sequence.to_string(), found.sequence.to_string());
        }
        Ok(())
    }
}
