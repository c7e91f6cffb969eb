//! One timeline's versioned key-value store: memory layers in front of layer files, and the manifest that names these.
//!
//! A `Store` lives on one core and is a handle: clones are the same store.

mod error;

pub use error::StoreError;

use ironpage_layout::{Key, Lsn, TenantId, TimelineId, Value};
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// What a timeline is, from its creation on. Kept in its manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineRecord {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    /// Name of the branch.
    pub name: String,
    pub system_id: u64,
    /// PG_VERSION_NUM.
    pub postgres_version: u32,
    /// A record ends here, and the timeline's WAL begins.
    pub start_lsn: Lsn,
    /// Start of the record that ends at `start_lsn`.
    pub prev_record_lsn: Lsn,
}

/// Limits of one store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The open memory layer is frozen once it takes more bytes than this.
    pub memory_bytes_max: usize,
    /// It is also frozen once its first value is this old.
    pub memory_age_max: Duration,
    /// Bytes of the cache of index blocks.
    pub index_cache_bytes_max: usize,
    /// Layer files held open at most.
    pub open_files_max: usize,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            memory_bytes_max: 256 << 20,
            memory_age_max: Duration::from_secs(600),
            index_cache_bytes_max: 64 << 20,
            open_files_max: 512,
        }
    }
}

/// One version of a key, encoded as [`Value::decode`] reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// End of the record that made it.
    pub lsn: Lsn,
    pub bytes: Vec<u8>,
}

/// Versions of one key, newest first, up to and including the newest state (see [`Value::is_state`]).
pub type Values = Vec<Version>;

/// One timeline's versioned key-value store.
#[derive(Clone)]
pub struct Store {
    inner: Rc<()>,
}

/// Called synchronously just before a memory layer is frozen, at a record boundary: what it puts at
/// [`Store::last_record_lsn`] goes into that layer.
pub type FreezeHook = Box<dyn Fn(&Store)>;

impl Store {
    /// Starts a timeline in `dir`, which may not hold one yet. Values are put at `start_lsn`; the
    /// timeline is there after a restart only once the first [`Store::flush`] has returned.
    pub async fn create(dir: &Path, timeline: TimelineRecord, config: StoreConfig) -> Result<Store, StoreError> {
        let _ = (dir, timeline, config);
        todo!()
    }

    /// Opens the timeline whose manifest is in `dir`, and removes files there that the manifest does not name.
    /// [`StoreError::NoManifest`] if its creation was never finished: the directory may be removed.
    pub async fn open(dir: &Path, config: StoreConfig) -> Result<Store, StoreError> {
        let _ = (dir, config);
        todo!()
    }

    pub fn timeline(&self) -> &TimelineRecord {
        todo!()
    }

    pub fn set_freeze_hook(&self, hook: FreezeHook) {
        let _ = hook;
        todo!()
    }

    /// Adds a version. `lsn` is at or behind the last record's end, and never goes back.
    pub fn put(&self, key: Key, lsn: Lsn, value: &Value<'_>) {
        let _ = (key, lsn, value);
        todo!()
    }

    /// A whole record has been put: `lsn` is its end, `prev` its start. What a flush may claim.
    pub fn set_last_record(&self, lsn: Lsn, prev: Lsn) {
        let _ = (lsn, prev);
        todo!()
    }

    /// End of the last whole record.
    pub fn last_record_lsn(&self) -> Lsn {
        todo!()
    }

    /// Start of the last whole record.
    pub fn prev_record_lsn(&self) -> Lsn {
        todo!()
    }

    /// All up to here is in layer files and survives a crash.
    pub fn disk_consistent_lsn(&self) -> Lsn {
        todo!()
    }

    /// The versions of `key` that make its state at `lsn`: newest first, until a state, those at or
    /// below `floor` left out. Empty if there is none. Sees values put but not yet covered by `set_last_record`.
    pub async fn values(&self, key: Key, lsn: Lsn, floor: Lsn) -> Result<Values, StoreError> {
        let _ = (key, lsn, floor);
        todo!()
    }

    /// The newest version at `lsn` of each key in the range that is not a `Tombstone` then, in key order. For
    /// the kinds whose values are all `Blob` or `Tombstone`.
    pub async fn scan(&self, keys: RangeInclusive<Key>, lsn: Lsn) -> Result<Vec<(Key, Version)>, StoreError> {
        let _ = (keys, lsn);
        todo!()
    }

    /// The keys in the range whose newest version at `lsn` is not a `Tombstone`, in order. For any kind; reads no images.
    pub async fn live_keys(&self, keys: RangeInclusive<Key>, lsn: Lsn) -> Result<Vec<Key>, StoreError> {
        let _ = (keys, lsn);
        todo!()
    }

    /// Adds the page that a read at `lsn` produced, so that later reads need not redo it. `lsn` must have
    /// been at or below the last record when the values were read. Ignored when memory is short.
    pub fn materialise(&self, key: Key, lsn: Lsn, page: &[u8]) {
        let _ = (key, lsn, page);
        todo!()
    }

    /// Makes everything up to the last record at the time of the call durable in layer files.
    pub async fn flush(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Returns once there is room for more values; at once unless flushing lags behind. An error if the store
    /// can't flush any more.
    pub async fn ready_for_writes(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Why the store can no longer flush; `None` while it can. Reads go on.
    pub fn failure(&self) -> Option<StoreError> {
        todo!()
    }

    /// Bytes of all memory layers.
    pub fn memory_bytes(&self) -> usize {
        todo!()
    }

    /// Counters by name, for the status.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let _ = &self.inner;
        todo!()
    }
}
