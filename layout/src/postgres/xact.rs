//! Commit, abort and prepare records (access/xact.h; ParseCommitRecord and its like in rmgrdesc/xactdesc.c).

use super::bytes::Reader;
use crate::lsn::Lsn;
use crate::rel::RelTag;

const HAS_DBINFO: u32 = 1 << 0;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELFILENODES: u32 = 1 << 2;
const HAS_INVALS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
const HAS_DROPPED_STATS: u32 = 1 << 8;

/// sizeof(SharedInvalidationMessage).
const INVALIDATION_SIZE: usize = 16;
/// sizeof(xl_xact_stats_item).
const STATS_ITEM_SIZE: usize = 12;
/// GIDSIZE (access/xact.h), with its terminating zero.
const GID_SIZE: usize = 200;
/// TWOPHASE_MAGIC (access/transam/twophase.c).
const TWOPHASE_MAGIC: u32 = 0x57F9_4534;

/// The end of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Completion {
    /// When, in microseconds since 2000-01-01.
    pub time: i64,
    /// xinfo: which parts the record has.
    pub flags: u32,
    pub database: u32,
    pub subxids: Vec<u32>,
    /// Relations whose files go away with it.
    pub dropped: Vec<RelTag>,
    /// Statistics entries that go away with it: (kind, database, object).
    pub dropped_stats: Vec<(u32, u32, u32)>,
    /// The prepared transaction that ended; 0 if it was not prepared.
    pub twophase_xid: u32,
    pub gid: Vec<u8>,
    /// How far the replication origin came, and when it committed there.
    pub origin: Option<(Lsn, i64)>,
}

/// xl_xact_prepare: the start of a two-phase state file and of a prepare record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepare {
    pub xid: u32,
    pub database: u32,
    pub prepared_at: i64,
    pub subxids: Vec<u32>,
    pub gid: Vec<u8>,
    /// Files that go away if it commits, and if it aborts.
    pub commit_dropped: Vec<RelTag>,
    pub abort_dropped: Vec<RelTag>,
}

/// Which of the two records a [`Completion`] is read from: an abort has no invalidation messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompletionKind {
    Commit,
    Abort,
}

fn rels(reader: &mut Reader<'_>, count: usize) -> Option<Vec<RelTag>> {
    let mut bytes = Reader::new(reader.take(count.checked_mul(12)?)?);
    (0..count).map(|_| Some(RelTag { tablespace: bytes.u32()?, database: bytes.u32()?, relation: bytes.u32()? })).collect()
}

fn count(reader: &mut Reader<'_>) -> Option<usize> {
    usize::try_from(reader.i32()?).ok()
}

impl Completion {
    /// Reads the main data of a commit or abort record; `has_info` is XLOG_XACT_HAS_INFO of its info.
    /// `None` if it is cut short or has parts this version does not know.
    pub fn read(kind: CompletionKind, has_info: HasInfo, main_data: &[u8]) -> Option<Completion> {
        let mut reader = Reader::new(main_data);
        let mut completion = Completion { time: reader.i64()?, ..Completion::default() };
        if has_info == HasInfo::Yes {
            completion.flags = reader.u32()?;
        }
        let has = |flag: u32| completion.flags & flag != 0;
        if has(HAS_DBINFO) {
            completion.database = reader.u32()?;
            reader.u32()?;
        }
        if has(HAS_SUBXACTS) {
            let subxids = count(&mut reader)?;
            completion.subxids = reader.u32s(subxids)?;
        }
        if has(HAS_RELFILENODES) {
            let dropped = count(&mut reader)?;
            completion.dropped = rels(&mut reader, dropped)?;
        }
        if has(HAS_DROPPED_STATS) {
            let items = count(&mut reader)?;
            let mut bytes = Reader::new(reader.take(items.checked_mul(STATS_ITEM_SIZE)?)?);
            let all = (0..items).map(|_| Some((bytes.u32()?, bytes.u32()?, bytes.u32()?)));
            completion.dropped_stats = all.collect::<Option<_>>()?;
        }
        if has(HAS_INVALS) && kind == CompletionKind::Commit {
            let messages = count(&mut reader)?;
            reader.take(messages.checked_mul(INVALIDATION_SIZE)?)?;
        }
        if has(HAS_TWOPHASE) {
            completion.twophase_xid = reader.u32()?;
            if has(HAS_GID) {
                let length = reader.rest().iter().take(GID_SIZE).position(|byte| *byte == 0)?;
                completion.gid = reader.take(length)?.to_vec();
                reader.u8()?;
            }
        }
        if has(HAS_ORIGIN) {
            completion.origin = Some((Lsn(reader.u64()?), reader.i64()?));
        }
        Some(completion)
    }
}

/// Whether a record's info has XLOG_XACT_HAS_INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HasInfo {
    Yes,
    No,
}

impl HasInfo {
    pub fn of(info: u8) -> HasInfo {
        if info & super::rmgr::xact::HAS_INFO != 0 { HasInfo::Yes } else { HasInfo::No }
    }
}

impl Prepare {
    /// Reads the main data of a prepare record, which is also the state file without its CRC.
    pub fn read(main_data: &[u8]) -> Option<Prepare> {
        let mut reader = Reader::new(main_data);
        if reader.u32()? != TWOPHASE_MAGIC {
            return None;
        }
        // total_len counts the CRC that ends the file.
        if reader.u32()? as usize != main_data.len().checked_add(4)? {
            return None;
        }
        let (xid, database, prepared_at) = (reader.u32()?, reader.u32()?, reader.i64()?);
        reader.u32()?;
        let subxids = count(&mut reader)?;
        let (commit_rels, abort_rels) = (count(&mut reader)?, count(&mut reader)?);
        // ncommitstats, nabortstats, ninvalmsgs, initfileinval and its padding.
        reader.take(3 * 4 + 2)?;
        let gid_length = usize::from(reader.u16()?);
        // origin_lsn, origin_timestamp.
        reader.take(16)?;
        let gid = reader.take(gid_length)?;
        let gid = gid.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        reader.align(8)?;
        let subxids = reader.u32s(subxids)?;
        reader.align(8)?;
        let commit_dropped = rels(&mut reader, commit_rels)?;
        reader.align(8)?;
        let abort_dropped = rels(&mut reader, abort_rels)?;
        Some(Prepare { xid, database, prepared_at, subxids, gid, commit_dropped, abort_dropped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, words: &[u32]) {
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    #[test]
    fn a_commit_with_every_part_is_read() {
        let mut data = (-5i64).to_le_bytes().to_vec();
        put(&mut data, &[0x1BF, 5, 1663, 2, 701, 702, 1, 1663, 5, 16384, 1, 7, 5, 9, 1]);
        data.extend([0; INVALIDATION_SIZE]);
        put(&mut data, &[700]);
        data.extend(b"gid\0");
        data.extend(77u64.to_le_bytes());
        data.extend(8i64.to_le_bytes());
        let commit = Completion::read(CompletionKind::Commit, HasInfo::Yes, &data).unwrap();
        assert_eq!((commit.time, commit.database, commit.twophase_xid), (-5, 5, 700));
        assert_eq!(commit.subxids, [701, 702]);
        assert_eq!(commit.dropped, [RelTag { tablespace: 1663, database: 5, relation: 16384 }]);
        assert_eq!(commit.dropped_stats, [(7, 5, 9)]);
        assert_eq!((commit.gid.as_slice(), commit.origin), (&b"gid"[..], Some((Lsn(77), 8))));
        for length in 0..data.len() {
            assert_eq!(Completion::read(CompletionKind::Commit, HasInfo::Yes, &data[..length]), None);
        }
        let bare = Completion::read(CompletionKind::Abort, HasInfo::No, &data[..8]).unwrap();
        assert_eq!(bare, Completion { time: -5, ..Completion::default() });
    }

    #[test]
    fn absurd_counts_are_refused() {
        let mut data = 0i64.to_le_bytes().to_vec();
        put(&mut data, &[HAS_SUBXACTS, u32::MAX]);
        assert_eq!(Completion::read(CompletionKind::Commit, HasInfo::Yes, &data), None);
        data.truncate(8);
        put(&mut data, &[HAS_RELFILENODES, i32::MAX as u32, 0, 0, 0]);
        assert_eq!(Completion::read(CompletionKind::Commit, HasInfo::Yes, &data), None);
    }

    #[test]
    fn a_prepare_record_is_read() {
        let mut data = Vec::new();
        put(&mut data, &[TWOPHASE_MAGIC, 0, 700, 5]);
        data.extend(9i64.to_le_bytes());
        put(&mut data, &[10, 1, 1, 0, 0, 0, 0]);
        data.extend([0, 0, 4, 0]);
        data.extend([0; 16]);
        data.extend(b"gid\0\0\0\0\0");
        put(&mut data, &[701, 0]);
        put(&mut data, &[1663, 5, 16384, 0]);
        let length = data.len() as u32 + 4;
        data[4..8].copy_from_slice(&length.to_le_bytes());
        let prepare = Prepare::read(&data).unwrap();
        assert_eq!((prepare.xid, prepare.database, prepare.prepared_at), (700, 5, 9));
        assert_eq!((prepare.subxids.as_slice(), prepare.gid.as_slice()), (&[701][..], &b"gid"[..]));
        assert_eq!(prepare.commit_dropped.len(), 1);
        assert_eq!(Prepare::read(&data[..data.len() - 1]), None);
        data[0] = 0;
        assert_eq!(Prepare::read(&data), None);
    }
}
