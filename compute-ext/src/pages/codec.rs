//! Requests to the pageserver, and its replies.

use ironpage_layout::id::{TenantId, Term, TimelineId};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::wire::hello::{Hello, HelloReply, Role};
use ironpage_layout::wire::pages::{Class, GetPages, IngestStatus, IngestStatusReply, Pages};
use ironpage_layout::wire::{ErrorCode, HEADER_SIZE, Kind, RemoteError, WireError, encode_frame, split_frame};
use zerocopy::little_endian::{U32, U64};

use crate::cache::BlockKey;

/// Bytes that hold any reply to a request of one page, and the longest error message.
pub const REPLY_BYTES_MAX: usize = HEADER_SIZE + 16 + 2 * PAGE_SIZE;

/// A reply, checked.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    Welcome,
    Page { lsn: u64, relation_blocks: u32, slow_down: bool, page: &'a [u8] },
    Ingest { last_record_lsn: u64, disk_consistent_lsn: u64 },
    Error(RemoteError),
}

/// The next reply of a stream: its request id, its term, what it says, and the bytes it took.
pub type Next<'a> = (u64, Term, Reply<'a>, usize);

pub fn encode_hello(tenant: TenantId, timeline: TimelineId, system_id: u64, postgres_version: u32, term: Term) -> Vec<u8> {
    let hello = Hello { role: Role::PageReader, tenant, timeline, system_id, postgres_version, token: Vec::new() };
    let mut out = Vec::new();
    encode_frame(&mut out, Kind::Hello, 0, term, |out| hello.encode(out));
    out
}

/// Which version of a block is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The state wanted; 0 for the newest, which is the primary's alone to ask for.
    pub request_lsn: u64,
    /// The block did not change after this LSN up to `request_lsn`.
    pub not_modified_since: u64,
}

/// Asks for one block.
pub fn encode_get_page(request_id: u64, term: Term, key: &BlockKey, version: Version, wait_ms_max: u32) -> Vec<u8> {
    let request = GetPages {
        tablespace: U32::new(key.tablespace),
        database: U32::new(key.database),
        relation: U32::new(key.relation),
        fork: key.fork as u8,
        class: Class::Normal as u8,
        reserved: [0; 2],
        block: U32::new(key.block),
        count: U32::new(1),
        request_lsn: U64::new(version.request_lsn),
        not_modified_since: U64::new(version.not_modified_since),
        wait_ms_max: U32::new(wait_ms_max),
        reserved2: U32::ZERO,
    };
    let mut out = Vec::new();
    encode_frame(&mut out, Kind::GetPages, request_id, term, |out| request.encode(out));
    out
}

pub fn encode_ingest_status(request_id: u64, term: Term, wait_for: u64, wait_ms_max: u32) -> Vec<u8> {
    let request = IngestStatus { wait_for: U64::new(wait_for), wait_ms_max: U32::new(wait_ms_max), reserved: U32::ZERO };
    let mut out = Vec::new();
    encode_frame(&mut out, Kind::IngestStatus, request_id, term, |out| request.encode(out));
    out
}

/// The first reply in `bytes`; `None` if more are needed.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<Next<'_>>, WireError> {
    let bad = |what, why| WireError::BadPayload { what, why };
    let Some((header, payload, taken)) = split_frame(bytes)? else {
        return Ok(None);
    };
    let reply = match header.kind {
        Kind::HelloReply => HelloReply::decode(payload).map(|_| Reply::Welcome)?,
        Kind::Pages => {
            let (head, _, page) = Pages::decode_with(payload)?;
            if page.len() != PAGE_SIZE {
                return Err(bad("Pages", "not the one page that was asked for"));
            }
            Reply::Page {
                lsn: head.lsn.get(),
                relation_blocks: head.relation_blocks.get(),
                slow_down: head.slow_down.get() != 0,
                page,
            }
        }
        Kind::IngestStatusReply => {
            let status = IngestStatusReply::decode(payload)?;
            Reply::Ingest { last_record_lsn: status.last_record_lsn.get(), disk_consistent_lsn: status.disk_consistent_lsn.get() }
        }
        Kind::Error => Reply::Error(RemoteError::decode(payload)?),
        _ => return Err(bad("reply", "of a kind that answers no page request")),
    };
    Ok(Some((header.request_id, header.term, reply, taken)))
}

/// May the request that got this error be sent again, unchanged?
pub fn retryable(code: ErrorCode) -> bool {
    code == ErrorCode::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironpage_layout::crc::crc32c;

    const KEY: BlockKey = BlockKey { tablespace: 1663, database: 5, relation: 16384, fork: 0, block: 7 };

    fn pages_frame(page: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let head = Pages {
            lsn: U64::new(99),
            relation_blocks: U32::new(8),
            count: U32::new((page.len() / PAGE_SIZE) as u32),
            slow_down: U32::new(1),
            reserved: U32::ZERO,
        };
        encode_frame(&mut out, Kind::Pages, 3, Term(2), |out| head.encode_with(page, out));
        out
    }

    #[test]
    fn requests_are_what_the_pageserver_decodes() {
        let bytes = encode_get_page(3, Term(2), &KEY, Version { request_lsn: 0, not_modified_since: 77 }, 1000);
        let (header, payload, taken) = split_frame(&bytes).unwrap().unwrap();
        assert_eq!((header.kind, header.request_id, header.term, taken), (Kind::GetPages, 3, Term(2), bytes.len()));
        let request = GetPages::decode(payload).unwrap();
        assert_eq!((request.block.get(), request.count.get(), request.request_lsn.get()), (7, 1, 0));
        assert_eq!((request.not_modified_since.get(), request.wait_ms_max.get()), (77, 1000));

        let bytes = encode_hello(TenantId([1; 16]), TimelineId([2; 16]), 5, 150020, Term(2));
        let (_, payload, _) = split_frame(&bytes).unwrap().unwrap();
        let hello = Hello::decode(payload).unwrap();
        assert_eq!((hello.role, hello.tenant, hello.system_id), (Role::PageReader, TenantId([1; 16]), 5));
    }

    #[test]
    fn a_page_comes_back_and_fits_the_buffer() {
        let page = [7; PAGE_SIZE];
        let bytes = pages_frame(&page);
        assert!(bytes.len() <= REPLY_BYTES_MAX);
        for short in [0, HEADER_SIZE, bytes.len() - 1] {
            assert_eq!(decode_reply(&bytes[..short]), Ok(None));
        }
        let expected = Reply::Page { lsn: 99, relation_blocks: 8, slow_down: true, page: &page };
        assert_eq!(decode_reply(&bytes), Ok(Some((3, Term(2), expected, bytes.len()))));
        assert_eq!(crc32c(&page).to_le_bytes()[..], bytes[HEADER_SIZE + 24..HEADER_SIZE + 28]);
    }

    #[test]
    fn anything_but_one_page_is_refused() {
        assert!(decode_reply(&pages_frame(&[])).is_err());
        assert!(decode_reply(&pages_frame(&[1; 2 * PAGE_SIZE])).is_err());
        assert!(decode_reply(&encode_get_page(1, Term(1), &KEY, Version { request_lsn: 0, not_modified_since: 0 }, 0)).is_err());
        assert!(decode_reply(b"HTTP/1.1 400 Bad Request, and some more").is_err());
    }

    #[test]
    fn errors_keep_their_term_and_their_message() {
        let error = RemoteError { code: ErrorCode::Fenced, message: "term 9 is known".into() };
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Kind::Error, 4, Term(9), |out| error.encode(out));
        let taken = bytes.len();
        assert_eq!(decode_reply(&bytes), Ok(Some((4, Term(9), Reply::Error(error), taken))));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        let good = [pages_frame(&[5; PAGE_SIZE]), encode_ingest_status(1, Term(1), 0, 0)];
        for round in 0..2000 {
            let mut bytes = good[round % 2].clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] ^= (seed >> 17) as u8;
            }
            bytes.truncate((seed >> 20) as usize % (bytes.len() + 1));
            let _ = decode_reply(&bytes);
        }
    }
}
