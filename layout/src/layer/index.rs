//! Index blocks: one entry per key.

use super::{BLOCK_SIZE, ImageRef, LayerError, Salt};
use crate::key::{KEY_SIZE, Key};
use crate::lsn::Lsn;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Entries of an index block.
pub const ENTRIES_PER_BLOCK: usize = 63;
const WHAT: &str = "index block";

/// An entry as it lies in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RawEntry {
    pub key: [u8; KEY_SIZE],
    pub reserved: U16,
    pub versions: U32,
    pub last_lsn: U64,
    pub state_lsn: U64,
    pub run: U64,
    pub run_length: U32,
    pub head_length: U32,
    pub image_block: U32,
    pub image_crc: U32,
}
const _: () = assert!(size_of::<RawEntry>() == 64);

/// A block as it lies in the file. `crc` covers the block with the field zero, behind the salt and the block's offset.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBlock {
    crc: U32,
    entries_used: U16,
    reserved: [u8; 58],
    entries: [RawEntry; ENTRIES_PER_BLOCK],
}
const _: () = assert!(size_of::<RawBlock>() == BLOCK_SIZE);

/// What a layer has of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub key: Key,
    /// Number of versions, in the run and the image.
    pub versions: u32,
    /// LSN of the newest version.
    pub last_lsn: Lsn,
    /// LSN of the newest version that is a state; `Lsn::INVALID` if none is.
    pub state_lsn: Lsn,
    /// Offset of the run in the file.
    pub run: u64,
    pub run_length: u32,
    /// Bytes of the run that hold the versions newer than the newest state, and that state if it is no image.
    pub head_length: u32,
    /// The newest state, if it is an image. It is not in the run.
    pub image: Option<ImageRef>,
}

impl Entry {
    pub(super) fn encode(&self) -> RawEntry {
        RawEntry {
            key: self.key.encode(),
            reserved: U16::ZERO,
            versions: U32::new(self.versions),
            last_lsn: U64::new(self.last_lsn.0),
            state_lsn: U64::new(self.state_lsn.0),
            run: U64::new(self.run),
            run_length: U32::new(self.run_length),
            head_length: U32::new(self.head_length),
            image_block: U32::new(self.image.map_or(0, |image| image.block)),
            image_crc: U32::new(self.image.map_or(0, |image| image.crc)),
        }
    }

    /// `None` if the entry is none a writer makes.
    fn decode(raw: &RawEntry) -> Option<Entry> {
        let image = Some(ImageRef { block: raw.image_block.get(), crc: raw.image_crc.get() }).filter(|image| image.block != 0);
        let entry = Entry {
            key: Key::decode(&raw.key)?,
            versions: raw.versions.get(),
            last_lsn: Lsn(raw.last_lsn.get()),
            state_lsn: Lsn(raw.state_lsn.get()),
            run: raw.run.get(),
            run_length: raw.run_length.get(),
            head_length: raw.head_length.get(),
            image,
        };
        let sound = entry.versions > 0
            && entry.state_lsn <= entry.last_lsn
            && entry.head_length <= entry.run_length
            && (image.is_none() || entry.state_lsn.is_valid())
            && (image.is_some() || entry.run_length > 0);
        sound.then_some(entry)
    }
}

/// Appends one block with these entries, 1 to 63, at `offset` of the file.
pub(super) fn encode_block(salt: Salt, offset: u64, entries: &[RawEntry], out: &mut Vec<u8>) {
    assert!((1..=ENTRIES_PER_BLOCK).contains(&entries.len()), "{} entries in an index block", entries.len());
    let start = out.len();
    let mut block = RawBlock::new_zeroed();
    block.entries_used = U16::new(entries.len() as u16);
    block.entries[..entries.len()].copy_from_slice(entries);
    block.crc = U32::new(salt.crc(&[&offset.to_le_bytes(), block.as_bytes()]));
    out.extend_from_slice(block.as_bytes());
    assert_eq!(out.len() - start, BLOCK_SIZE);
}

/// A verified view of an index block.
#[derive(Clone, Copy)]
pub struct IndexBlock<'a> {
    entries: &'a [RawEntry],
    offset: u64,
}

impl<'a> IndexBlock<'a> {
    /// `bytes` as read from `offset` of the file: checks the CRC and the order of the keys.
    pub fn decode(salt: Salt, offset: u64, bytes: &'a [u8]) -> Result<IndexBlock<'a>, LayerError> {
        let block = RawBlock::ref_from_bytes(bytes).map_err(|_| LayerError::Truncated {
            what: WHAT,
            offset,
            needed: BLOCK_SIZE as u64,
            found: bytes.len() as u64,
        })?;
        let expected = block.crc.get();
        let found = salt.crc(&[&offset.to_le_bytes(), &[0; 4], &bytes[4..]]);
        if found != expected {
            return Err(LayerError::BadCrc { what: WHAT, offset, expected, found });
        }
        let view = IndexBlock::trusted(offset, bytes)?;
        if view.entries.is_empty() || !view.entries.is_sorted_by(|a, b| a.key < b.key) {
            return Err(LayerError::Malformed { what: WHAT, offset, why: "it is empty or its keys are out of order" });
        }
        Ok(view)
    }

    /// A view of a block that [`IndexBlock::decode`] has passed before.
    pub fn trusted(offset: u64, bytes: &'a [u8]) -> Result<IndexBlock<'a>, LayerError> {
        let malformed = |why| LayerError::Malformed { what: WHAT, offset, why };
        let block = RawBlock::ref_from_bytes(bytes).map_err(|_| malformed("it is not 4096 bytes long"))?;
        let used = usize::from(block.entries_used.get());
        let entries = block.entries.get(..used).ok_or(malformed("it claims more entries than fit"))?;
        Ok(IndexBlock { entries, offset })
    }

    fn entry(&self, raw: &RawEntry) -> Result<Entry, LayerError> {
        Entry::decode(raw).ok_or(LayerError::Malformed { what: WHAT, offset: self.offset, why: "an entry makes no sense" })
    }

    pub fn find(&self, key: &[u8; KEY_SIZE]) -> Result<Option<Entry>, LayerError> {
        let found = self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok();
        found.and_then(|at| self.entries.get(at)).map(|raw| self.entry(raw)).transpose()
    }

    /// All entries, in key order.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, LayerError>> + '_ {
        self.entries.iter().map(|raw| self.entry(raw))
    }
}
