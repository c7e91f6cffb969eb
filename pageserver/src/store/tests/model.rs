//! Random use beside a model that does the same in one map.

use super::*;
use ironpage_layout::KeyKind;
use ironpage_layout::key::SlruKind;
use std::collections::BTreeMap;

/// Versions of each key in the order they were put.
#[derive(Default)]
struct Model {
    versions: BTreeMap<Key, Vec<Version>>,
}

impl Model {
    fn put(&mut self, key: Key, lsn: Lsn, value: &Value<'_>) {
        let versions = self.versions.entry(key).or_default();
        versions.push(version(lsn, value));
        // Stable: an image made by a read comes behind the deltas it includes.
        versions.sort_by_key(|version| version.lsn);
    }

    fn values(&self, key: Key, lsn: Lsn, floor: Lsn) -> Values {
        let mut values = Vec::new();
        for version in self.versions.get(&key).into_iter().flatten().rev() {
            if version.lsn <= lsn && version.lsn > floor {
                values.push(version.clone());
                if Value::encoded_is_state(&version.bytes) {
                    break;
                }
            }
        }
        values
    }

    fn scan(&self, kind: KeyKind, lsn: Lsn) -> Vec<(Key, Version)> {
        let newest = |versions: &Vec<Version>| versions.iter().rev().find(|version| version.lsn <= lsn).cloned();
        let range = self.versions.range(Key::kind_range(kind));
        let all = range.filter_map(|(key, versions)| Some((*key, newest(versions)?)));
        all.filter(|(_, version)| version.bytes != encoded(&Value::Tombstone)).collect()
    }
}

pub(super) fn random_key(random: &mut Random) -> Key {
    let rel = RelTag { tablespace: 1663, database: 5, relation: 16384 + random.below(6) as u32 };
    match random.below(10) {
        0 => Key::rel_size(rel, Fork::Main),
        1 => Key::slru(SlruKind::Clog, random.below(20) as u32),
        2 => Key::two_phase(random.below(30) as u32),
        _ => Key::page(rel, Fork::Main, BlockNumber(random.below(40) as u32 * 500)),
    }
}

pub(super) fn random_value(random: &mut Random, key: Key) -> Value<'static> {
    let bytes = |random: &mut Random, length| (0..length).map(|_| random.next() as u8).collect::<Vec<u8>>();
    let length = if random.below(100) == 0 { 30_000 } else { 8 + random.below(300) };
    match (key.kind, random.below(20)) {
        (KeyKind::Page | KeyKind::Slru, 0) => Value::Image(Cow::Owned(bytes(random, PAGE_SIZE as u64))),
        (KeyKind::Page | KeyKind::Slru, 1) => Value::ZeroPage,
        (KeyKind::Page, 2) => Value::Record { initialises: true, bytes: Cow::Owned(bytes(random, length)) },
        (KeyKind::Page, 3) => Value::VmClear { heap_block: random.next() as u32, flags: 3 },
        (KeyKind::Page, _) => Value::Record { initialises: false, bytes: Cow::Owned(bytes(random, length)) },
        (KeyKind::Slru, 2..5) => Value::Tombstone,
        (KeyKind::Slru, _) => Value::Clog { status: 1, xids: Cow::Owned(vec![random.next() as u32; 3]) },
        (_, 0..4) => Value::Tombstone,
        _ => Value::Blob(Cow::Owned(bytes(random, length))),
    }
}

fn random_lsn(random: &mut Random, last: Lsn) -> Lsn {
    match random.below(3) {
        0 => last,
        _ => Lsn(START.0 + random.below(last.0 - START.0 + 1)),
    }
}

async fn compare(store: &Store, model: &Model, random: &mut Random, reads: usize) {
    let last = store.last_record_lsn();
    for _ in 0..reads {
        let key = random_key(random);
        let lsn = random_lsn(random, last);
        let floor = if random.below(4) == 0 { random_lsn(random, last) } else { Lsn::INVALID };
        let found = store.values(key, lsn, floor).await.unwrap();
        assert!(found == model.values(key, lsn, floor), "{key} at {lsn} above {floor}");
    }
    let lsn = random_lsn(random, last);
    for kind in [KeyKind::RelSize, KeyKind::TwoPhase] {
        assert_eq!(store.scan(Key::kind_range(kind), lsn).await.unwrap(), model.scan(kind, lsn), "{kind:?} at {lsn}");
    }
    for kind in [KeyKind::Slru, KeyKind::Page] {
        let keys: Vec<Key> = model.scan(kind, lsn).into_iter().map(|(key, _)| key).collect();
        assert_eq!(store.live_keys(Key::kind_range(kind), lsn).await.unwrap(), keys, "{kind:?} at {lsn}");
    }
}

fn agrees_with_the_model(seed: u64, config: StoreConfig, records: u64) {
    let dir = TempDir::new();
    on_ring(|| async {
        let mut random = Random(seed);
        let mut model = Model::default();
        let mut store = Store::create(&dir.timeline(), record(), config.clone()).await.unwrap();
        store.flush().await.unwrap();
        for _ in 0..records {
            store.ready_for_writes().await.unwrap();
            let lsn = store.last_record_lsn() + 8 * (1 + random.below(20));
            for _ in 0..1 + random.below(4) {
                let key = random_key(&mut random);
                // Some records change a key twice.
                for _ in 0..1 + random.below(2) {
                    let value = random_value(&mut random, key);
                    model.put(key, lsn, &value);
                    store.put(key, lsn, &value);
                }
            }
            store.set_last_record(lsn, store.last_record_lsn());
            match random.below(40) {
                0 => compare(&store, &model, &mut random, 10).await,
                1 => store.flush().await.unwrap(),
                2 => {
                    store.flush().await.unwrap();
                    assert_eq!(store.disk_consistent_lsn(), lsn);
                    drop(store);
                    store = Store::open(&dir.timeline(), config.clone()).await.unwrap();
                    assert_eq!((store.last_record_lsn(), store.timeline()), (lsn, &record()));
                    compare(&store, &model, &mut random, 20).await;
                }
                3..6 => {
                    let key = random_key(&mut random);
                    if matches!(key.kind, KeyKind::Page | KeyKind::Slru) {
                        let lsn = random_lsn(&mut random, lsn);
                        let page = vec![random.next() as u8; PAGE_SIZE];
                        let before = store.counters();
                        store.materialise(key, lsn, &page);
                        let taken = |counters: Vec<(String, u64)>| counters.into_iter().find(|c| c.0.contains("materialised"));
                        if taken(before) != taken(store.counters()) {
                            model.put(key, lsn, &Value::Image(Cow::Owned(page)));
                        }
                    }
                }
                _ => {}
            }
        }
        compare(&store, &model, &mut random, 500).await;
        store.flush().await.unwrap();
        compare(&store, &model, &mut random, 500).await;
    });
}

#[test]
fn random_use_agrees_with_the_model() {
    (1..5).for_each(|seed| agrees_with_the_model(seed, StoreConfig::default(), 800));
}

#[test]
fn random_use_agrees_with_the_model_under_tight_limits() {
    let config =
        StoreConfig { memory_bytes_max: 128 << 10, index_cache_bytes_max: 8192, open_files_max: 2, ..StoreConfig::default() };
    (5..8).for_each(|seed| agrees_with_the_model(seed, config.clone(), 800));
}

#[test]
fn a_large_value_comes_back() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        let large: Vec<u8> = (0..(5usize << 20) + 77).map(|n| ((n * 31) >> 3) as u8).collect();
        ingest(&store, START + 8, &[(page_key(1), image(1)), (page_key(2), delta(b"small"))]);
        ingest(&store, START + 16, &[(page_key(1), delta(&large)), (Key::two_phase(9), blob(&large))]);
        store.flush().await.unwrap();
        ingest(&store, START + 24, &[(page_key(1), delta(b"last"))]);
        let expected = [version(START + 24, &delta(b"last")), version(START + 16, &delta(&large)), version(START + 8, &image(1))];
        assert!(store.values(page_key(1), START + 24, Lsn::INVALID).await.unwrap() == expected);
        let scanned = store.scan(Key::kind_range(KeyKind::TwoPhase), Lsn::MAX).await.unwrap();
        assert!(scanned == [(Key::two_phase(9), version(START + 16, &blob(&large)))]);
    });
}

#[test]
fn an_image_made_by_a_read_replaces_what_is_on_disk() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        ingest(&store, START + 8, &[(page_key(1), image(1))]);
        ingest(&store, START + 16, &[(page_key(1), delta(b"a"))]);
        store.flush().await.unwrap();
        ingest(&store, START + 24, &[(page_key(1), delta(b"b"))]);
        store.flush().await.unwrap();
        ingest(&store, START + 32, &[(page_key(2), delta(b"other"))]);
        // At the very LSN of its last delta, and below another.
        store.materialise(page_key(1), START + 16, &[9; PAGE_SIZE]);
        for flushed in [false, true] {
            if flushed {
                store.flush().await.unwrap();
            }
            let values = |lsn| store.values(page_key(1), lsn, Lsn::INVALID);
            let newest = [version(START + 24, &delta(b"b")), version(START + 16, &image(9))];
            assert!(values(Lsn::MAX).await.unwrap() == newest);
            assert!(values(START + 16).await.unwrap() == newest[1..]);
            assert!(values(START + 15).await.unwrap() == [version(START + 8, &image(1))]);
            assert!(store.values(page_key(1), Lsn::MAX, START + 16).await.unwrap() == newest[..1]);
        }
    });
}

#[test]
fn a_read_touches_only_what_it_needs() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        // Per flush: deltas below an image, the image, deltas on it, a layer without the key.
        ingest(&store, START + 8, &[(page_key(1), delta(b"old"))]);
        store.flush().await.unwrap();
        ingest(&store, START + 16, &[(page_key(1), image(1))]);
        store.flush().await.unwrap();
        ingest(&store, START + 24, &[(page_key(1), delta(b"a"))]);
        ingest(&store, START + 32, &[(page_key(1), delta(b"b"))]);
        store.flush().await.unwrap();
        ingest(&store, START + 40, &[(page_key(0), delta(b"x")), (page_key(2), delta(b"y"))]);
        store.flush().await.unwrap();
        for round in 0..2 {
            assert_eq!(store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap().len(), 3);
            let counters = &store.inner.context.counters;
            let reads = [&counters.index_reads, &counters.run_reads, &counters.image_reads, &counters.filtered].map(Cell::get);
            // The index of three layers once; then the run of the deltas and the image each time.
            assert_eq!(reads, [3, 1 + round, 1 + round, 1 + round]);
        }
    });
}
