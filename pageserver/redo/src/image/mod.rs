//! Full-page images (RestoreBlockImage, access/transam/xlogreader.c).

mod pglz;

use crate::apply::{Place, change};
use crate::delta::{DeltaWriter, Fields, Kind};
use crate::encode::{Encoded, Source};
use crate::error::{EncodeError, RedoError};
use crate::page::Page;
use crate::planted;
use ironpage_layout::postgres::page::{is_new, set_lsn};
use ironpage_layout::postgres::wal::record::{Compression, Image};
use ironpage_layout::rel::PAGE_SIZE;

const PLAIN: u8 = 0;
const PGLZ: u8 = 1;
const LZ4: u8 = 2;

/// The page an image restores, with the record's LSN unless it is of a page that was never initialised.
///
/// method u8, hole offset u16, hole length u16, length u16, bytes, [a delta that redo applies to what it restored]
pub fn apply(page: &mut Page, place: Place, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let method = fields.u8()?;
    let (hole_offset, hole_length) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
    let length = fields.u16()?;
    let bytes = fields.take(usize::from(length))?;
    let then = fields.rest();
    let hole_end = hole_offset + hole_length;
    if hole_end > PAGE_SIZE {
        return Err(RedoError::Delta("the hole of a page image lies outside the page"));
    }
    let raw = PAGE_SIZE - hole_length;
    // What is compressed becomes whole at the front; then its end moves behind the hole.
    let whole = page.get_mut(..raw).ok_or(RedoError::Delta("the hole of a page image lies outside the page"))?;
    match method {
        PLAIN if bytes.len() == raw => whole.copy_from_slice(bytes),
        PLAIN => return Err(RedoError::Delta("a page image and its hole are no page")),
        PGLZ => pglz::decompress(bytes, whole)?,
        LZ4 => {
            if !lz4_flex::block::decompress_into(bytes, whole).is_ok_and(|length| length == raw) {
                return Err(RedoError::Delta("a page image does not decompress"));
            }
        }
        _ => return Err(RedoError::Delta("a page image is compressed in an unknown way")),
    }
    if hole_length != 0 {
        page.copy_within(hole_offset..raw, hole_end);
        page[hole_offset..hole_end].fill(0);
    }
    if !is_new(page) {
        set_lsn(page, place.end_lsn);
    }
    page[PAGE_SIZE - 1] = planted::value(Kind::Image, page[PAGE_SIZE - 1]);
    match then.first() {
        None => Ok(()),
        // One after the other, or the end of the stack would come before the end of a damaged delta.
        Some(_) if Kind::of(then)? == Kind::Image => Err(RedoError::Delta("an image follows an image")),
        Some(_) => change(page, place, Kind::of(then)?, then),
    }
}

/// The delta of an image, as compressed as it is in the record. zstd's decoder allocates: its images are
/// decompressed here.
pub fn encode(image: &Image<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let raw = PAGE_SIZE - usize::from(image.hole_length);
    let mut whole = [0; PAGE_SIZE];
    let (method, bytes) = match image.compression {
        None => (PLAIN, image.bytes),
        Some(Compression::Pglz) => (PGLZ, image.bytes),
        Some(Compression::Lz4) => (LZ4, image.bytes),
        Some(Compression::Zstd) => {
            let whole = &mut whole[..raw];
            match ruzstd::decoding::FrameDecoder::new().decode_all(image.bytes, whole) {
                Ok(length) if length == raw => (PLAIN, &*whole),
                _ => return Err(EncodeError("a page image compressed with zstd does not decompress")),
            }
        }
    };
    let length = u16::try_from(bytes.len()).map_err(|_| EncodeError("a page image is longer than a page"))?;
    DeltaWriter::initialising(out, Kind::Image).u8(method).u16(image.hole_offset).u16(image.hole_length).u16(length).bytes(bytes);
    Ok(())
}

/// XLOG_FPI and XLOG_FPI_FOR_HINT without an image that is applied (xlog_redo, access/transam/xlog.c).
pub fn encode_bare(source: &Source<'_>, _: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    match source.info() {
        ironpage_layout::postgres::rmgr::xlog::FPI_FOR_HINT => Ok(Encoded::Unchanged),
        _ => Err(EncodeError("a record of page images lacks one")),
    }
}

#[cfg(test)]
mod tests;
