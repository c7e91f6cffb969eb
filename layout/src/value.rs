//! Values of a pageserver's keys: whole states and the deltas between them.
//!
//! A state (`Image`, `ZeroPage`, `Blob`, `Tombstone`, an initialising `Record`) ends the search for
//! older values; a delta applies to what lies before it. Byte 0 is the tag, the rest the body.

use crate::lsn::Lsn;
use crate::rel::PAGE_SIZE;
use std::borrow::Cow;

/// One version of one key, at the end LSN of the record that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// All 8192 bytes of a page.
    Image(Cow<'a, [u8]>),
    /// 8192 zero bytes.
    ZeroPage,
    /// The whole state of anything that is not a page.
    Blob(Cow<'a, [u8]>),
    /// The thing is gone.
    Tombstone,
    /// A WAL record as Postgres wrote it, that changes this page. With `initialises` no older value is needed.
    Record { initialises: bool, bytes: Cow<'a, [u8]> },
    /// visibilitymap_set on the bits of this heap block (XLOG_HEAP2_VISIBLE).
    VmSet { heap_block: u32, flags: u8 },
    /// visibilitymap_clear on the bits of this heap block.
    VmClear { heap_block: u32, flags: u8 },
    /// The heap was cut to this many blocks: the bits from there on are cleared (visibilitymap_prepare_truncate).
    VmTruncate { heap_blocks: u32 },
    /// Transactions of this clog page and their two status bits.
    Clog { status: u8, xids: Cow<'a, [u32]> },
    /// Members offset of one multixact (pg_multixact/offsets).
    MultiOffset { multi: u32, offset: u32 },
    /// Members of one multixact that lie on this page, from member number `first` on: (xid, status).
    MultiMembers { first: u32, members: Cow<'a, [(u32, u8)]> },
    /// Commit time (microseconds since 2000-01-01) and origin of these transactions.
    CommitTs { time: i64, origin: u16, xids: Cow<'a, [u32]> },
}

/// The bytes are not a value this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("value of {length} bytes with tag {tag} does not decode: the layer is damaged or from a newer version")]
pub struct DecodeValueError {
    pub tag: u8,
    pub length: usize,
}

const TAG_IMAGE: u8 = 1;
const TAG_ZERO_PAGE: u8 = 2;
const TAG_BLOB: u8 = 3;
const TAG_TOMBSTONE: u8 = 4;
const TAG_RECORD: u8 = 5;
const TAG_RECORD_INIT: u8 = 6;
const TAG_VM_SET: u8 = 7;
const TAG_VM_CLEAR: u8 = 8;
const TAG_VM_TRUNCATE: u8 = 9;
const TAG_CLOG: u8 = 10;
const TAG_MULTI_OFFSET: u8 = 11;
const TAG_MULTI_MEMBERS: u8 = 12;
const TAG_COMMIT_TS: u8 = 13;

impl<'a> Value<'a> {
    /// Whether the search for older values ends here.
    pub fn is_state(&self) -> bool {
        matches!(
            self,
            Value::Image(_) | Value::ZeroPage | Value::Blob(_) | Value::Tombstone | Value::Record { initialises: true, .. }
        )
    }

    /// As [`Value::is_state`], from the encoded form without decoding it.
    pub fn encoded_is_state(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(TAG_IMAGE | TAG_ZERO_PAGE | TAG_BLOB | TAG_TOMBSTONE | TAG_RECORD_INIT)))
    }

    /// Appends the encoded value to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let words = |out: &mut Vec<u8>, xids: &[u32]| xids.iter().for_each(|xid| out.extend_from_slice(&xid.to_le_bytes()));
        match self {
            Value::Image(page) => {
                assert_eq!(page.len(), PAGE_SIZE, "an image is one page");
                out.push(TAG_IMAGE);
                out.extend_from_slice(page);
            }
            Value::ZeroPage => out.push(TAG_ZERO_PAGE),
            Value::Blob(bytes) => {
                out.push(TAG_BLOB);
                out.extend_from_slice(bytes);
            }
            Value::Tombstone => out.push(TAG_TOMBSTONE),
            Value::Record { initialises, bytes } => {
                out.push(if *initialises { TAG_RECORD_INIT } else { TAG_RECORD });
                out.extend_from_slice(bytes);
            }
            Value::VmSet { heap_block, flags } => {
                out.extend_from_slice(&[TAG_VM_SET, *flags]);
                out.extend_from_slice(&heap_block.to_le_bytes());
            }
            Value::VmClear { heap_block, flags } => {
                out.extend_from_slice(&[TAG_VM_CLEAR, *flags]);
                out.extend_from_slice(&heap_block.to_le_bytes());
            }
            Value::VmTruncate { heap_blocks } => {
                out.push(TAG_VM_TRUNCATE);
                out.extend_from_slice(&heap_blocks.to_le_bytes());
            }
            Value::Clog { status, xids } => {
                out.extend_from_slice(&[TAG_CLOG, *status]);
                words(out, xids);
            }
            Value::MultiOffset { multi, offset } => {
                out.push(TAG_MULTI_OFFSET);
                words(out, &[*multi, *offset]);
            }
            Value::MultiMembers { first, members } => {
                out.push(TAG_MULTI_MEMBERS);
                words(out, &[*first]);
                for (xid, status) in members.iter() {
                    words(out, &[*xid]);
                    out.push(*status);
                }
            }
            Value::CommitTs { time, origin, xids } => {
                out.push(TAG_COMMIT_TS);
                out.extend_from_slice(&time.to_le_bytes());
                out.extend_from_slice(&origin.to_le_bytes());
                words(out, xids);
            }
        }
    }

    /// Reads one encoded value; `bytes` are all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Value<'a>, DecodeValueError> {
        let (&tag, body) = bytes.split_first().ok_or(DecodeValueError { tag: 0, length: 0 })?;
        let error = DecodeValueError { tag, length: bytes.len() };
        let word = |at: usize| body.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
        let words = |from: usize| -> Option<Cow<'a, [u32]>> {
            let rest = body.get(from..)?;
            let whole = rest.len() % 4 == 0;
            whole.then(|| rest.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
        };
        let exactly = |length: usize| (body.len() == length).then_some(());
        let value = || -> Option<Value<'a>> {
            Some(match tag {
                TAG_IMAGE => {
                    exactly(PAGE_SIZE)?;
                    Value::Image(Cow::Borrowed(body))
                }
                TAG_ZERO_PAGE => {
                    exactly(0)?;
                    Value::ZeroPage
                }
                TAG_BLOB => Value::Blob(Cow::Borrowed(body)),
                TAG_TOMBSTONE => {
                    exactly(0)?;
                    Value::Tombstone
                }
                TAG_RECORD | TAG_RECORD_INIT => Value::Record { initialises: tag == TAG_RECORD_INIT, bytes: Cow::Borrowed(body) },
                TAG_VM_SET | TAG_VM_CLEAR => {
                    exactly(5)?;
                    let (flags, heap_block) = (body[0], word(1)?);
                    if tag == TAG_VM_SET { Value::VmSet { heap_block, flags } } else { Value::VmClear { heap_block, flags } }
                }
                TAG_VM_TRUNCATE => {
                    exactly(4)?;
                    Value::VmTruncate { heap_blocks: word(0)? }
                }
                TAG_CLOG => Value::Clog { status: *body.first()?, xids: words(1)? },
                TAG_MULTI_OFFSET => {
                    exactly(8)?;
                    Value::MultiOffset { multi: word(0)?, offset: word(4)? }
                }
                TAG_MULTI_MEMBERS => {
                    let rest = body.get(4..).filter(|rest| rest.len() % 5 == 0)?;
                    let member = |five: &[u8]| (u32::from_le_bytes([five[0], five[1], five[2], five[3]]), five[4]);
                    Value::MultiMembers { first: word(0)?, members: rest.chunks_exact(5).map(member).collect() }
                }
                TAG_COMMIT_TS => Value::CommitTs {
                    time: i64::from_le_bytes(body.get(..8)?.try_into().ok()?),
                    origin: u16::from_le_bytes(body.get(8..10)?.try_into().ok()?),
                    xids: words(10)?,
                },
                _ => return None,
            })
        };
        value().ok_or(error)
    }
}

/// When a fork was cut, and to what: the body of a `RelCuts` blob.
///
/// Kept minimal: a cut to fewer or as many blocks hides every cut before it, so the list grows in
/// both LSN and blocks and stays short.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RelCuts {
    cuts: Vec<(Lsn, u32)>,
}

impl RelCuts {
    /// The fork has `blocks` blocks as of `lsn`; what lay beyond is gone.
    pub fn cut(&mut self, lsn: Lsn, blocks: u32) {
        while self.cuts.last().is_some_and(|last| last.1 >= blocks) {
            self.cuts.pop();
        }
        self.cuts.push((lsn, blocks));
    }

    /// Values of `block` at or before this LSN belong to a former life. `Lsn::INVALID` if there was none.
    pub fn cut_of(&self, block: u32) -> Lsn {
        self.cuts.iter().rev().find(|cut| cut.1 <= block).map_or(Lsn::INVALID, |cut| cut.0)
    }

    pub fn encode(&self) -> Vec<u8> {
        self.cuts.iter().flat_map(|cut| cut.0.0.to_le_bytes().into_iter().chain(cut.1.to_le_bytes())).collect()
    }

    /// `None` if the bytes are not whole entries in growing order.
    pub fn decode(bytes: &[u8]) -> Option<RelCuts> {
        if !bytes.len().is_multiple_of(12) {
            return None;
        }
        let mut cuts: Vec<(Lsn, u32)> = Vec::with_capacity(bytes.len() / 12);
        for entry in bytes.chunks_exact(12) {
            let cut = (Lsn(u64::from_le_bytes(entry[..8].try_into().ok()?)), u32::from_le_bytes(entry[8..].try_into().ok()?));
            if cuts.last().is_some_and(|last| last.0 > cut.0 || last.1 >= cut.1) {
                return None;
            }
            cuts.push(cut);
        }
        Some(RelCuts { cuts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_round_trips() {
        let page = vec![7; PAGE_SIZE];
        let values = [
            Value::Image(Cow::Borrowed(&page)),
            Value::ZeroPage,
            Value::Blob(Cow::Borrowed(b"abc")),
            Value::Tombstone,
            Value::Record { initialises: true, bytes: Cow::Borrowed(b"record") },
            Value::Record { initialises: false, bytes: Cow::Borrowed(b"record") },
            Value::VmSet { heap_block: 9, flags: 3 },
            Value::VmClear { heap_block: 9, flags: 1 },
            Value::VmTruncate { heap_blocks: 12 },
            Value::Clog { status: 1, xids: Cow::Borrowed(&[4, 5]) },
            Value::MultiOffset { multi: 3, offset: 8 },
            Value::MultiMembers { first: 8, members: Cow::Borrowed(&[(700, 1), (701, 5)]) },
            Value::CommitTs { time: -5, origin: 2, xids: Cow::Borrowed(&[700]) },
        ];
        for value in values {
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            assert_eq!(Value::decode(&bytes).as_ref(), Ok(&value));
            assert_eq!(Value::encoded_is_state(&bytes), value.is_state());
            for short in 0..bytes.len() {
                // Cut values may still be values of another length; they must not panic.
                let _ = Value::decode(&bytes[..short]);
            }
        }
    }

    #[test]
    fn a_block_remembers_its_last_cut_only() {
        let mut cuts = RelCuts::default();
        cuts.cut(Lsn(10), 5);
        cuts.cut(Lsn(20), 8);
        assert_eq!((cuts.cut_of(4), cuts.cut_of(6), cuts.cut_of(8)), (Lsn(0), Lsn(10), Lsn(20)));
        cuts.cut(Lsn(30), 5);
        assert_eq!((cuts.cut_of(4), cuts.cut_of(5), cuts.cut_of(100)), (Lsn(0), Lsn(30), Lsn(30)));
        assert_eq!(RelCuts::decode(&cuts.encode()), Some(cuts));
        assert_eq!(RelCuts::decode(&[0; 13]), None);
    }
}
