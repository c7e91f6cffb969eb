//! Reading the newest versions of a range of keys.

use super::join::try_join_all;
use super::{Store, StoreError, Version};
use crate::layers::{Content, Piece};
use ironpage_layout::{Key, Lsn, Value};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Layers a scan reads side by side.
const LAYERS_AT_ONCE: usize = 16;

impl Store {
    /// The newest version at `lsn` of each key in the range that is not a `Tombstone` then, in key order. For
    /// the kinds whose values are all `Blob` or `Tombstone`.
    pub async fn scan(&self, keys: RangeInclusive<Key>, lsn: Lsn) -> Result<Vec<(Key, Version)>, StoreError> {
        let mut found = Vec::new();
        for (key, (piece, store)) in self.newest(keys, lsn).await? {
            let bytes = match piece.content {
                Content::Bytes(bytes) => bytes,
                Content::Image { layer, image } => layer.image(&store.inner.context, image).await?,
            };
            found.push((key, Version { lsn: piece.lsn, bytes }));
        }
        Ok(found)
    }

    /// The keys in the range whose newest version at `lsn` is not a `Tombstone`, in order. For any kind; reads no images.
    pub async fn live_keys(&self, keys: RangeInclusive<Key>, lsn: Lsn) -> Result<Vec<Key>, StoreError> {
        Ok(self.newest(keys, lsn).await?.into_keys().collect())
    }

    /// The newest versions, with the stores they lie in: what a store has hides what its ancestors have, tombstones too.
    async fn newest(&self, keys: RangeInclusive<Key>, lsn: Lsn) -> Result<BTreeMap<Key, (Piece, &Store)>, StoreError> {
        let mut newest: BTreeMap<Key, (Piece, &Store)> = BTreeMap::new();
        let mut next = Some((self, lsn));
        while let Some((store, lsn)) = next {
            for (key, piece) in store.own_newest(&keys, lsn).await? {
                newest.entry(key).or_insert((piece, store));
            }
            next = store.below()?.map(|(ancestor, left_at)| (ancestor, lsn.min(left_at)));
        }
        let gone =
            |piece: &Piece| matches!(&piece.content, Content::Bytes(bytes) if Value::decode(bytes) == Ok(Value::Tombstone));
        newest.retain(|_, (piece, _)| !gone(piece));
        Ok(newest)
    }

    /// The newest versions this store alone has, tombstones among them.
    async fn own_newest(&self, keys: &RangeInclusive<Key>, lsn: Lsn) -> Result<BTreeMap<Key, Piece>, StoreError> {
        let mut newest: BTreeMap<Key, Piece> = BTreeMap::new();
        let mut offer = |key: Key, piece: Piece| match newest.entry(key) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(piece);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                if (piece.lsn, piece.sequence) > (known.get().lsn, known.get().sequence) {
                    known.insert(piece);
                }
            }
        };
        // As in `values`, memory and layers at one moment.
        let layers = {
            let state = self.inner.state.borrow();
            for (memory, sequence) in state.memory_layers() {
                for key in memory.keys_in(keys) {
                    if let Some((lsn, bytes)) = memory.versions(&key).find(|version| version.0 <= lsn) {
                        offer(key, Piece { lsn, sequence, content: Content::Bytes(bytes.to_vec()) });
                    }
                }
            }
            state.layers.of_range(keys, lsn)
        };
        for some in layers.chunks(LAYERS_AT_ONCE) {
            let scans = some.iter().map(|layer| layer.scan(&self.inner.context, keys, lsn));
            try_join_all(scans).await?.into_iter().flatten().for_each(|(key, piece)| offer(key, piece));
        }
        Ok(newest)
    }
}
