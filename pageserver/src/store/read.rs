//! Reading one key at an LSN.
//!
//! A store that came off another one is asked first; unless it has a state, the read goes on in the other, at the LSN it
//! came off at.
//!
//! Versions of a key lie in the memory layers and in any number of layer files, whose LSN ranges overlap
//! as they like: an image that a read made has an old LSN and lies in a new layer. So a read asks all that
//! may have something, by index entries first, and takes the newest state; of two versions with one LSN the
//! one added later is newer, which is the one in the layer of the higher sequence.

use super::join::try_join_all;
use super::{State, Store, StoreError, Values, Version};
use crate::layers::{Content, Layer, Part, Piece, count};
use crate::memory::MemoryLayer;
use ironpage_layout::layer::index::Entry;
use ironpage_layout::{Key, Lsn, Value};
use std::rc::Rc;

/// When a version came: by LSN, then by the sequence of its layer.
type Age = (Lsn, u64);

impl State {
    /// The memory layers, newest first, with sequences above those of all files.
    pub(super) fn memory_layers(&self) -> impl Iterator<Item = (&MemoryLayer, u64)> {
        let frozen = self.frozen.iter().rev().map(|frozen| &frozen.memory);
        std::iter::once(&self.open).chain(frozen).zip((0..=u64::MAX).rev())
    }

    /// Versions in memory up to `lsn` and above `floor`, newest first, ended by the first state.
    fn memory_pieces(&self, key: &Key, lsn: Lsn, floor: Lsn) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (memory, sequence) in self.memory_layers() {
            let versions = memory.versions(key).skip_while(|version| version.0 > lsn);
            for (lsn, bytes) in versions.take_while(|version| version.0 > floor) {
                pieces.push(Piece { lsn, sequence, content: Content::Bytes(bytes.to_vec()) });
                if Value::encoded_is_state(bytes) {
                    break;
                }
            }
        }
        newest_until_state(&mut pieces);
        pieces
    }
}

/// Sorts newest first, and cuts behind the newest state. Versions of one source and LSN keep their order.
fn newest_until_state(pieces: &mut Vec<Piece>) {
    pieces.sort_by_key(|piece| std::cmp::Reverse((piece.lsn, piece.sequence)));
    if let Some(state) = pieces.iter().position(|piece| piece.content.is_state()) {
        pieces.truncate(state + 1);
    }
}

impl Store {
    /// The versions of `key` that make its state at `lsn`: newest first, until a state, those at or
    /// below `floor` left out. Empty if there is none. Sees values put but not yet covered by `set_last_record`.
    pub async fn values(&self, key: Key, lsn: Lsn, floor: Lsn) -> Result<Values, StoreError> {
        count(&self.inner.counters.reads, 1);
        let (mut store, mut lsn) = (self, lsn);
        let mut values = store.own_values(key, lsn, floor).await?;
        while !values.last().is_some_and(|version| Value::encoded_is_state(&version.bytes))
            && let Some((ancestor, left_at)) = store.below()?
        {
            (store, lsn) = (ancestor, lsn.min(left_at));
            if lsn <= floor {
                break;
            }
            values.extend(store.own_values(key, lsn, floor).await?);
        }
        count(&self.inner.counters.versions, values.len() as u64);
        Ok(values)
    }

    /// What this store alone has of it.
    async fn own_values(&self, key: Key, lsn: Lsn, floor: Lsn) -> Result<Values, StoreError> {
        let inner = &*self.inner;
        // Memory and layer set as they are at one moment: a flush beside this read moves values from one to the other.
        let (mut pieces, above, layers) = {
            let state = inner.state.borrow();
            let pieces = state.memory_pieces(&key, lsn, floor);
            let found = pieces.last().filter(|piece| piece.content.is_state());
            let above = found.map_or(floor, |piece| piece.lsn);
            (pieces, above, state.layers.of_key(key, above, lsn))
        };
        if !layers.is_empty() {
            pieces.extend(self.layer_pieces(key, lsn, above, layers).await?);
            pieces.retain(|piece| piece.lsn <= lsn && piece.lsn > floor);
            newest_until_state(&mut pieces);
        }
        let mut values = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let bytes = match piece.content {
                Content::Bytes(bytes) => bytes,
                Content::Image { layer, image } => layer.image(&inner.context, image).await?,
            };
            values.push(Version { lsn: piece.lsn, bytes });
        }
        Ok(values)
    }

    /// What the layers have of `key` above `above` and up to `lsn`, as far as it may be needed, in one parallel
    /// round after the index. There may be more among it.
    async fn layer_pieces(&self, key: Key, lsn: Lsn, above: Lsn, layers: Vec<Rc<Layer>>) -> Result<Vec<Piece>, StoreError> {
        let context = &self.inner.context;
        let entries = try_join_all(layers.iter().map(|layer| layer.find(context, key))).await?;
        let found: Vec<(Rc<Layer>, Entry)> =
            layers.into_iter().zip(entries).filter_map(|(layer, entry)| Some((layer, entry?))).collect();
        // A state above `lsn` says nothing of older ones in the same run.
        let state_of = |(layer, entry): &(Rc<Layer>, Entry)| -> Option<Age> {
            (entry.state_lsn.is_valid() && entry.state_lsn <= lsn).then(|| (entry.state_lsn, layer.record().sequence))
        };
        let newest_state = found.iter().filter_map(state_of).max();
        let needed = found.into_iter().filter(|(layer, entry)| {
            let newest = (entry.last_lsn, layer.record().sequence);
            newest_state.is_none_or(|state| newest >= state) && entry.last_lsn > above
        });
        let reads = needed.map(|found| async move {
            let state = state_of(&found);
            let (layer, entry) = found;
            let part = if entry.state_lsn > lsn { Part::Whole } else { Part::Head };
            let image = entry.image.filter(|_| state.is_some() && state == newest_state && entry.state_lsn > above);
            let (mut pieces, page) = match image {
                Some(image) => {
                    let (pieces, page) = join(layer.versions(context, &entry, part), layer.image(context, image)).await?;
                    (pieces, Some((image, page)))
                }
                None => (layer.versions(context, &entry, part).await?, None),
            };
            if let Some((image, page)) = page {
                let here = |piece: &&mut Piece| matches!(piece.content, Content::Image { image: found, .. } if found == image);
                if let Some(piece) = pieces.iter_mut().find(here) {
                    piece.content = Content::Bytes(page);
                }
            }
            Ok::<_, StoreError>(pieces)
        });
        Ok(try_join_all(reads).await?.into_iter().flatten().collect())
    }
}

/// Two reads at once.
async fn join<A, B>(
    a: impl Future<Output = Result<A, StoreError>>,
    b: impl Future<Output = Result<B, StoreError>>,
) -> Result<(A, B), StoreError> {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none()
            && let std::task::Poll::Ready(done) = a.as_mut().poll(cx)
        {
            first = Some(done);
        }
        if second.is_none()
            && let std::task::Poll::Ready(done) = b.as_mut().poll(cx)
        {
            second = Some(done);
        }
        match (first.take(), second.take()) {
            (Some(Err(error)), _) | (_, Some(Err(error))) => std::task::Poll::Ready(Err(error)),
            (Some(Ok(a)), Some(Ok(b))) => std::task::Poll::Ready(Ok((a, b))),
            (a, b) => {
                (first, second) = (a, b);
                std::task::Poll::Pending
            }
        }
    })
    .await
}
