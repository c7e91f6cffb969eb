//! Applies values of our own to a page. Whole WAL records are for redo.

use ironpage_layout::key::SlruKind;
use ironpage_layout::postgres::page::{self, visibility};
use ironpage_layout::postgres::slru::{clog, commit_ts, multi_members, multi_offsets};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{Fork, Key, KeyKind, Lsn, Value};

/// A value does not belong to the page it is stored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key} at {lsn}: {why}")]
pub struct ApplyError {
    pub key: Key,
    pub lsn: Lsn,
    pub why: &'static str,
}

/// Changes the page of `key` by a value of any kind but `Record`, which `lsn` belongs to. A page without a past is zeros.
pub fn apply_delta(page: &mut [u8; PAGE_SIZE], key: Key, value: &Value<'_>, lsn: Lsn) -> Result<(), ApplyError> {
    let wrong = |why| Err(ApplyError { key, lsn, why });
    let is_map = key.kind == KeyKind::Page && key.fork == Fork::Vm as u8;
    let is_slru = |slru: SlruKind| key.kind == KeyKind::Slru && key.tablespace == slru as u32;
    const ELSEWHERE: &str = "the value belongs to another page";
    match value {
        Value::Image(image) => match <&[u8; PAGE_SIZE]>::try_from(&image[..]) {
            Ok(image) => *page = *image,
            Err(_) => return wrong("an image is not 8192 bytes long"),
        },
        Value::ZeroPage => page.fill(0),
        Value::VmSet { heap_block, flags } if is_map && is_on_map(key, *heap_block) => {
            begin_map(page);
            // visibilitymap_set; only it moves the page's LSN. heap_xlog_visible leaves a page alone that is newer already:
            // one of a base backup.
            if visibility::get(page, *heap_block) != *flags && page::lsn(page) < lsn {
                visibility::set(page, *heap_block, *flags);
                page::set_lsn(page, lsn);
            }
        }
        Value::VmClear { heap_block, flags } if is_map && is_on_map(key, *heap_block) => {
            begin_map(page);
            visibility::clear(page, *heap_block, *flags);
        }
        Value::VmTruncate { heap_blocks } if is_map && is_on_map(key, *heap_blocks) => {
            begin_map(page);
            visibility::clear_from(page, *heap_blocks);
        }
        Value::Clog { status, xids } if is_slru(SlruKind::Clog) => {
            if xids.iter().any(|xid| clog::page_of(*xid) != key.block) {
                return wrong(ELSEWHERE);
            }
            xids.iter().for_each(|xid| clog::set_status(page, *xid, *status));
        }
        Value::MultiOffset { multi, offset } if is_slru(SlruKind::MultiOffsets) => {
            if multi_offsets::page_of(*multi) != key.block {
                return wrong(ELSEWHERE);
            }
            multi_offsets::set(page, *multi, *offset);
        }
        Value::MultiMembers { first, members } if is_slru(SlruKind::MultiMembers) => {
            for (index, (xid, status)) in members.iter().enumerate() {
                let offset = first.wrapping_add(index as u32);
                if multi_members::page_of(offset) != key.block {
                    return wrong(ELSEWHERE);
                }
                multi_members::set(page, offset, *xid, *status);
            }
        }
        Value::CommitTs { time, origin, xids } if is_slru(SlruKind::CommitTs) => {
            if xids.iter().any(|xid| commit_ts::page_of(*xid) != key.block) {
                return wrong(ELSEWHERE);
            }
            xids.iter().for_each(|xid| commit_ts::set(page, *xid, *time, *origin));
        }
        Value::Record { .. } => return wrong("a WAL record is for redo"),
        Value::Blob(_) | Value::Tombstone => return wrong("the value is not one of a page"),
        _ => return wrong(ELSEWHERE),
    }
    Ok(())
}

fn is_on_map(key: Key, heap_block: u32) -> bool {
    visibility::map_block(heap_block).0 == key.block
}

/// vm_readbuf: a map's page begins as an empty page.
fn begin_map(page: &mut [u8; PAGE_SIZE]) {
    if page::is_new(page) {
        page::init(page, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironpage_layout::{BlockNumber, RelTag};
    use std::borrow::Cow;

    const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

    #[test]
    fn map_deltas_change_their_bits_and_only_setting_moves_the_lsn() {
        let key = Key::page(REL, Fork::Vm, BlockNumber(0));
        let mut page = [0; PAGE_SIZE];
        apply_delta(&mut page, key, &Value::VmSet { heap_block: 3, flags: 1 }, Lsn(0x80)).unwrap();
        assert_eq!((page::lsn(&page), page[24], page::special_offset(&page)), (Lsn(0x80), 0x40, 8192));
        apply_delta(&mut page, key, &Value::VmSet { heap_block: 3, flags: 1 }, Lsn(0x90)).unwrap();
        apply_delta(&mut page, key, &Value::VmSet { heap_block: 9, flags: 3 }, Lsn(0x98)).unwrap();
        apply_delta(&mut page, key, &Value::VmClear { heap_block: 9, flags: 2 }, Lsn(0xA0)).unwrap();
        assert_eq!((page::lsn(&page), page[26]), (Lsn(0x98), 0x04));
        apply_delta(&mut page, key, &Value::VmSet { heap_block: 9, flags: 3 }, Lsn(0x98)).unwrap();
        assert_eq!(page[26], 0x04, "the page has had this already");
        apply_delta(&mut page, key, &Value::VmTruncate { heap_blocks: 9 }, Lsn(0xB0)).unwrap();
        assert_eq!((page::lsn(&page), page[24], page[26]), (Lsn(0x98), 0x40, 0));
        assert!(apply_delta(&mut page, key, &Value::VmClear { heap_block: 32672, flags: 2 }, Lsn(0xA0)).is_err());
        let main = Key::page(REL, Fork::Main, BlockNumber(0));
        assert!(apply_delta(&mut page, main, &Value::VmClear { heap_block: 0, flags: 2 }, Lsn(0xA0)).is_err());
    }

    #[test]
    fn slru_deltas_belong_to_their_pages_alone() {
        let values = [
            (Key::slru(SlruKind::Clog, 1), Value::Clog { status: 1, xids: Cow::Borrowed(&[32768]) }, 0, 1),
            (Key::slru(SlruKind::MultiOffsets, 1), Value::MultiOffset { multi: 2049, offset: 9 }, 4, 9),
            (Key::slru(SlruKind::MultiMembers, 1), Value::MultiMembers { first: 1636, members: Cow::Borrowed(&[(7, 5)]) }, 4, 7),
            (Key::slru(SlruKind::CommitTs, 1), Value::CommitTs { time: 6, origin: 0, xids: Cow::Borrowed(&[819]) }, 0, 6),
        ];
        for (key, value, at, byte) in &values {
            let mut page = [0; PAGE_SIZE];
            apply_delta(&mut page, *key, value, Lsn(8)).unwrap();
            assert_eq!(page[*at], *byte);
            let other = Key { block: 2, ..*key };
            assert!(apply_delta(&mut page, other, value, Lsn(8)).is_err());
            apply_delta(&mut page, *key, &Value::ZeroPage, Lsn(16)).unwrap();
            assert_eq!(page, [0; PAGE_SIZE]);
        }
        let key = values[0].0;
        let record = Value::Record { initialises: true, bytes: Cow::Borrowed(b"") };
        for value in [record, Value::Tombstone, Value::Blob(Cow::Borrowed(b"")), Value::Image(Cow::Borrowed(b""))] {
            assert!(apply_delta(&mut [0; PAGE_SIZE], key, &value, Lsn(8)).is_err());
        }
    }
}
