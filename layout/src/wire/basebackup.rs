//! What a data directory needs before Postgres can start, and the way such a directory is imported.
//!
//! `BaseBackup` is answered by `BaseBackupItem` frames and a `BaseBackupEnd`; an import sends the same
//! items as `ImportItem` frames on an `Admin` connection between `TimelineCreate` and `ImportEnd`.

use super::{WireError, payload};
use crate::key::SlruKind;
use crate::rel::{BlockNumber, Fork, Oid, RelTag};
use zerocopy::little_endian::{U32, U64};

payload! {
    /// State at `lsn`, exactly; the pageserver waits for it up to `wait_ms_max`. The header's term fences lower ones from here on.
    BaseBackup, 16 {
        lsn: U64,
        wait_ms_max: U32,
        /// 0 or `ALL_PAGES`.
        flags: U32,
    }
}

/// Flag of a base backup: with the pages of all main forks, visibility maps and init forks, not those of init forks alone.
pub const ALL_PAGES: u32 = 1;

payload! {
    BaseBackupEnd, 24 {
        lsn: U64,
        /// Start of the record that ends at `lsn`: the xl_prev of the next one.
        prev_record_lsn: U64,
        /// Items sent, so that a lost one is noticed.
        items: U64,
    }
}

payload! {
    RawItem, 24 {
        kind: U32,
        a: U32,
        b: U32,
        c: U32,
        d: U32,
        e: U32,
    }
}

/// One part of a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// The bytes of global/pg_control that its struct has (no padding), checkpoint fields as of the LSN.
    Control(&'a [u8]),
    Tablespace(Oid),
    /// A database directory and its PG_VERSION file.
    Database {
        tablespace: Oid,
        database: Oid,
        version: &'a [u8],
    },
    /// pg_filenode.map; database 0 for global/.
    RelMap {
        tablespace: Oid,
        database: Oid,
        map: &'a [u8],
    },
    /// A fork's size. Sent before any of its pages.
    RelSize {
        rel: RelTag,
        fork: Fork,
        blocks: u32,
    },
    /// Pages of a fork from `block` on, whole pages. In a base backup only those of init forks, unless `ALL_PAGES` asked for more.
    RelPages {
        rel: RelTag,
        fork: Fork,
        block: BlockNumber,
        pages: &'a [u8],
    },
    /// Pages of an SLRU from page number `page` on.
    SlruPages {
        slru: SlruKind,
        page: u32,
        pages: &'a [u8],
    },
    /// A prepared transaction's state without the CRC that ends its file.
    TwoPhase {
        xid: u32,
        state: &'a [u8],
    },
}

impl<'a> Item<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, fields, body): (u32, [u32; 5], &[u8]) = match *self {
            Item::Control(bytes) => (1, [0; 5], bytes),
            Item::Tablespace(oid) => (2, [oid, 0, 0, 0, 0], &[]),
            Item::Database { tablespace, database, version } => (3, [tablespace, database, 0, 0, 0], version),
            Item::RelMap { tablespace, database, map } => (4, [tablespace, database, 0, 0, 0], map),
            Item::RelSize { rel, fork, blocks } => {
                (5, [rel.tablespace, rel.database, rel.relation, u32::from(fork as u8), blocks], &[])
            }
            Item::RelPages { rel, fork, block, pages } => {
                (6, [rel.tablespace, rel.database, rel.relation, u32::from(fork as u8), block.0], pages)
            }
            Item::SlruPages { slru, page, pages } => (7, [u32::from(slru as u8), page, 0, 0, 0], pages),
            Item::TwoPhase { xid, state } => (8, [xid, 0, 0, 0, 0], state),
        };
        let [a, b, c, d, e] = fields.map(U32::new);
        RawItem { kind: U32::new(kind), a, b, c, d, e }.encode(out);
        out.extend_from_slice(body);
    }

    pub fn decode(payload: &'a [u8]) -> Result<Item<'a>, WireError> {
        let bad = |why| WireError::BadPayload { what: "base backup item", why };
        let (raw, body) = RawItem::decode_prefix(payload)?;
        let [a, b, c, d, e] = [raw.a, raw.b, raw.c, raw.d, raw.e].map(U32::get);
        let rel = RelTag { tablespace: a, database: b, relation: c };
        let fork = || u8::try_from(d).ok().and_then(Fork::from_number).ok_or(bad("unknown fork"));
        let whole_pages = || {
            if body.is_empty() || !body.len().is_multiple_of(crate::rel::PAGE_SIZE) {
                return Err(bad("not a whole number of pages"));
            }
            Ok(body)
        };
        Ok(match raw.kind.get() {
            1 => Item::Control(body),
            2 => Item::Tablespace(a),
            3 => Item::Database { tablespace: a, database: b, version: body },
            4 => Item::RelMap { tablespace: a, database: b, map: body },
            5 => Item::RelSize { rel, fork: fork()?, blocks: e },
            6 => Item::RelPages { rel, fork: fork()?, block: BlockNumber(e), pages: whole_pages()? },
            7 => {
                let slru = u8::try_from(a).ok().and_then(SlruKind::from_number).ok_or(bad("unknown SLRU"))?;
                Item::SlruPages { slru, page: b, pages: whole_pages()? }
            }
            8 => Item::TwoPhase { xid: a, state: body },
            _ => return Err(bad("unknown kind")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_round_trip() {
        let rel = RelTag { tablespace: 1663, database: 5, relation: 9 };
        let page = [1; 8192];
        let items = [
            Item::Control(b"control"),
            Item::Tablespace(7),
            Item::Database { tablespace: 1663, database: 5, version: b"15\n" },
            Item::RelMap { tablespace: 1664, database: 0, map: b"map" },
            Item::RelSize { rel, fork: Fork::Vm, blocks: 3 },
            Item::RelPages { rel, fork: Fork::Init, block: BlockNumber(2), pages: &page },
            Item::SlruPages { slru: SlruKind::MultiOffsets, page: 4, pages: &page },
            Item::TwoPhase { xid: 800, state: b"state" },
        ];
        for item in items {
            let mut bytes = Vec::new();
            item.encode(&mut bytes);
            assert_eq!(Item::decode(&bytes), Ok(item));
        }
    }
}
