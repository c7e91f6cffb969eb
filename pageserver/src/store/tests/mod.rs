//! The store on the real ring, in temporary directories.

// Tests damage files behind the store's back.
#![allow(clippy::disallowed_methods)]

mod branches;
mod crash;
mod damage;
mod flushing;
mod model;

use super::*;
use ironpage_io::Config;
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{BlockNumber, Fork, RelTag, TenantId, TimelineId};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of this test's own, removed at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ironpage-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    fn timeline(&self) -> PathBuf {
        self.0.join("timeline")
    }

    /// Layer files there are, sorted.
    fn layer_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.timeline().join(LAYERS_NAME)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn on_ring<F: Future>(main: impl FnOnce() -> F) -> F::Output {
    ironpage_io::run(Config::default(), main).unwrap()
}

fn record() -> TimelineRecord {
    TimelineRecord {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        name: "main".into(),
        system_id: 7,
        postgres_version: 150_018,
        start_lsn: START,
        prev_record_lsn: Lsn(0x0100_0000),
        readable_lsn: START,
        ancestor: None,
    }
}

const START: Lsn = Lsn(0x0100_0028);

fn page_key(block: u32) -> Key {
    Key::page(RelTag { tablespace: 1663, database: 5, relation: 16384 }, Fork::Main, BlockNumber(block))
}

fn image(byte: u8) -> Value<'static> {
    Value::Image(Cow::Owned(vec![byte; PAGE_SIZE]))
}

fn delta(bytes: &[u8]) -> Value<'_> {
    Value::Record { initialises: false, bytes: Cow::Borrowed(bytes) }
}

fn blob(bytes: &[u8]) -> Value<'_> {
    Value::Blob(Cow::Borrowed(bytes))
}

fn encoded(value: &Value<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

fn version(lsn: Lsn, value: &Value<'_>) -> Version {
    Version { lsn, bytes: encoded(value) }
}

/// Puts values as one record that ends at `lsn`.
fn ingest(store: &Store, lsn: Lsn, values: &[(Key, Value<'_>)]) {
    values.iter().for_each(|(key, value)| store.put(*key, lsn, value));
    store.set_last_record(lsn, store.last_record_lsn());
}

/// xorshift64*: the same numbers from the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
