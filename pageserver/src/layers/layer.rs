//! One layer file.

use super::{LayerContext, count};
use crate::store::StoreError;
use ironpage_io::fs::File;
use ironpage_io::sync::Notify;
use ironpage_io::{IoBuf, fs};
use ironpage_layout::layer::filter::{Filter, hash};
use ironpage_layout::layer::index::{Entry, IndexBlock};
use ironpage_layout::layer::manifest::{LayerRecord, TimelineRecord};
use ironpage_layout::layer::{BLOCK_SIZE, Body, Fences, Header, ImageRef, LayerError, block_align_up, run};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{Key, Lsn, Value};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Longest stretch of runs a scan reads at once.
const SCAN_SPAN_BYTES_MAX: u64 = 1 << 20;

/// A layer file the manifest names. Nothing is read until something is asked of it.
pub struct Layer {
    path: PathBuf,
    timeline: Rc<TimelineRecord>,
    record: LayerRecord,
    /// Once the layer is in use.
    resident: RefCell<Option<Rc<Resident>>>,
    /// While a read fetches it, so that others wait instead of fetching it too.
    loading: Cell<bool>,
    loaded: Notify,
}

/// What is kept in memory of a layer in use.
struct Resident {
    header: Header,
    fences: Fences,
    filter: Filter,
}

/// A version found in a layer or in memory.
pub struct Piece {
    pub lsn: Lsn,
    /// Sequence of where it was found: of two versions with one LSN that in the higher is newer.
    pub sequence: u64,
    pub content: Content,
}

/// The value of a version.
pub enum Content {
    /// Encoded.
    Bytes(Vec<u8>),
    /// A page image not yet read.
    Image { layer: Rc<Layer>, image: ImageRef },
}

impl Content {
    pub fn is_state(&self) -> bool {
        match self {
            Content::Bytes(bytes) => Value::encoded_is_state(bytes),
            Content::Image { .. } => true,
        }
    }
}

impl Layer {
    pub fn new(directory: &Path, timeline: Rc<TimelineRecord>, record: LayerRecord) -> Layer {
        Layer {
            path: directory.join(record.file_name()),
            timeline,
            record,
            resident: RefCell::new(None),
            loading: Cell::new(false),
            loaded: Notify::new(),
        }
    }

    pub fn record(&self) -> &LayerRecord {
        &self.record
    }

    /// Tells layers apart in caches: sequences are never used again in a slot.
    fn number(&self) -> u64 {
        self.record.sequence << 16 | u64::from(self.record.slot.0)
    }

    fn damaged(&self, source: LayerError) -> StoreError {
        StoreError::Layer { path: self.path.clone(), source }
    }

    async fn file(&self, context: &LayerContext) -> Result<Rc<File>, StoreError> {
        if let Some(file) = context.files.borrow_mut().get(self.number()) {
            return Ok(file);
        }
        let file = Rc::new(File::open(&self.path, fs::Options { read: true, direct: true, ..Default::default() }).await?);
        context.files.borrow_mut().insert(self.number(), file.clone());
        Ok(file)
    }

    /// Bytes of the file, read in whole blocks. A file that ends too early is named as cut short.
    async fn read(&self, context: &LayerContext, what: &'static str, offset: u64, length: u64) -> Result<Span, StoreError> {
        let block = BLOCK_SIZE as u64;
        let start = offset / block * block;
        let end = block_align_up(offset + length);
        let cut = |found| LayerError::Truncated { what, offset, needed: length, found };
        if end > self.record.file_length {
            return Err(self.damaged(cut(self.record.file_length.saturating_sub(offset))));
        }
        let file = self.file(context).await?;
        let mut buf = IoBuf::with_capacity((end - start) as usize);
        buf.set_len((end - start) as usize);
        let (result, mut buf) = file.read_at(buf, start).await;
        let got = result? as u64;
        count(&context.counters.device_bytes, got);
        if start + got < offset + length {
            return Err(self.damaged(cut((start + got).saturating_sub(offset))));
        }
        buf.truncate(got as usize);
        Ok(Span { buf, start })
    }

    async fn resident(&self, context: &LayerContext) -> Result<Rc<Resident>, StoreError> {
        loop {
            if let Some(resident) = &*self.resident.borrow() {
                return Ok(resident.clone());
            }
            let loaded = self.loaded.notified();
            if !self.loading.replace(true) {
                break;
            }
            loaded.await;
        }
        let _end = EndOfLoading(self);
        let block = self.read(context, "layer header", 0, BLOCK_SIZE as u64).await?;
        let damaged = |error| self.damaged(error);
        let header = self.record.decode_header(&self.timeline, &block.buf).map_err(damaged)?;
        let (fences_length, filter_length) = (header.fences_length(), header.filter_length());
        let fences = self.read(context, "fences", header.fences, fences_length).await?;
        let fences =
            Fences::decode(fences.get(header.fences, fences_length), header.fences, header.fences_crc).map_err(damaged)?;
        let filter = self.read(context, "filter", header.filter, filter_length).await?;
        let filter =
            Filter::decode(filter.get(header.filter, filter_length), header.filter, header.filter_crc).map_err(damaged)?;
        let resident = Rc::new(Resident { header, fences, filter });
        *self.resident.borrow_mut() = Some(resident.clone());
        Ok(resident)
    }

    async fn index_block(&self, context: &LayerContext, resident: &Resident, number: u32) -> Result<Rc<IoBuf>, StoreError> {
        let key = (self.number(), number);
        if let Some(block) = context.cache.borrow_mut().get(key) {
            count(&context.counters.index_hits, 1);
            return Ok(block);
        }
        count(&context.counters.index_reads, 1);
        let offset = resident.header.index_block(number);
        let block = self.read(context, "index block", offset, BLOCK_SIZE as u64).await?.buf;
        IndexBlock::decode(resident.header.salt(), offset, &block).map_err(|error| self.damaged(error))?;
        let block = Rc::new(block);
        context.cache.borrow_mut().insert(key, block.clone());
        Ok(block)
    }

    /// Bytes kept in memory while the layer is in use.
    pub fn resident_bytes(&self) -> u64 {
        self.resident.borrow().as_ref().map_or(0, |resident| resident.header.fences_length() + resident.header.filter_length())
    }

    /// What the layer has of `key`.
    pub async fn find(&self, context: &LayerContext, key: Key) -> Result<Option<Entry>, StoreError> {
        let resident = self.resident(context).await?;
        let encoded = key.encode();
        let Some(number) = resident.fences.block_of(&encoded) else { return Ok(None) };
        if !resident.filter.may_hold(hash(&encoded)) {
            count(&context.counters.filtered, 1);
            return Ok(None);
        }
        let block = self.index_block(context, &resident, number).await?;
        let offset = resident.header.index_block(number);
        let entry = IndexBlock::trusted(offset, &block).and_then(|block| block.find(&encoded));
        entry.map_err(|error| self.damaged(error))
    }

    /// The versions an entry speaks of, newest first: all, or those of the head, and the image in any case.
    pub async fn versions(self: &Rc<Layer>, context: &LayerContext, entry: &Entry, part: Part) -> Result<Vec<Piece>, StoreError> {
        let length = match part {
            Part::Head => entry.head_length,
            Part::Whole => entry.run_length,
        };
        let resident = self.resident(context).await?;
        if length == 0 {
            return self.assemble(&resident, entry, &[]);
        }
        count(&context.counters.run_reads, 1);
        self.check_run(&resident, entry)?;
        let span = self.read(context, "run", entry.run, u64::from(length)).await?;
        self.assemble(&resident, entry, span.get(entry.run, u64::from(length)))
    }

    fn check_run(&self, resident: &Resident, entry: &Entry) -> Result<(), StoreError> {
        let end = entry.run.checked_add(u64::from(entry.run_length));
        if entry.run < resident.header.runs || end.is_none_or(|end| end > resident.header.index) {
            let why = "it points outside the runs";
            return Err(self.damaged(LayerError::Malformed { what: "index entry", offset: entry.run, why }));
        }
        Ok(())
    }

    /// `bytes` are the run's head, or the whole run.
    fn assemble(self: &Rc<Layer>, resident: &Resident, entry: &Entry, bytes: &[u8]) -> Result<Vec<Piece>, StoreError> {
        let key = entry.key.encode();
        let head_length = (entry.head_length as usize).min(bytes.len());
        let (head, tail) = bytes.split_at(head_length);
        let decode = |offset, bytes| run::decode(resident.header.salt(), &key, offset, bytes);
        let mut versions = decode(entry.run, head).map_err(|error| self.damaged(error))?;
        versions.extend(entry.image.map(|image| (entry.state_lsn, Body::Image(image))));
        versions.extend(decode(entry.run + head_length as u64, tail).map_err(|error| self.damaged(error))?);
        let piece = |(lsn, body)| {
            let content = match body {
                Body::Inline(bytes) => Content::Bytes(bytes.to_vec()),
                Body::Image(image) => Content::Image { layer: self.clone(), image },
            };
            Piece { lsn, sequence: self.record.sequence, content }
        };
        Ok(versions.into_iter().map(piece).collect())
    }

    /// Reads and checks a page image; the encoded value.
    pub async fn image(&self, context: &LayerContext, image: ImageRef) -> Result<Vec<u8>, StoreError> {
        count(&context.counters.image_reads, 1);
        let span = self.read(context, "page image", image.offset(), PAGE_SIZE as u64).await?;
        let page = span.get(image.offset(), PAGE_SIZE as u64);
        image.check(page).map_err(|error| self.damaged(error))?;
        let mut bytes = Vec::with_capacity(1 + PAGE_SIZE);
        Value::Image(Cow::Borrowed(page)).encode(&mut bytes);
        Ok(bytes)
    }

    /// The newest version up to `lsn` of each key in the range that has one, in key order. Images are not read.
    pub async fn scan(
        self: &Rc<Layer>,
        context: &LayerContext,
        keys: &RangeInclusive<Key>,
        lsn: Lsn,
    ) -> Result<Vec<(Key, Piece)>, StoreError> {
        let resident = self.resident(context).await?;
        let mut entries = Vec::new();
        for number in resident.fences.blocks_of(&keys.start().encode(), &keys.end().encode()) {
            let block = self.index_block(context, &resident, number).await?;
            let offset = resident.header.index_block(number);
            let view = IndexBlock::trusted(offset, &block).map_err(|error| self.damaged(error))?;
            for entry in view.entries() {
                let entry = entry.map_err(|error| self.damaged(error))?;
                if keys.contains(&entry.key) {
                    self.check_run(&resident, &entry)?;
                    entries.push(entry);
                }
            }
        }
        let mut found = Vec::new();
        let mut rest = &entries[..];
        while let Some(first) = rest.first() {
            // Runs lie in key order, so neighbours are read at once.
            let end = |entry: &Entry| entry.run + u64::from(entry.run_length);
            let near = |entry: &&Entry| entry.run >= first.run && end(entry) <= first.run + SCAN_SPAN_BYTES_MAX;
            let taken = rest.iter().take_while(near).count().max(1);
            let (group, behind) = rest.split_at(taken);
            rest = behind;
            let last = group.iter().map(end).max().unwrap_or(first.run);
            let span = match last - first.run {
                0 => Span { buf: IoBuf::default(), start: first.run },
                length => {
                    count(&context.counters.run_reads, 1);
                    self.read(context, "runs", first.run, length).await?
                }
            };
            for entry in group {
                let pieces = self.assemble(&resident, entry, span.get(entry.run, u64::from(entry.run_length)))?;
                found.extend(pieces.into_iter().find(|piece| piece.lsn <= lsn).map(|piece| (entry.key, piece)));
            }
        }
        Ok(found)
    }
}

/// Lets others load when this load is over, however it ended.
struct EndOfLoading<'a>(&'a Layer);

impl Drop for EndOfLoading<'_> {
    fn drop(&mut self) {
        self.0.loading.set(false);
        self.0.loaded.notify_all();
    }
}

/// How much of a run is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Head,
    Whole,
}

/// Bytes of a file from `start` on.
struct Span {
    buf: IoBuf,
    start: u64,
}

impl Span {
    /// Empty if the span does not hold all of it: `read` made sure that it does.
    fn get(&self, offset: u64, length: u64) -> &[u8] {
        let from = offset.saturating_sub(self.start) as usize;
        self.buf.get(from..from + length as usize).unwrap_or(&[])
    }
}
