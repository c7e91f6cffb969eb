//! All versions that ingest put, for the test to read back.

use crate::ingest::{CopyDatabase, Sink, apply_delta};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{Fork, Key, KeyKind, Lsn, Value};
use std::collections::BTreeMap;

/// Encoded versions by key, oldest first. Pages of relations are only counted, but for visibility maps.
#[derive(Default)]
pub struct TestStore {
    versions: BTreeMap<Key, Vec<(Lsn, Vec<u8>)>>,
    last: Lsn,
    pub page_values: u64,
    pub page_images: u64,
}

impl Sink for TestStore {
    fn put(&mut self, key: Key, lsn: Lsn, value: Value<'_>) {
        assert!(lsn >= self.last, "{key} at {lsn} comes after {}", self.last);
        self.last = lsn;
        if key.kind == KeyKind::Page && key.fork != Fork::Vm as u8 {
            self.page_values += 1;
            self.page_images += u64::from(matches!(value, Value::Image(_)));
            return;
        }
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        assert_eq!(Value::decode(&bytes).as_ref(), Ok(&value));
        self.versions.entry(key).or_default().push((lsn, bytes));
    }
}

impl TestStore {
    /// The newest version of every key, encoded.
    pub fn newest(&self) -> impl Iterator<Item = (Key, &[u8])> {
        self.versions.iter().filter_map(|(key, versions)| Some((*key, versions.last()?.1.as_slice())))
    }

    /// The blob a key has now.
    pub fn blob(&self, key: Key) -> Option<Vec<u8>> {
        let (_, bytes) = self.versions.get(&key)?.last()?;
        match Value::decode(bytes) {
            Ok(Value::Blob(blob)) => Some(blob.into_owned()),
            _ => None,
        }
    }

    /// A page as its versions behind `floor` make it. `None` if that takes redo: of a compressed image.
    pub fn page(&self, key: Key, floor: Lsn) -> Option<[u8; PAGE_SIZE]> {
        let mut page = [0; PAGE_SIZE];
        let mut known = true;
        let versions = self.versions.get(&key).map_or(&[][..], Vec::as_slice);
        for (lsn, bytes) in versions.iter().filter(|(lsn, _)| *lsn > floor) {
            let value = Value::decode(bytes).expect("what was encoded");
            if value.is_state() {
                known = !matches!(value, Value::Record { .. });
            }
            if !known {
                continue;
            }
            apply_delta(&mut page, key, &value, *lsn).unwrap_or_else(|error| panic!("{error}"));
        }
        known.then_some(page)
    }

    /// The last versions of a key, for a message.
    pub fn history(&self, key: Key) -> String {
        let versions = self.versions.get(&key).map_or(&[][..], Vec::as_slice);
        let shown = versions.iter().rev().take(12).map(|(lsn, bytes)| match Value::decode(bytes) {
            Ok(Value::Image(_)) => format!("{lsn} image"),
            Ok(value) => format!("{lsn} {value:?}"),
            Err(error) => error.to_string(),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// What the caller of ingest does for a copied database, as far as this store keeps it.
    pub fn copy_rel_map(&mut self, copy: &CopyDatabase, lsn: Lsn) {
        let (from, to) = copy.rel_map.expect("a database has a map");
        let map = self.blob(from).expect("the source's map");
        self.put(to, lsn, Value::Blob(map.into()));
        for (source, target, fork, blocks) in &copy.forks {
            for block in (0..*blocks).filter(|_| *fork == Fork::Vm) {
                let block = ironpage_layout::BlockNumber(block);
                let page = self.page(Key::page(*source, *fork, block), Lsn::INVALID).expect("an image of template1's");
                self.put(Key::page(*target, *fork, block), lsn, Value::Image(page.as_slice().into()));
            }
        }
    }
}
