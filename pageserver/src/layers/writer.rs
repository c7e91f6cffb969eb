//! Writes a slot's part of a memory layer as a layer file.

use crate::memory::MemoryLayer;
use crate::store::StoreError;
use ironpage_io::fs::{self, File};
use ironpage_io::{IoBuf, yield_now};
use ironpage_layout::layer::{BLOCK_SIZE, Body, Encoder, Header, ImageRef, LayerId};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{Key, Lsn, Value};
use std::borrow::Cow;
use std::path::Path;

/// Bytes of one write. One is in flight at a time, so that reads beside a flush stay quick.
const WRITE_BYTES: usize = 256 << 10;
/// Keys looked through without a write before other tasks get their turn.
const KEYS_PER_TURN: usize = 4096;

/// Writes `keys`, in order, of `memory` as the layer `id` at `path`, which must not exist. Durable on return, but
/// for the name: the directory is the caller's to flush.
pub async fn write_layer(path: &Path, id: LayerId, memory: &MemoryLayer, keys: &[Key]) -> Result<Header, StoreError> {
    let options = fs::Options { write: true, create_new: true, direct: true, ..fs::Options::default() };
    let mut sink = Sink { file: File::open(path, options).await?, position: BLOCK_SIZE as u64, pending: Vec::new() };
    let mut encoder = Encoder::new(id);

    let mut images: Vec<ImageRef> = Vec::new();
    for turn in keys.chunks(KEYS_PER_TURN) {
        for key in turn {
            for (_, bytes) in visible_versions(memory, key) {
                if let Some(page) = page_of(bytes) {
                    images.push(encoder.image(page, &mut sink.pending));
                }
            }
            sink.write_full_pieces().await?;
        }
        yield_now().await;
    }
    let mut images = images.into_iter();
    for turn in keys.chunks(KEYS_PER_TURN) {
        for key in turn {
            let versions = visible_versions(memory, key).map(|(lsn, bytes)| match page_of(bytes) {
                Some(_) => (lsn, Body::Image(images.next().expect("both passes see the same versions"))),
                None => (lsn, Body::Inline(bytes)),
            });
            encoder.key(*key, versions, &mut sink.pending);
            sink.write_full_pieces().await?;
        }
        yield_now().await;
    }
    let header = encoder.finish(&mut sink.pending);
    sink.write_rest().await?;
    assert_eq!(sink.position, header.file_length, "all of the layer was written");
    let (result, _) = sink.file.write_all_at(IoBuf::copy_of(&header.encode()), 0).await;
    result?;
    sink.file.sync_data().await?;
    Ok(header)
}

/// Versions of a key, newest first, without those that a newer state of the same LSN hides at every LSN.
fn visible_versions<'a>(memory: &'a MemoryLayer, key: &Key) -> impl Iterator<Item = (Lsn, &'a [u8])> {
    let mut state = None;
    memory.versions(key).filter(move |(lsn, bytes)| {
        let visible = state != Some(*lsn);
        if visible && Value::encoded_is_state(bytes) {
            state = Some(*lsn);
        }
        visible
    })
}

/// The page, if the encoded value is an image.
fn page_of(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.len() != 1 + PAGE_SIZE {
        return None;
    }
    match Value::decode(bytes) {
        Ok(Value::Image(Cow::Borrowed(page))) => Some(page),
        _ => None,
    }
}

/// Bytes on their way to the file.
struct Sink {
    file: File,
    /// Offset of the first pending byte.
    position: u64,
    pending: Vec<u8>,
}

impl Sink {
    async fn write_full_pieces(&mut self) -> Result<(), StoreError> {
        if self.pending.len() < WRITE_BYTES {
            return Ok(());
        }
        let full = self.pending.len() - self.pending.len() % WRITE_BYTES;
        self.write(full).await
    }

    /// What is pending is a whole number of blocks.
    async fn write_rest(&mut self) -> Result<(), StoreError> {
        self.write(self.pending.len()).await
    }

    async fn write(&mut self, length: usize) -> Result<(), StoreError> {
        for piece in self.pending[..length].chunks(WRITE_BYTES) {
            let (result, _) = self.file.write_all_at(IoBuf::copy_of(piece), self.position).await;
            result?;
            self.position += piece.len() as u64;
        }
        self.pending.drain(..length);
        Ok(())
    }
}
