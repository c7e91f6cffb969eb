//! One timeline's versioned key-value store: memory layers in front of layer files, and the manifest that names these.
//!
//! Values are put into the open memory layer. At a record boundary it is frozen, written as one layer file
//! per slot, and dropped once the manifest names these. What a crash takes is ingested again: the manifest's
//! `disk_consistent_lsn` says from where.
//!
//! A timeline that came off another one holds what came since, its versions all at or above the LSN it came off at.
//! Reads go on in the other's store at that LSN, key by key, for as many ancestors as there are.
//!
//! On disk a timeline is a directory: `manifest`, and `layers/` with the files it names. Files there that it
//! does not name are left from a flush that was cut short, and are removed when the store is opened.

mod ancestor;
mod config;
mod error;
mod flush;
mod join;
mod read;
mod scan;
#[cfg(test)]
mod tests;

pub use config::StoreConfig;
pub use error::StoreError;
pub use ironpage_layout::layer::manifest::{Ancestor, TimelineRecord};

use crate::layers::{Layer, LayerContext, LayerSet};
use crate::memory::MemoryLayer;
use ironpage_io::sync::Notify;
use ironpage_io::time::Instant;
use ironpage_io::{fs, spawn, time};
use ironpage_layout::layer::manifest::Manifest;
use ironpage_layout::{Key, Lsn, Value};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A new timeline has 2^2 slots.
const SLOT_BITS: u8 = 2;
/// File of a timeline's directory without which it is none.
pub const MANIFEST_NAME: &str = "manifest";
const LAYERS_NAME: &str = "layers";

/// One version of a key, encoded as [`Value::decode`] reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// End of the record that made it.
    pub lsn: Lsn,
    pub bytes: Vec<u8>,
}

/// Versions of one key, newest first, up to and including the newest state (see [`Value::is_state`]).
pub type Values = Vec<Version>;

/// Called synchronously just before a memory layer is frozen, at a record boundary: what it puts at
/// [`Store::last_record_lsn`] goes into that layer. It must not own the store.
pub type FreezeHook = Rc<dyn Fn(&Store)>;

/// One timeline's versioned key-value store. It lives on one core and is a handle: clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Rc<Inner>,
}

struct Inner {
    timeline: Rc<TimelineRecord>,
    /// As the manifest is to have it.
    readable_lsn: Cell<Lsn>,
    /// The store of the timeline it came off, if it did.
    ancestor: OnceCell<Store>,
    config: StoreConfig,
    slot_bits: u8,
    layers_dir: PathBuf,
    manifest_path: PathBuf,
    state: RefCell<State>,
    freeze_hook: RefCell<Option<FreezeHook>>,
    context: LayerContext,
    counters: Counters,
    /// Notified when a layer was frozen or flushed, when something begins to age, and at the end.
    changed: Notify,
}

/// What changes. Never borrowed across an await.
struct State {
    open: MemoryLayer,
    /// Oldest first.
    frozen: VecDeque<Rc<Frozen>>,
    layers: LayerSet,
    last_record_lsn: Lsn,
    prev_record_lsn: Lsn,
    disk_consistent_lsn: Lsn,
    put_lsn_max: Lsn,
    /// When the open layer got its first change from WAL.
    changed_at: Option<Instant>,
    freeze_wanted: bool,
    /// Whether flushes write a manifest: not before the first flush that was asked for.
    publish: bool,
    /// Whether a manifest is on disk.
    published: bool,
    /// How many layers were frozen, and how many of them flushed.
    freezes: u64,
    flushes: u64,
    next_sequence: u64,
    failure: Option<StoreError>,
    /// Files are being written.
    flushing: bool,
    scratch: Vec<u8>,
}

/// A memory layer that no longer changes.
struct Frozen {
    memory: MemoryLayer,
    last_record_lsn: Lsn,
    prev_record_lsn: Lsn,
}

#[derive(Default)]
struct Counters {
    reads: Cell<u64>,
    versions: Cell<u64>,
    materialised: Cell<u64>,
    write_waits: Cell<u64>,
    layer_bytes_written: Cell<u64>,
}

impl Store {
    /// Starts a timeline in `dir`, which may not hold one yet. Values are put from `start_lsn` on; the
    /// timeline is there after a restart only once the first [`Store::flush`] has returned.
    pub async fn create(dir: &Path, timeline: TimelineRecord, config: StoreConfig) -> Result<Store, StoreError> {
        let begin = (timeline.start_lsn, timeline.prev_record_lsn);
        Store::create_at(dir, timeline, begin, config).await
    }

    /// As [`Store::create`], for a timeline that came off another one: its last record is that of `begin`, its end and its
    /// start, and further ones up to `start_lsn` are put before the first flush.
    pub async fn create_at(
        dir: &Path,
        timeline: TimelineRecord,
        begin: (Lsn, Lsn),
        config: StoreConfig,
    ) -> Result<Store, StoreError> {
        if fs::exists(dir.join(MANIFEST_NAME)).await? {
            return Err(StoreError::Exists { dir: dir.into() });
        }
        fs::create_dir_all(dir.join(LAYERS_NAME)).await?;
        let layers_dir = dir.join(LAYERS_NAME);
        // A creation that was cut short may have left some.
        for name in fs::read_dir(&layers_dir).await? {
            fs::remove_file(layers_dir.join(name)).await?;
        }
        fs::sync_dir(dir).await?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::sync_dir(parent).await?;
        }
        let manifest = Manifest {
            slot_bits: SLOT_BITS,
            disk_consistent_lsn: begin.0,
            prev_record_lsn: begin.1,
            next_sequence: 1,
            layers: Vec::new(),
            timeline,
        };
        Ok(Store::start(dir, manifest, config, Published::No))
    }

    /// Opens the timeline whose manifest is in `dir`, and removes files there that the manifest does not name.
    /// [`StoreError::NoManifest`] if its creation was never finished: the directory may be removed.
    pub async fn open(dir: &Path, config: StoreConfig) -> Result<Store, StoreError> {
        let path = dir.join(MANIFEST_NAME);
        if !fs::exists(&path).await? {
            return Err(StoreError::NoManifest { dir: dir.into() });
        }
        let bytes = fs::read(&path).await?;
        let manifest = Manifest::decode(&bytes).map_err(|source| StoreError::Layer { path, source })?;
        let layers_dir = dir.join(LAYERS_NAME);
        let present: BTreeSet<String> = fs::read_dir(&layers_dir).await?.into_iter().collect();
        let named: BTreeSet<String> = manifest.layers.iter().map(|layer| layer.file_name()).collect();
        if let Some(missing) = named.difference(&present).next() {
            return Err(StoreError::MissingLayer { path: layers_dir.join(missing) });
        }
        for unnamed in present.difference(&named) {
            fs::remove_file(layers_dir.join(unnamed)).await?;
        }
        Ok(Store::start(dir, manifest, config, Published::Yes))
    }

    fn start(dir: &Path, manifest: Manifest, config: StoreConfig, published: Published) -> Store {
        let layers_dir = dir.join(LAYERS_NAME);
        let manifest_readable_lsn = manifest.timeline.readable_lsn;
        let timeline = Rc::new(manifest.timeline);
        let mut layers = LayerSet::new(manifest.slot_bits);
        manifest.layers.into_iter().for_each(|layer| layers.add(Layer::new(&layers_dir, timeline.clone(), layer)));
        let state = State {
            open: MemoryLayer::default(),
            frozen: VecDeque::new(),
            layers,
            last_record_lsn: manifest.disk_consistent_lsn,
            prev_record_lsn: manifest.prev_record_lsn,
            disk_consistent_lsn: manifest.disk_consistent_lsn,
            put_lsn_max: Lsn::INVALID,
            changed_at: None,
            freeze_wanted: false,
            publish: published == Published::Yes,
            published: published == Published::Yes,
            freezes: 0,
            flushes: 0,
            next_sequence: manifest.next_sequence,
            failure: None,
            flushing: false,
            scratch: Vec::new(),
        };
        let inner = Rc::new(Inner {
            timeline,
            readable_lsn: Cell::new(manifest_readable_lsn),
            ancestor: OnceCell::new(),
            slot_bits: manifest.slot_bits,
            layers_dir,
            manifest_path: dir.join(MANIFEST_NAME),
            state: RefCell::new(state),
            freeze_hook: RefCell::new(None),
            context: LayerContext::new(config.index_cache_bytes_max, config.open_files_max),
            config,
            counters: Counters::default(),
            changed: Notify::new(),
        });
        spawn(flush::flusher(Rc::downgrade(&inner), inner.changed.clone()));
        Store { inner }
    }

    pub fn timeline(&self) -> &TimelineRecord {
        &self.inner.timeline
    }

    /// What the manifest will say from the next flush on; [`Store::timeline`] once the store is opened again.
    pub fn set_readable_lsn(&self, lsn: Lsn) {
        self.inner.readable_lsn.set(lsn);
    }

    pub fn set_freeze_hook(&self, hook: FreezeHook) {
        *self.inner.freeze_hook.borrow_mut() = Some(hook);
    }

    /// Adds a version. `lsn` is the last record's end, or that of the record being ingested.
    pub fn put(&self, key: Key, lsn: Lsn, value: &Value<'_>) {
        let state = &mut *self.inner.state.borrow_mut();
        assert!(lsn >= state.last_record_lsn, "{key} put at {lsn}, behind the last record {}", state.last_record_lsn);
        state.scratch.clear();
        value.encode(&mut state.scratch);
        state.open.insert(key, lsn, &state.scratch);
        state.put_lsn_max = state.put_lsn_max.max(lsn);
        self.begin_to_age(state);
    }

    /// A whole record has been put: `lsn` is its end, `prev` its start. What a flush may claim.
    pub fn set_last_record(&self, lsn: Lsn, prev: Lsn) {
        {
            let state = &mut *self.inner.state.borrow_mut();
            assert!(lsn >= state.last_record_lsn, "the last record went back from {} to {lsn}", state.last_record_lsn);
            state.last_record_lsn = lsn;
            state.prev_record_lsn = prev;
            self.begin_to_age(state);
        }
        self.freeze_if_due();
    }

    fn begin_to_age(&self, state: &mut State) {
        if state.changed_at.is_none() {
            state.changed_at = Some(time::now());
            self.inner.changed.notify_all();
        }
    }

    /// End of the last whole record.
    pub fn last_record_lsn(&self) -> Lsn {
        self.inner.state.borrow().last_record_lsn
    }

    /// Start of the last whole record.
    pub fn prev_record_lsn(&self) -> Lsn {
        self.inner.state.borrow().prev_record_lsn
    }

    /// All up to here is in layer files and survives a crash.
    pub fn disk_consistent_lsn(&self) -> Lsn {
        self.inner.state.borrow().disk_consistent_lsn
    }

    /// Adds the page that a read at `lsn` produced, so that later reads need not redo it. `lsn` must have
    /// been at or below the last record when the values were read. Ignored when memory is short.
    ///
    /// It goes where `lsn` belongs: in a store that came off its ancestor later, it would hide what the ancestor has since.
    pub fn materialise(&self, key: Key, lsn: Lsn, page: &[u8]) {
        let owner = self.owner_of(lsn);
        owner.materialise_here(key, lsn, page);
    }

    fn materialise_here(&self, key: Key, lsn: Lsn, page: &[u8]) {
        {
            let state = &mut *self.inner.state.borrow_mut();
            assert!(lsn <= state.last_record_lsn, "{key} made at {lsn}, beyond the last record {}", state.last_record_lsn);
            // Above its size it cannot be frozen: a record is being put, or was when ingest stopped.
            let is_full = state.open.bytes() > self.inner.config.memory_bytes_max;
            if is_full || state.frozen.len() >= flush::FROZEN_MAX || state.failure.is_some() {
                return;
            }
            state.scratch.clear();
            Value::Image(Cow::Borrowed(page)).encode(&mut state.scratch);
            state.open.insert(key, lsn, &state.scratch);
        }
        crate::layers::count(&self.inner.counters.materialised, 1);
        self.freeze_if_due();
    }

    /// Why the store can no longer flush; `None` while it can. Reads go on.
    pub fn failure(&self) -> Option<StoreError> {
        self.inner.state.borrow().failure.clone()
    }

    /// Bytes of all memory layers.
    pub fn memory_bytes(&self) -> usize {
        self.inner.state.borrow().memory_layers().map(|(memory, _)| memory.bytes()).sum()
    }

    /// Counters by name, for the status.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let state = self.inner.state.borrow();
        let (own, layers) = (&self.inner.counters, &self.inner.context.counters);
        let counters = [
            ("store_reads", own.reads.get()),
            ("store_versions_read", own.versions.get()),
            ("store_images_materialised", own.materialised.get()),
            ("store_write_waits", own.write_waits.get()),
            ("store_flushes", state.flushes),
            ("store_layers", state.layers.all().count() as u64),
            ("store_layer_bytes", state.layers.all().map(|layer| layer.record().file_length).sum()),
            ("store_resident_bytes", state.layers.all().map(|layer| layer.resident_bytes()).sum()),
            ("store_layer_bytes_written", own.layer_bytes_written.get()),
            ("store_memory_bytes", state.memory_layers().map(|(memory, _)| memory.bytes() as u64).sum()),
            ("store_frozen_layers", state.frozen.len() as u64),
            ("store_index_cache_hits", layers.index_hits.get()),
            ("store_index_reads", layers.index_reads.get()),
            ("store_run_reads", layers.run_reads.get()),
            ("store_image_reads", layers.image_reads.get()),
            ("store_device_bytes_read", layers.device_bytes.get()),
            ("store_layers_filtered", layers.filtered.get()),
        ];
        counters.map(|(name, value)| (name.to_string(), value)).into()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The flusher finds the store gone and ends.
        self.changed.notify_all();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Published {
    Yes,
    No,
}
