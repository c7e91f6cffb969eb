//! The manifest: what a timeline is, and which layers are its.
//!
//! ```text
//! 0                                           160            160 + name
//! | what the timeline is, how far it is       | name        | layers, 96 bytes each |
//! ```
//!
//! Little-endian; one CRC over all, and the length in the head, so a cut file is told from a damaged one.
//! It is always replaced as a whole.

use super::{Header, LayerError, LayerId};
use crate::crc::{crc32c, crc32c_append};
use crate::id::{Slot, TenantId, TimelineId};
use crate::key::{KEY_SIZE, Key};
use crate::lsn::Lsn;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"IPMANIF\0";
/// Version of the manifest format. No other is read.
pub const MANIFEST_VERSION: u32 = 1;
const WHAT: &str = "manifest";

/// What a timeline is, from its creation on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineRecord {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    /// Name of the branch: at most 255 bytes.
    pub name: String,
    pub system_id: u64,
    /// PG_VERSION_NUM.
    pub postgres_version: u32,
    /// A record ends here, and the timeline's WAL begins.
    pub start_lsn: Lsn,
    /// Start of the record that ends at `start_lsn`.
    pub prev_record_lsn: Lsn,
    /// Nothing may be read or branched below: the pages of an import are not those of one moment before. `start_lsn` at least.
    pub readable_lsn: Lsn,
    /// What it goes on from; `None` for one that was imported.
    pub ancestor: Option<Ancestor>,
}

/// Where a branch came off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// Of the same tenant.
    pub timeline: TimelineId,
    /// A record end of the ancestor, at most the branch's `start_lsn`. What the ancestor has up to here is the branch's too.
    pub lsn: Lsn,
}

/// A layer as the manifest names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerRecord {
    pub slot: Slot,
    pub sequence: u64,
    pub lsn_min: Lsn,
    pub lsn_max: Lsn,
    pub key_min: Key,
    pub key_max: Key,
    pub keys: u64,
    pub versions: u64,
    pub file_length: u64,
    /// CRC of the file's first block: no other file of that name is taken for it.
    pub header_crc: u32,
}

impl LayerRecord {
    pub fn of(header: &Header) -> LayerRecord {
        LayerRecord {
            slot: header.id.slot,
            sequence: header.id.sequence,
            lsn_min: header.lsn_min,
            lsn_max: header.lsn_max,
            key_min: header.key_min,
            key_max: header.key_max,
            keys: header.keys,
            versions: header.versions,
            file_length: header.file_length,
            header_crc: crc32c(&header.encode()),
        }
    }

    pub fn file_name(&self) -> String {
        format!("{:04x}-{:016X}-{:016X}-{:08x}.layer", self.slot.0, self.lsn_min.0, self.lsn_max.0, self.sequence)
    }

    pub fn id(&self, timeline: &TimelineRecord) -> LayerId {
        LayerId { tenant: timeline.tenant, timeline: timeline.timeline, slot: self.slot, sequence: self.sequence }
    }

    /// Reads the first block of the file this record names.
    pub fn decode_header(&self, timeline: &TimelineRecord, block: &[u8]) -> Result<Header, LayerError> {
        let header = Header::decode(block)?;
        header.check_id(&self.id(timeline))?;
        if LayerRecord::of(&header) != *self {
            return Err(LayerError::Malformed { what: "layer header", offset: 0, why: "it differs from the manifest" });
        }
        Ok(header)
    }
}

/// A timeline on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub timeline: TimelineRecord,
    /// There are 2^`slot_bits` slots.
    pub slot_bits: u8,
    /// All up to here is in the layers.
    pub disk_consistent_lsn: Lsn,
    /// Start of the record that ends at `disk_consistent_lsn`.
    pub prev_record_lsn: Lsn,
    /// Higher than that of any layer.
    pub next_sequence: u64,
    pub layers: Vec<LayerRecord>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawManifest {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    length: U64,
    tenant: [u8; 16],
    timeline: [u8; 16],
    system_id: U64,
    start_lsn: U64,
    start_prev_record_lsn: U64,
    disk_consistent_lsn: U64,
    prev_record_lsn: U64,
    next_sequence: U64,
    postgres_version: U32,
    layers: U32,
    slot_bits: u8,
    name_length: u8,
    ancestor: [u8; 16],
    /// 0 without an ancestor.
    ancestor_lsn: U64,
    readable_lsn: U64,
    reserved: [u8; 14],
}
const HEAD_SIZE: usize = 160;
const _: () = assert!(size_of::<RawManifest>() == HEAD_SIZE);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawLayer {
    sequence: U64,
    lsn_min: U64,
    lsn_max: U64,
    keys: U64,
    versions: U64,
    file_length: U64,
    header_crc: U32,
    slot: U16,
    key_min: [u8; KEY_SIZE],
    key_max: [u8; KEY_SIZE],
    reserved: [u8; 6],
}
const LAYER_SIZE: usize = 96;
const _: () = assert!(size_of::<RawLayer>() == LAYER_SIZE);

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let name = self.timeline.name.as_bytes();
        let length = HEAD_SIZE + name.len() + self.layers.len() * LAYER_SIZE;
        let mut raw = RawManifest::new_zeroed();
        raw.magic = MAGIC;
        raw.version = U32::new(MANIFEST_VERSION);
        raw.length = U64::new(length as u64);
        raw.tenant = self.timeline.tenant.0;
        raw.timeline = self.timeline.timeline.0;
        raw.system_id = U64::new(self.timeline.system_id);
        raw.start_lsn = U64::new(self.timeline.start_lsn.0);
        raw.start_prev_record_lsn = U64::new(self.timeline.prev_record_lsn.0);
        raw.disk_consistent_lsn = U64::new(self.disk_consistent_lsn.0);
        raw.prev_record_lsn = U64::new(self.prev_record_lsn.0);
        raw.next_sequence = U64::new(self.next_sequence);
        raw.postgres_version = U32::new(self.timeline.postgres_version);
        raw.layers = U32::new(u32::try_from(self.layers.len()).expect("mappings end far below 2^32 layers"));
        raw.slot_bits = self.slot_bits;
        raw.name_length = u8::try_from(name.len()).expect("a branch's name has at most 63 bytes");
        if let Some(ancestor) = self.timeline.ancestor {
            raw.ancestor = ancestor.timeline.0;
            raw.ancestor_lsn = U64::new(ancestor.lsn.0);
        }
        raw.readable_lsn = U64::new(self.timeline.readable_lsn.0);
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(name);
        for layer in &self.layers {
            let raw = RawLayer {
                sequence: U64::new(layer.sequence),
                lsn_min: U64::new(layer.lsn_min.0),
                lsn_max: U64::new(layer.lsn_max.0),
                keys: U64::new(layer.keys),
                versions: U64::new(layer.versions),
                file_length: U64::new(layer.file_length),
                header_crc: U32::new(layer.header_crc),
                slot: U16::new(layer.slot.0),
                key_min: layer.key_min.encode(),
                key_max: layer.key_max.encode(),
                reserved: [0; 6],
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        let crc = crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a manifest; `bytes` are the whole file.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, LayerError> {
        let found = bytes.len() as u64;
        let cut = |needed| LayerError::Truncated { what: WHAT, offset: 0, needed, found };
        let (raw, rest) = RawManifest::read_from_prefix(bytes).map_err(|_| cut(HEAD_SIZE as u64))?;
        if raw.magic != MAGIC {
            return Err(LayerError::BadMagic { what: "a manifest", found: raw.magic });
        }
        if found < raw.length.get() {
            return Err(cut(raw.length.get()));
        }
        let (expected, crc) = (raw.crc.get(), crc32c_append(crc32c_append(crc32c(&bytes[..12]), &[0; 4]), &bytes[16..]));
        if crc != expected {
            return Err(LayerError::BadCrc { what: WHAT, offset: 0, expected, found: crc });
        }
        if raw.version.get() != MANIFEST_VERSION {
            return Err(LayerError::BadVersion { what: WHAT, expected: MANIFEST_VERSION, found: raw.version.get() });
        }
        let malformed = |offset, why| LayerError::Malformed { what: WHAT, offset, why };
        let (name, rest) = rest.split_at_checked(usize::from(raw.name_length)).ok_or(malformed(0, "the name is cut short"))?;
        let name = std::str::from_utf8(name).map_err(|_| malformed(HEAD_SIZE as u64, "the name is not UTF-8"))?;
        let (layers, rest) = rest.as_chunks::<LAYER_SIZE>();
        if layers.len() != raw.layers.get() as usize || !rest.is_empty() || raw.slot_bits > 16 {
            return Err(malformed(0, "its length does not fit its layers, or it has too many slots"));
        }
        let (start_lsn, readable_lsn, ancestor_lsn) = (raw.start_lsn.get(), raw.readable_lsn.get(), raw.ancestor_lsn.get());
        if readable_lsn < start_lsn || ancestor_lsn > start_lsn || (ancestor_lsn == 0 && raw.ancestor != [0; 16]) {
            return Err(malformed(0, "where it starts, is readable and came off its ancestor does not fit together"));
        }
        let manifest = Manifest {
            timeline: TimelineRecord {
                tenant: TenantId(raw.tenant),
                timeline: TimelineId(raw.timeline),
                name: name.to_string(),
                system_id: raw.system_id.get(),
                postgres_version: raw.postgres_version.get(),
                start_lsn: Lsn(start_lsn),
                prev_record_lsn: Lsn(raw.start_prev_record_lsn.get()),
                readable_lsn: Lsn(readable_lsn),
                ancestor: (ancestor_lsn != 0).then_some(Ancestor { timeline: TimelineId(raw.ancestor), lsn: Lsn(ancestor_lsn) }),
            },
            slot_bits: raw.slot_bits,
            disk_consistent_lsn: Lsn(raw.disk_consistent_lsn.get()),
            prev_record_lsn: Lsn(raw.prev_record_lsn.get()),
            next_sequence: raw.next_sequence.get(),
            layers: layers.iter().map(decode_layer).collect::<Option<_>>().ok_or(malformed(0, "a key of unknown kind"))?,
        };
        let known = |layer: &LayerRecord| layer.sequence < manifest.next_sequence && u32::from(layer.slot.0) < 1 << raw.slot_bits;
        if manifest.layers.iter().all(known) { Ok(manifest) } else { Err(malformed(0, "a layer of no flush or slot")) }
    }
}

fn decode_layer(bytes: &[u8; LAYER_SIZE]) -> Option<LayerRecord> {
    let raw: RawLayer = zerocopy::transmute!(*bytes);
    Some(LayerRecord {
        slot: Slot(raw.slot.get()),
        sequence: raw.sequence.get(),
        lsn_min: Lsn(raw.lsn_min.get()),
        lsn_max: Lsn(raw.lsn_max.get()),
        key_min: Key::decode(&raw.key_min)?,
        key_max: Key::decode(&raw.key_max)?,
        keys: raw.keys.get(),
        versions: raw.versions.get(),
        file_length: raw.file_length.get(),
        header_crc: raw.header_crc.get(),
    })
}
