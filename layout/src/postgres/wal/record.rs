//! What one WAL record says (access/xlogrecord.h; DecodeXLogRecord in xlogreader.c).

use super::RECORD_HEADER_SIZE;
use crate::lsn::Lsn;
use crate::postgres::bytes::Reader;
use crate::postgres::page;
use crate::postgres::rmgr::{RMGR_INFO_MASK, Rmgr};
use crate::rel::{BlockNumber, Fork, PAGE_SIZE, RelTag};

/// XLR_MAX_BLOCK_ID.
pub const MAX_BLOCK_ID: u8 = 32;

const BLOCK_ID_DATA_SHORT: u8 = 255;
const BLOCK_ID_DATA_LONG: u8 = 254;
const BLOCK_ID_ORIGIN: u8 = 253;
const BLOCK_ID_TOPLEVEL_XID: u8 = 252;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_REL: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;
const IMAGE_APPLY: u8 = 0x02;
/// BKPIMAGE_COMPRESS_PGLZ, _LZ4 and _ZSTD, in the order in which RestoreBlockImage (xlogreader.c) looks at them.
const IMAGE_COMPRESSIONS: [(u8, Compression); 3] =
    [(0x04, Compression::Pglz), (0x08, Compression::Lz4), (0x10, Compression::Zstd)];

/// InvalidBlockNumber: no block has it.
const INVALID_BLOCK: u32 = u32::MAX;

/// How a page image is compressed: wal_compression of the server that wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    Pglz,
    Lz4,
    Zstd,
}

/// A full-page image in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image<'a> {
    /// The page without its hole, perhaps compressed.
    pub bytes: &'a [u8],
    pub hole_offset: u16,
    pub hole_length: u16,
    pub compression: Option<Compression>,
    /// Redo takes it as the page. Images for wal_consistency_checking alone are not applied.
    pub apply: bool,
}

/// A reference to a page a record changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block<'a> {
    pub id: u8,
    pub rel: RelTag,
    pub fork: Fork,
    pub block: BlockNumber,
    /// Redo starts from an empty page, whatever was there.
    pub will_init: bool,
    pub image: Option<Image<'a>>,
    pub data: &'a [u8],
}

impl<'a> Block<'a> {
    /// The image redo takes as the page, if there is one.
    pub fn applied_image(&self) -> Option<Image<'a>> {
        self.image.filter(|image| image.apply)
    }
}

/// A record, taken apart. All slices are of the bytes it was decoded from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedRecord<'a> {
    /// The whole record.
    pub bytes: &'a [u8],
    pub xid: u32,
    /// Start of the record before it.
    pub prev: Lsn,
    /// All of xl_info; see [`DecodedRecord::rmgr_info`].
    pub info: u8,
    pub rmid: u8,
    /// In the order of their ids, which may have gaps.
    pub blocks: Vec<Block<'a>>,
    pub main_data: &'a [u8],
    /// Replication origin; 0 if there is none.
    pub origin: u16,
    /// Top-level transaction of a subtransaction, 0 if it was not logged.
    pub toplevel_xid: u32,
}

/// The bytes of a record contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeRecordError(pub &'static str);

impl<'a> DecodedRecord<'a> {
    /// Takes a record apart. Its CRC is not looked at.
    pub fn decode(bytes: &'a [u8]) -> Result<DecodedRecord<'a>, DecodeRecordError> {
        let short = DecodeRecordError("it is shorter than its parts");
        let mut header = Reader::new(bytes);
        let mut head = || Some((header.u32()?, header.u32()?, header.u64()?, header.u8()?, header.u8()?));
        let (length, xid, prev, info, rmid) = head().ok_or(short)?;
        if length as usize != bytes.len() || bytes.len() < RECORD_HEADER_SIZE {
            return Err(DecodeRecordError("its header gives another length"));
        }
        let mut record = DecodedRecord {
            bytes,
            xid,
            prev: Lsn(prev),
            info,
            rmid,
            blocks: Vec::new(),
            main_data: &[],
            origin: 0,
            toplevel_xid: 0,
        };

        let mut reader = Reader::new(bytes.get(RECORD_HEADER_SIZE..).unwrap_or_default());
        let mut lengths = Vec::new();
        let mut main_length = 0usize;
        let mut data_total = 0usize;
        while reader.rest().len() > data_total {
            let id = reader.u8().ok_or(short)?;
            match id {
                BLOCK_ID_DATA_SHORT | BLOCK_ID_DATA_LONG => {
                    main_length = match id {
                        BLOCK_ID_DATA_SHORT => usize::from(reader.u8().ok_or(short)?),
                        _ => reader.u32().ok_or(short)? as usize,
                    };
                    data_total = data_total.saturating_add(main_length);
                    // The main data always comes last.
                    break;
                }
                BLOCK_ID_ORIGIN => record.origin = reader.u16().ok_or(short)?,
                BLOCK_ID_TOPLEVEL_XID => record.toplevel_xid = reader.u32().ok_or(short)?,
                0..=MAX_BLOCK_ID => {
                    let last = record.blocks.last();
                    if last.is_some_and(|last| last.id >= id) {
                        return Err(DecodeRecordError("its block references are out of order"));
                    }
                    let (block, data_length) = Block::decode_header(id, last.map(|last| last.rel), &mut reader)?;
                    let image_length = block.image.map_or(0, |image| image.length());
                    data_total += usize::from(data_length) + image_length;
                    lengths.push((image_length, usize::from(data_length)));
                    record.blocks.push(block);
                }
                _ => return Err(DecodeRecordError("it has a part of unknown kind")),
            }
        }
        if reader.rest().len() != data_total {
            return Err(short);
        }
        for (block, (image_length, data_length)) in record.blocks.iter_mut().zip(lengths) {
            if let Some(image) = &mut block.image {
                image.bytes = reader.take(image_length).ok_or(short)?;
            }
            block.data = reader.take(data_length).ok_or(short)?;
        }
        record.main_data = reader.take(main_length).ok_or(short)?;
        Ok(record)
    }

    /// `None` for a resource manager of an extension, or none at all.
    pub fn rmgr(&self) -> Option<Rmgr> {
        Rmgr::from_number(self.rmid)
    }

    /// The bits of `info` that name the record type, those of XLogInsert masked out.
    pub fn rmgr_info(&self) -> u8 {
        self.info & RMGR_INFO_MASK
    }

    /// The block reference with this id.
    pub fn block(&self, id: u8) -> Option<&Block<'a>> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// The page that an applied image of `block` restores, `end` as its LSN unless it is a new page
    /// (RestoreBlockImage, XLogReadBufferForRedoExtended). `None` if there is none or it is compressed.
    pub fn restore_image(block: &Block<'_>, end: Lsn) -> Option<Box<[u8; PAGE_SIZE]>> {
        let image = block.applied_image().filter(|image| image.compression.is_none())?;
        let (hole_start, hole_length) = (usize::from(image.hole_offset), usize::from(image.hole_length));
        let mut restored = Box::new([0; PAGE_SIZE]);
        let (before, after) = image.bytes.split_at_checked(hole_start.min(image.bytes.len()))?;
        restored.get_mut(..before.len())?.copy_from_slice(before);
        restored.get_mut(before.len() + hole_length..)?.get_mut(..after.len())?.copy_from_slice(after);
        if !page::is_new(&restored) {
            page::set_lsn(&mut restored, end);
        }
        Some(restored)
    }
}

impl<'a> Block<'a> {
    /// One block reference without image and data, and the length of its data.
    fn decode_header(id: u8, last: Option<RelTag>, reader: &mut Reader<'a>) -> Result<(Block<'a>, u16), DecodeRecordError> {
        let bad = DecodeRecordError;
        let short = bad("it is shorter than its parts");
        let flags = reader.u8().ok_or(short)?;
        let data_length = reader.u16().ok_or(short)?;
        if (flags & HAS_DATA != 0) != (data_length != 0) {
            return Err(bad("the length of a block's data contradicts its flags"));
        }
        let image = if flags & HAS_IMAGE != 0 { Some(Image::decode_header(reader)?) } else { None };
        let rel = if flags & SAME_REL == 0 {
            let mut rel = || Some(RelTag { tablespace: reader.u32()?, database: reader.u32()?, relation: reader.u32()? });
            rel().ok_or(short)?
        } else {
            last.ok_or(bad("its first block names no relation"))?
        };
        let block = BlockNumber(reader.u32().ok_or(short)?);
        if block.0 == INVALID_BLOCK {
            return Err(bad("it names the block number that no block has"));
        }
        let fork = Fork::from_number(flags & FORK_MASK).ok_or(bad("it names an unknown fork"))?;
        Ok((Block { id, rel, fork, block, will_init: flags & WILL_INIT != 0, image, data: &[] }, data_length))
    }
}

impl<'a> Image<'a> {
    /// The header of an image. Until the image itself is read, `bytes` is as long as it, of whatever content.
    fn decode_header(reader: &mut Reader<'a>) -> Result<Image<'a>, DecodeRecordError> {
        let bad = DecodeRecordError;
        let short = bad("it is shorter than its parts");
        let mut fields = || Some((reader.u16()?, reader.u16()?, reader.u8()?));
        let (length, hole_offset, info) = fields().ok_or(short)?;
        let compression = IMAGE_COMPRESSIONS.into_iter().find(|(bit, _)| info & bit != 0).map(|(_, method)| method);
        let compressed = compression.is_some();
        let has_hole = info & IMAGE_HAS_HOLE != 0;
        if usize::from(length) > PAGE_SIZE || (compressed && usize::from(length) == PAGE_SIZE) {
            return Err(bad("a page image is longer than it can be"));
        }
        let hole_length = match (compressed, has_hole) {
            (true, true) => reader.u16().ok_or(short)?,
            (true, false) => 0,
            (false, _) => PAGE_SIZE as u16 - length,
        };
        if has_hole != (hole_length != 0) || has_hole != (hole_offset != 0) {
            return Err(bad("the hole of a page image contradicts its flags"));
        }
        if usize::from(hole_offset) + usize::from(hole_length) > PAGE_SIZE {
            return Err(bad("the hole of a page image lies outside the page"));
        }
        // The image stands behind all headers; only its length is known yet, and that it is there.
        let bytes = reader.rest().get(..usize::from(length)).ok_or(short)?;
        Ok(Image { bytes, hole_offset, hole_length, compression, apply: info & IMAGE_APPLY != 0 })
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
