//! The control file: what a timeline is, and what its acceptor must not forget. The layout is documented here.
//!
//! ```text
//! 0          8         12        16        32         48           56          64
//! | IRPGCTL1 | version | crc     | tenant  | timeline | system_id  | start_lsn  |
//! 64                72            80            88                92              96             100
//! | prev_record_lsn | term        | commit_lsn  | postgres_version | history_count | name_length  |
//! 100
//! | name, name_length bytes of UTF-8 | history_count x (term 8, start LSN 8) |
//! ```
//!
//! Little-endian. `crc` is the CRC-32C of the whole file with the crc field zero. The file is only ever
//! replaced as a whole: written beside, flushed, renamed over the old one, the directory flushed. Its size
//! follows from its counts and is bounded: 63 bytes of name, 65,536 entries of history.

use crate::error::{Error, Result};
use ironpage_consensus::PersistentState;
use ironpage_io::fs::{self, File, Options};
use ironpage_layout::crc::crc32c;
use ironpage_layout::wire::admin::{MAX_NAME, TimelineCreate};
use ironpage_layout::wire::append::{MAX_HISTORY, TermHistory};
use ironpage_layout::{Lsn, TenantId, Term, TimelineId};
use std::path::Path;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Name of the control file in a timeline's directory.
pub const FILE_NAME: &str = "control";
const MAGIC: [u8; 8] = *b"IRPGCTL1";
const VERSION: u32 = 1;
const HEAD_SIZE: usize = 100;
const ENTRY_SIZE: usize = 16;
/// No valid control file is longer.
pub const MAX_SIZE: usize = HEAD_SIZE + MAX_NAME + MAX_HISTORY * ENTRY_SIZE;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHead {
    magic: [u8; 8],
    version: U32,
    crc: U32,
    tenant: [u8; 16],
    timeline: [u8; 16],
    system_id: U64,
    start_lsn: U64,
    prev_record_lsn: U64,
    term: U64,
    commit_lsn: U64,
    postgres_version: U32,
    history_count: U32,
    name_length: U32,
}
const _: () = assert!(size_of::<RawHead>() == HEAD_SIZE);

/// What was given when the timeline was created; it never changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub system_id: u64,
    pub start_lsn: Lsn,
    /// Start of the record that ends at `start_lsn`.
    pub prev_record_lsn: Lsn,
    /// PG_VERSION_NUM.
    pub postgres_version: u32,
    /// Name the branch had then: a label, for status.
    pub name: String,
}

impl From<&TimelineCreate> for Properties {
    fn from(create: &TimelineCreate) -> Properties {
        Properties {
            tenant: create.tenant,
            timeline: create.timeline,
            system_id: create.system_id,
            start_lsn: create.start_lsn,
            prev_record_lsn: create.prev_record_lsn,
            postgres_version: create.postgres_version,
            name: create.name.clone(),
        }
    }
}

/// The control file's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    pub properties: Properties,
    pub state: PersistentState,
}

impl Control {
    pub fn encode(&self) -> Vec<u8> {
        let (properties, state) = (&self.properties, &self.state);
        assert!(properties.name.len() <= MAX_NAME && state.history.0.len() <= MAX_HISTORY);
        let head = RawHead {
            magic: MAGIC,
            version: U32::new(VERSION),
            crc: U32::ZERO,
            tenant: properties.tenant.0,
            timeline: properties.timeline.0,
            system_id: U64::new(properties.system_id),
            start_lsn: U64::new(properties.start_lsn.0),
            prev_record_lsn: U64::new(properties.prev_record_lsn.0),
            term: U64::new(state.term.0),
            commit_lsn: U64::new(state.commit_lsn.0),
            postgres_version: U32::new(properties.postgres_version),
            history_count: U32::new(state.history.0.len() as u32),
            name_length: U32::new(properties.name.len() as u32),
        };
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend_from_slice(properties.name.as_bytes());
        for (term, start) in &state.history.0 {
            bytes.extend_from_slice(&term.0.to_le_bytes());
            bytes.extend_from_slice(&start.0.to_le_bytes());
        }
        let head = RawHead { crc: U32::new(crc32c(&bytes)), ..head };
        bytes[..HEAD_SIZE].copy_from_slice(head.as_bytes());
        bytes
    }

    /// The content, or why the bytes are none.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Control, String> {
        let (head, rest) = RawHead::read_from_prefix(bytes).map_err(|_| format!("it has only {} bytes", bytes.len()))?;
        if head.magic != MAGIC {
            return Err("it does not start with IRPGCTL1".into());
        }
        if head.version.get() != VERSION {
            return Err(format!("its format version is {}, this release knows {VERSION}", head.version.get()));
        }
        let crc = ironpage_layout::crc::crc32c_append(crc32c(RawHead { crc: U32::ZERO, ..head }.as_bytes()), rest);
        if crc != head.crc.get() {
            return Err(format!("its CRC is {crc:#010x}, it says {:#010x}", head.crc.get()));
        }
        let (names, entries) = (head.name_length.get() as usize, head.history_count.get() as usize);
        if names > MAX_NAME || entries > MAX_HISTORY || rest.len() != names + entries * ENTRY_SIZE {
            return Err("its counts do not fit its size".into());
        }
        let (name, history) = rest.split_at(names);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let history = history.chunks_exact(ENTRY_SIZE).map(|entry| {
            let (term, start) = entry.split_at(8);
            (Term(word(term)), Lsn(word(start)))
        });
        Ok(Control {
            properties: Properties {
                tenant: TenantId(head.tenant),
                timeline: TimelineId(head.timeline),
                system_id: head.system_id.get(),
                start_lsn: Lsn(head.start_lsn.get()),
                prev_record_lsn: Lsn(head.prev_record_lsn.get()),
                postgres_version: head.postgres_version.get(),
                name: String::from_utf8(name.to_vec()).map_err(|_| "its name is not UTF-8".to_string())?,
            },
            state: PersistentState {
                term: Term(head.term.get()),
                history: TermHistory(history.collect()),
                commit_lsn: Lsn(head.commit_lsn.get()),
                start_lsn: Lsn(head.start_lsn.get()),
            },
        })
    }
}

/// Reads the control file of the timeline in `dir`.
pub async fn read(dir: &Path) -> Result<Control> {
    let path = dir.join(FILE_NAME);
    let size = File::open(&path, Options { read: true, ..Options::default() }).await?.size().await?;
    if size > MAX_SIZE as u64 {
        return Err(Error::DamagedControl { path, why: format!("it has {size} bytes, {MAX_SIZE} at most are possible") });
    }
    Control::decode(&fs::read(&path).await?).map_err(|why| Error::DamagedControl { path, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Control {
        Control {
            properties: Properties {
                tenant: TenantId([1; 16]),
                timeline: TimelineId([2; 16]),
                system_id: 77,
                start_lsn: Lsn(0x1000028),
                prev_record_lsn: Lsn(0x1000000),
                postgres_version: 150018,
                name: "main".into(),
            },
            state: PersistentState {
                term: Term(5),
                history: TermHistory(vec![(Term(1), Lsn(0x1000028)), (Term(5), Lsn(0x1000100))]),
                commit_lsn: Lsn(0x1000100),
                start_lsn: Lsn(0x1000028),
            },
        }
    }

    #[test]
    fn the_bytes_of_version_1_are_pinned() {
        let bytes = control().encode();
        assert_eq!(bytes.len(), 136);
        assert_eq!(&bytes[..12], b"IRPGCTL1\x01\0\0\0");
        assert_eq!(&bytes[56..64], &0x1000028u64.to_le_bytes());
        assert_eq!(&bytes[72..80], &5u64.to_le_bytes());
        assert_eq!(&bytes[100..104], b"main");
        assert_eq!(&bytes[104..112], &1u64.to_le_bytes());
        assert_eq!(Control::decode(&bytes), Ok(control()));
    }

    #[test]
    fn any_damage_is_found() {
        let bytes = control().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Control::decode(&damaged).is_err(), "bit {bit}");
        }
        for short in 0..bytes.len() {
            assert!(Control::decode(&bytes[..short]).is_err(), "{short} bytes");
        }
        assert!(Control::decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
