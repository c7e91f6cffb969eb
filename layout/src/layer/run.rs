//! Runs: the versions of one key, newest first.

use super::{Body, ImageRef, LayerError, Salt};
use crate::key::KEY_SIZE;
use crate::lsn::Lsn;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const WHAT: &str = "version";

/// Stands before a version's bytes. `crc` covers key, header with the field zero, and bytes, behind the salt.
///
/// With `image_block` the version is an image there; its bytes here are the image's CRC.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawVersion {
    lsn: U64,
    length: U32,
    image_block: U32,
    crc: U32,
}
/// Bytes of a version's header.
pub const VERSION_HEADER_SIZE: usize = 20;
const _: () = assert!(size_of::<RawVersion>() == VERSION_HEADER_SIZE);

/// Appends one version.
pub(super) fn encode_version(salt: Salt, key: &[u8; KEY_SIZE], lsn: Lsn, body: &Body<'_>, out: &mut Vec<u8>) {
    let image_crc;
    let (image_block, bytes): (u32, &[u8]) = match body {
        Body::Inline(bytes) => (0, bytes),
        Body::Image(image) => {
            image_crc = image.crc.to_le_bytes();
            (image.block, &image_crc)
        }
    };
    let length = u32::try_from(bytes.len()).expect("Postgres's values are below 4 GiB (XLogRecordMaxSize)");
    let mut raw =
        RawVersion { lsn: U64::new(lsn.0), length: U32::new(length), image_block: U32::new(image_block), crc: U32::ZERO };
    raw.crc = U32::new(salt.crc(&[key, raw.as_bytes(), bytes]));
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a run, or its head: `bytes` as read from `offset` of the file. Checks every version's CRC and their order.
pub fn decode<'a>(
    salt: Salt,
    key: &[u8; KEY_SIZE],
    offset: u64,
    mut bytes: &'a [u8],
) -> Result<Vec<(Lsn, Body<'a>)>, LayerError> {
    let mut versions: Vec<(Lsn, Body<'a>)> = Vec::new();
    let mut at = offset;
    while !bytes.is_empty() {
        let cut = |needed| LayerError::Truncated { what: WHAT, offset: at, needed, found: bytes.len() as u64 };
        let (raw, rest) = RawVersion::read_from_prefix(bytes).map_err(|_| cut(VERSION_HEADER_SIZE as u64))?;
        let length = raw.length.get() as usize;
        let (body, rest) = rest.split_at_checked(length).ok_or(cut((VERSION_HEADER_SIZE + length) as u64))?;
        let found = salt.crc(&[key, RawVersion { crc: U32::ZERO, ..raw }.as_bytes(), body]);
        if found != raw.crc.get() {
            return Err(LayerError::BadCrc { what: WHAT, offset: at, expected: raw.crc.get(), found });
        }
        let malformed = |why| LayerError::Malformed { what: WHAT, offset: at, why };
        let lsn = Lsn(raw.lsn.get());
        if versions.last().is_some_and(|newer| newer.0 < lsn) {
            return Err(malformed("its LSN is above that of the version before it"));
        }
        let body = match raw.image_block.get() {
            0 => Body::Inline(body),
            block => {
                let crc = body.try_into().map_err(|_| malformed("an image's bytes are not its CRC"))?;
                Body::Image(ImageRef { block, crc: u32::from_le_bytes(crc) })
            }
        };
        versions.push((lsn, body));
        at += (VERSION_HEADER_SIZE + length) as u64;
        bytes = rest;
    }
    Ok(versions)
}
