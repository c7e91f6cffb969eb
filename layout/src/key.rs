//! Names of everything a pageserver stores for a timeline.

use crate::rel::{BlockNumber, Fork, Oid, RelTag};
use std::fmt;

/// What a key names. The number is the first byte of the encoded key, so kinds sort together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum KeyKind {
    /// A page of a relation fork. `Image`, `ZeroPage`, `Record`, `VmSet`, `VmClear`, `VmTruncate`.
    Page = 0,
    /// Size of a relation fork in blocks, sparse in time. `Blob` of 4 bytes, or `Tombstone` once it is gone.
    RelSize = 1,
    /// When a fork was last cut short: a block's values older than its cut are another life's. `Blob`, see `value::RelCuts`.
    RelCuts = 2,
    /// A page of an SLRU. `Image`, `ZeroPage`, `Tombstone`, `Clog`, `MultiOffset`, `MultiMembers`, `CommitTs`.
    Slru = 3,
    /// pg_filenode.map of a database (database 0 with the global tablespace: the shared one). `Blob`.
    RelMap = 4,
    /// A database's directory in a tablespace. `Blob` (its PG_VERSION file), or `Tombstone`.
    Database = 5,
    /// A tablespace. `Blob`, empty, or `Tombstone`.
    Tablespace = 6,
    /// A prepared transaction's state file. `Blob` without its trailing CRC, or `Tombstone`.
    TwoPhase = 7,
    /// pg_control as of this LSN, its checkpoint fields brought up to date. `Blob`.
    Control = 8,
    /// A replication origin's progress. `Blob` or `Tombstone`.
    ReplicationOrigin = 9,
    /// What a bucket of WAL says of commit times and record ends. `Blob`, see `history::History`.
    History = 10,
}

impl KeyKind {
    pub const ALL: [KeyKind; 11] = [
        KeyKind::Page,
        KeyKind::RelSize,
        KeyKind::RelCuts,
        KeyKind::Slru,
        KeyKind::RelMap,
        KeyKind::Database,
        KeyKind::Tablespace,
        KeyKind::TwoPhase,
        KeyKind::Control,
        KeyKind::ReplicationOrigin,
        KeyKind::History,
    ];
}

/// The SLRUs WAL keeps (access/clog.c, multixact.c, commit_ts.c). pg_subtrans, pg_serial and pg_notify do not outlive a start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SlruKind {
    Clog = 0,
    MultiOffsets = 1,
    MultiMembers = 2,
    CommitTs = 3,
}

impl SlruKind {
    pub const ALL: [SlruKind; 4] = [SlruKind::Clog, SlruKind::MultiOffsets, SlruKind::MultiMembers, SlruKind::CommitTs];

    pub fn from_number(number: u8) -> Option<SlruKind> {
        SlruKind::ALL.get(usize::from(number)).copied()
    }

    /// Directory below the data directory.
    pub fn directory(self) -> &'static str {
        ["pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts"][self as usize]
    }
}

/// SLRU_PAGES_PER_SEGMENT (access/slru.h).
pub const SLRU_PAGES_PER_SEGMENT: u32 = 32;

/// Bytes of an encoded key.
pub const KEY_SIZE: usize = 18;

/// Name of one versioned thing. Ordered as its encoding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: KeyKind,
    /// Tablespace; for `Slru` the SlruKind.
    pub tablespace: Oid,
    pub database: Oid,
    /// Relation; for `TwoPhase` the xid, for `ReplicationOrigin` its number, for `History` the bucket's upper half.
    pub relation: Oid,
    pub fork: u8,
    /// Block; for `Slru` the page number, for `History` the bucket's lower half.
    pub block: u32,
}

impl Key {
    pub const MIN: Key = Key::bare(KeyKind::Page);

    const fn bare(kind: KeyKind) -> Key {
        Key { kind, tablespace: 0, database: 0, relation: 0, fork: 0, block: 0 }
    }

    fn relation(kind: KeyKind, rel: RelTag, fork: Fork, block: u32) -> Key {
        Key { kind, tablespace: rel.tablespace, database: rel.database, relation: rel.relation, fork: fork as u8, block }
    }

    pub fn page(rel: RelTag, fork: Fork, block: BlockNumber) -> Key {
        Key::relation(KeyKind::Page, rel, fork, block.0)
    }

    pub fn rel_size(rel: RelTag, fork: Fork) -> Key {
        Key::relation(KeyKind::RelSize, rel, fork, 0)
    }

    pub fn rel_cuts(rel: RelTag, fork: Fork) -> Key {
        Key::relation(KeyKind::RelCuts, rel, fork, 0)
    }

    pub fn slru(kind: SlruKind, page: u32) -> Key {
        Key { tablespace: kind as u32, block: page, ..Key::bare(KeyKind::Slru) }
    }

    pub fn rel_map(tablespace: Oid, database: Oid) -> Key {
        Key { tablespace, database, ..Key::bare(KeyKind::RelMap) }
    }

    pub fn database(tablespace: Oid, database: Oid) -> Key {
        Key { tablespace, database, ..Key::bare(KeyKind::Database) }
    }

    pub fn tablespace(tablespace: Oid) -> Key {
        Key { tablespace, ..Key::bare(KeyKind::Tablespace) }
    }

    pub fn two_phase(xid: u32) -> Key {
        Key { relation: xid, ..Key::bare(KeyKind::TwoPhase) }
    }

    pub fn control() -> Key {
        Key::bare(KeyKind::Control)
    }

    pub fn replication_origin(origin: u16) -> Key {
        Key { relation: u32::from(origin), ..Key::bare(KeyKind::ReplicationOrigin) }
    }

    /// A bucket of WAL, see `history::bucket_of`.
    pub fn history(bucket: u64) -> Key {
        Key { relation: (bucket >> 32) as u32, block: bucket as u32, ..Key::bare(KeyKind::History) }
    }

    /// First key of a kind, and first key after it: the range a scan of the kind covers.
    pub fn kind_range(kind: KeyKind) -> std::ops::RangeInclusive<Key> {
        let last = Key { kind, tablespace: u32::MAX, database: u32::MAX, relation: u32::MAX, fork: u8::MAX, block: u32::MAX };
        Key::bare(kind)..=last
    }

    /// The relation a `Page`, `RelSize` or `RelCuts` key speaks of.
    pub fn rel(self) -> RelTag {
        RelTag { tablespace: self.tablespace, database: self.database, relation: self.relation }
    }

    /// Big-endian fields in order, so that bytes sort as keys do.
    pub fn encode(self) -> [u8; KEY_SIZE] {
        let mut bytes = [0; KEY_SIZE];
        bytes[0] = self.kind as u8;
        bytes[1..5].copy_from_slice(&self.tablespace.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.database.to_be_bytes());
        bytes[9..13].copy_from_slice(&self.relation.to_be_bytes());
        bytes[13] = self.fork;
        bytes[14..18].copy_from_slice(&self.block.to_be_bytes());
        bytes
    }

    /// `None` if the kind byte is none we know.
    pub fn decode(bytes: &[u8; KEY_SIZE]) -> Option<Key> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Key {
            kind: *KeyKind::ALL.get(usize::from(bytes[0]))?,
            tablespace: word(1),
            database: word(5),
            relation: word(9),
            fork: bytes[13],
            block: word(14),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            KeyKind::Page => write!(f, "page {} of {} fork {}", self.block, self.rel(), self.fork),
            KeyKind::RelSize => write!(f, "size of {} fork {}", self.rel(), self.fork),
            KeyKind::RelCuts => write!(f, "cuts of {} fork {}", self.rel(), self.fork),
            KeyKind::Slru => write!(f, "page {} of SLRU {}", self.block, self.tablespace),
            KeyKind::RelMap => write!(f, "relation map of {}/{}", self.tablespace, self.database),
            KeyKind::Database => write!(f, "database {}/{}", self.tablespace, self.database),
            KeyKind::Tablespace => write!(f, "tablespace {}", self.tablespace),
            KeyKind::TwoPhase => write!(f, "prepared transaction {}", self.relation),
            KeyKind::Control => write!(f, "pg_control"),
            KeyKind::ReplicationOrigin => write!(f, "replication origin {}", self.relation),
            KeyKind::History => {
                write!(f, "history from {}", crate::history::bucket_start(u64::from(self.relation) << 32 | u64::from(self.block)))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_round_trips_and_keeps_the_order() {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 };
        let mut keys = vec![
            Key::MIN,
            Key::page(rel, Fork::Vm, BlockNumber(256)),
            Key::page(rel, Fork::Main, BlockNumber(1)),
            Key::rel_size(rel, Fork::Main),
            Key::slru(SlruKind::CommitTs, 7),
            Key::control(),
            Key::history(1 << 33 | 5),
            Key::history(9),
        ];
        for key in &keys {
            assert_eq!(Key::decode(&key.encode()), Some(*key));
        }
        keys.sort();
        assert!(keys.windows(2).all(|pair| pair[0].encode() < pair[1].encode()));
        assert_eq!(Key::decode(&[200; KEY_SIZE]), None);
    }
}
