//! Pages out of a pageserver. The header's term is the compute's; a higher one known answers `Fenced`.
//! Term 0 with a `request_lsn` reads history, as nobody's primary.

use super::{WireError, payload};
use crate::crc::crc32c;
use crate::rel::PAGE_SIZE;
use zerocopy::little_endian::{U32, U64};

/// How urgent a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    Normal = 0,
    Prefetch = 1,
    Background = 2,
}

payload! {
    /// Blocks of one fork. Answered by `Pages`, or `Error`.
    GetPages, 48 {
        tablespace: U32,
        database: U32,
        relation: U32,
        fork: u8,
        class: u8,
        reserved: [u8; 2],
        block: U32,
        /// 1 to `MAX_PAGES`.
        count: U32,
        /// The state wanted; 0 asks for the newest the pageserver has, for the primary alone.
        request_lsn: U64,
        /// The blocks did not change after this LSN up to `request_lsn`: the pageserver waits until it has it.
        not_modified_since: U64,
        /// How long it may wait for that, in milliseconds, before it answers `Unavailable`.
        wait_ms_max: U32,
        reserved2: U32,
    }
}

payload! {
    /// `count` CRC-32C of pages, then as many pages, follow.
    Pages, 24 {
        /// State that was served.
        lsn: U64,
        /// The pageserver's size of the fork then; blocks at or beyond it come as zeros.
        relation_blocks: U32,
        count: U32,
        /// 1 asks the client to slow down; 0 does not.
        slow_down: U32,
        reserved: U32,
    }
}

impl Pages {
    /// Appends the whole payload: `pages` is a whole number of pages.
    pub fn encode_with(&self, pages: &[u8], out: &mut Vec<u8>) {
        assert_eq!(pages.len(), self.count.get() as usize * PAGE_SIZE, "pages of a reply");
        self.encode(out);
        for page in pages.chunks_exact(PAGE_SIZE) {
            out.extend_from_slice(&crc32c(page).to_le_bytes());
        }
        out.extend_from_slice(pages);
    }

    /// The header, the CRCs as bytes, and the pages, each checked against its CRC.
    pub fn decode_with(payload: &[u8]) -> Result<(Pages, &[u8], &[u8]), WireError> {
        let bad = |why| WireError::BadPayload { what: "Pages", why };
        let (head, rest) = Pages::decode_prefix(payload)?;
        let count = head.count.get() as usize;
        if count > super::MAX_PAGES as usize || rest.len() != count * (4 + PAGE_SIZE) {
            return Err(bad("page count does not fit the frame"));
        }
        let (crcs, pages) = rest.split_at(count * 4);
        for (crc, page) in crcs.chunks_exact(4).zip(pages.chunks_exact(PAGE_SIZE)) {
            if crc32c(page).to_le_bytes() != crc {
                return Err(bad("a page differs from its CRC"));
            }
        }
        Ok((head, crcs, pages))
    }
}

payload! {
    /// How far the pageserver is. With `wait_for` it answers once that is ingested, or after `wait_ms_max`.
    IngestStatus, 16 {
        wait_for: U64,
        wait_ms_max: U32,
        reserved: U32,
    }
}

payload! {
    /// The header's term is the highest the pageserver knows for the timeline.
    IngestStatusReply, 16 {
        last_record_lsn: U64,
        disk_consistent_lsn: U64,
    }
}
