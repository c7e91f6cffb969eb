//! Bytes of the redo worker's pipe; the other side is `redo-worker/worker.h`.

use ironpage_layout::postgres::rmgr::rmgr_name;
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{BlockNumber, Fork, Lsn, RelTag};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most bytes of records in one request. Longer chains become several requests, each starting from the
/// page the one before gave. The worker takes far more, for the sake of a single huge record.
pub const MAX_BATCH_BYTES: usize = 1 << 20;
/// Most bytes of any request: MAX_REQUEST of worker.h.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

const OP_REDO: u8 = b'R';
const OP_PING: u8 = b'P';

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct RawRequest {
    length: U32,
    op: u8,
    has_base: u8,
    hint_bits_logged: u8,
    fork: u8,
    tablespace: U32,
    database: U32,
    relation: U32,
    block: U32,
    records: U32,
    reserved2: U32,
}
const _: () = assert!(size_of::<RawRequest>() == 32);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct RawReply {
    failed: U32,
    invalid: U32,
    applied: U32,
    reserved: U32,
}

/// Bytes of every reply.
pub const REPLY_SIZE: usize = size_of::<RawReply>() + PAGE_SIZE;
const _: () = assert!(size_of::<RawReply>() == 16);

/// Whether changes of hint bits are in the WAL, as they are for clusters with data checksums: then a record that marks a
/// heap page all-visible also sets its LSN (heap_xlog_visible, access/heap/heapam.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HintBits {
    Logged,
    Unlogged,
}

/// A page by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageTag {
    pub rel: RelTag,
    pub fork: Fork,
    pub block: BlockNumber,
}

impl std::fmt::Display for PageTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block {} of {}{}", self.block.0, self.rel, self.fork.suffix())
    }
}

/// A WAL record as stored, and where it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedoRecord {
    pub end_lsn: Lsn,
    /// All `xl_tot_len` bytes, starting with the XLogRecord header (access/xlogrecord.h).
    pub bytes: Vec<u8>,
}

impl RedoRecord {
    /// Bytes it takes in a request.
    pub fn request_bytes(&self) -> usize {
        8 + self.bytes.len().next_multiple_of(8)
    }
}

impl std::fmt::Display for RedoRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // xl_info and xl_rmid (access/xlogrecord.h).
        match self.bytes.get(16..18) {
            Some(&[info, rmgr]) => {
                write!(f, "the record of rmgr {rmgr} ({}), info {info:#04x}, that ends at {}", rmgr_name(rmgr), self.end_lsn)
            }
            _ => write!(f, "the cut-off record that ends at {}", self.end_lsn),
        }
    }
}

/// A whole request appended to `out`: apply `records` to `base`, or to a page of zeros.
pub fn encode_redo(
    out: &mut Vec<u8>,
    page: PageTag,
    hint_bits: HintBits,
    base: Option<&[u8; PAGE_SIZE]>,
    records: &[RedoRecord],
) {
    let body: usize = records.iter().map(RedoRecord::request_bytes).sum();
    let length = size_of::<RawRequest>() + base.map_or(0, |base| base.len()) + body;
    assert!(length <= MAX_REQUEST_BYTES, "a request of {length} bytes: batches are bounded before");
    out.reserve(length);
    let raw = RawRequest {
        length: U32::new(length as u32),
        op: OP_REDO,
        has_base: u8::from(base.is_some()),
        hint_bits_logged: u8::from(hint_bits == HintBits::Logged),
        fork: page.fork as u8,
        tablespace: U32::new(page.rel.tablespace),
        database: U32::new(page.rel.database),
        relation: U32::new(page.rel.relation),
        block: U32::new(page.block.0),
        records: U32::new(records.len() as u32),
        reserved2: U32::ZERO,
    };
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(base.map_or(&[][..], |base| &base[..]));
    for record in records {
        out.extend_from_slice(&record.end_lsn.0.to_le_bytes());
        out.extend_from_slice(&record.bytes);
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

/// A request that does nothing, appended to `out`.
pub fn encode_ping(out: &mut Vec<u8>) {
    let mut raw = RawRequest::new_zeroed();
    raw.length = U32::new(size_of::<RawRequest>() as u32);
    raw.op = OP_PING;
    out.extend_from_slice(raw.as_bytes());
}

/// What the worker made of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Page(Box<[u8; PAGE_SIZE]>),
    /// A record found an uninitialised page: the base or a record before it is missing.
    Invalid,
    /// Redo raised an ERROR at the record of this index.
    Failed {
        record: usize,
        message: String,
    },
}

/// Reads one reply; `None` if it is none.
pub fn decode_reply(bytes: &[u8; REPLY_SIZE]) -> Option<Reply> {
    let (raw, page) = RawReply::read_from_prefix(bytes).ok()?;
    match (raw.failed.get(), raw.invalid.get()) {
        (0, 0) => Some(Reply::Page(Box::new(page.try_into().ok()?))),
        (0, 1) => Some(Reply::Invalid),
        (1, _) => {
            let text = page.split(|&byte| byte == 0).next().unwrap_or_default();
            Some(Reply::Failed { record: raw.applied.get() as usize, message: String::from_utf8_lossy(text).into_owned() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageTag =
        PageTag { rel: RelTag { tablespace: 1663, database: 5, relation: 16384 }, fork: Fork::Vm, block: BlockNumber(3) };

    #[test]
    fn requests_are_laid_out_as_the_worker_reads_them() {
        let records =
            [RedoRecord { end_lsn: Lsn(0x1122), bytes: vec![9; 27] }, RedoRecord { end_lsn: Lsn(7), bytes: vec![8; 32] }];
        let mut bytes = Vec::new();
        encode_redo(&mut bytes, PAGE, HintBits::Unlogged, None, &records);
        assert_eq!(bytes.len(), 32 + 8 + 32 + 8 + 32);
        assert_eq!(bytes[..8], [112, 0, 0, 0, b'R', 0, 0, 2]);
        assert_eq!(bytes[20..28], [3, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[32..42], [0x22, 0x11, 0, 0, 0, 0, 0, 0, 9, 9]);

        bytes.clear();
        encode_redo(&mut bytes, PAGE, HintBits::Logged, Some(&[1; PAGE_SIZE]), &[]);
        assert_eq!((bytes.len(), bytes[5], bytes[6], bytes[32]), (32 + PAGE_SIZE, 1, 1, 1));
    }

    #[test]
    fn replies_are_pages_or_say_what_failed() {
        let mut bytes = [0; REPLY_SIZE];
        bytes[16..].fill(4);
        assert_eq!(decode_reply(&bytes), Some(Reply::Page(Box::new([4; PAGE_SIZE]))));
        bytes[4] = 1;
        assert_eq!(decode_reply(&bytes), Some(Reply::Invalid));
        bytes[..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        bytes[16..20].copy_from_slice(b"oh!\0");
        assert_eq!(decode_reply(&bytes), Some(Reply::Failed { record: 2, message: "oh!".into() }));
        bytes[0] = 9;
        assert_eq!(decode_reply(&bytes), None);
    }
}
