//! When memory is frozen, what a flush claims, and what it does when it can't.

use super::*;
use std::time::Duration;

#[test]
fn an_empty_timeline_is_there_after_its_first_flush_only() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        store.put(page_key(1), START, &image(1));
        drop(store);
        let gone = Store::open(&dir.timeline(), StoreConfig::default()).await;
        assert!(matches!(gone, Err(StoreError::NoManifest { .. })));

        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        store.flush().await.unwrap();
        drop(store);
        let again = Store::create(&dir.timeline(), record(), StoreConfig::default()).await;
        assert!(matches!(again, Err(StoreError::Exists { .. })));
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        assert_eq!(store.timeline(), &record());
        assert_eq!((store.last_record_lsn(), store.disk_consistent_lsn()), (START, START));
        assert_eq!(store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap(), []);
        store.flush().await.unwrap();
    });
}

#[test]
fn an_import_larger_than_memory_is_published_as_a_whole() {
    let dir = TempDir::new();
    let config = StoreConfig { memory_bytes_max: 64 << 10, ..StoreConfig::default() };
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), config.clone()).await.unwrap();
        for block in 0..100 {
            store.ready_for_writes().await.unwrap();
            store.put(page_key(block), START, &image(block as u8));
        }
        assert!(dir.layer_files().len() > 2);
        assert!(matches!(Store::open(&dir.0.join("elsewhere"), config.clone()).await, Err(StoreError::NoManifest { .. })));
        assert!(!dir.timeline().join(MANIFEST_NAME).exists());
        store.flush().await.unwrap();
        drop(store);
        let store = Store::open(&dir.timeline(), config).await.unwrap();
        for block in 0..100 {
            let values = store.values(page_key(block), START, Lsn::INVALID).await.unwrap();
            assert!(values == [version(START, &image(block as u8))]);
        }
    });
}

#[test]
fn a_record_half_put_is_not_frozen() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        store.flush().await.unwrap();
        store.put(page_key(1), START + 8, &delta(b"half"));
        let flush = spawn({
            let store = store.clone();
            async move { store.flush().await }
        });
        for _ in 0..100 {
            ironpage_io::yield_now().await;
        }
        assert_eq!((store.disk_consistent_lsn(), store.inner.state.borrow().freezes), (START, 1));
        store.put(page_key(2), START + 8, &delta(b"other half"));
        store.set_last_record(START + 8, START);
        flush.await.unwrap().unwrap();
        assert_eq!((store.disk_consistent_lsn(), store.prev_record_lsn()), (START + 8, START));
        drop(store);
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        assert_eq!((store.last_record_lsn(), store.prev_record_lsn()), (START + 8, START));
        for (block, bytes) in [(1, &b"half"[..]), (2, b"other half")] {
            let values = store.values(page_key(block), Lsn::MAX, Lsn::INVALID).await.unwrap();
            assert_eq!(values, [version(START + 8, &delta(bytes))]);
        }
    });
}

#[test]
fn the_hook_adds_to_the_layer_that_is_frozen() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        store.set_freeze_hook(Rc::new(|store| {
            let lsn = store.last_record_lsn();
            store.put(Key::control(), lsn, &blob(&lsn.0.to_le_bytes()));
        }));
        store.flush().await.unwrap();
        ingest(&store, START + 8, &[(page_key(1), delta(b"a"))]);
        store.flush().await.unwrap();
        // Nothing changed: nothing is written.
        store.flush().await.unwrap();
        assert_eq!(store.inner.state.borrow().flushes, 2);
        drop(store);
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        for lsn in [START, START + 8] {
            let values = store.values(Key::control(), lsn, Lsn::INVALID).await.unwrap();
            assert_eq!(values, [version(lsn, &blob(&lsn.0.to_le_bytes()))]);
        }
    });
}

#[test]
fn what_gets_old_is_flushed_without_being_asked() {
    let dir = TempDir::new();
    let config = StoreConfig { memory_age_max: Duration::from_millis(20), ..StoreConfig::default() };
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), config).await.unwrap();
        store.flush().await.unwrap();
        for n in 1..4 {
            ingest(&store, START + 8 * n, &[(page_key(1), delta(b"a"))]);
            while store.disk_consistent_lsn() < START + 8 * n {
                let changed = store.inner.changed.notified();
                time::timeout(Duration::from_secs(20), changed).await.unwrap();
            }
        }
        assert!(store.inner.state.borrow().open.is_empty());
    });
}

#[test]
fn memory_stays_bounded_while_flushes_lag() {
    let dir = TempDir::new();
    let limit = 1 << 20;
    let config = StoreConfig { memory_bytes_max: limit, ..StoreConfig::default() };
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), config).await.unwrap();
        store.flush().await.unwrap();
        let bytes = vec![5; 40_000];
        for n in 1..1500u64 {
            store.ready_for_writes().await.unwrap();
            ingest(&store, START + 8 * n, &[(page_key(n as u32 % 70), delta(&bytes))]);
            assert!(store.memory_bytes() <= 3 * limit + (2 << 20), "{} bytes at {n}", store.memory_bytes());
        }
        assert!(store.inner.counters.write_waits.get() > 0, "writes never waited");
    });
}

#[test]
fn a_failed_flush_stops_the_store_but_not_its_reads() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        ingest(&store, START + 8, &[(page_key(1), image(1)), (page_key(2), image(2))]);
        store.flush().await.unwrap();
        assert_eq!(store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap().len(), 1);
        let layers = dir.timeline().join(LAYERS_NAME);
        std::fs::rename(&layers, dir.timeline().join("away")).unwrap();

        ingest(&store, START + 16, &[(page_key(1), delta(b"a"))]);
        let error = store.flush().await.unwrap_err().to_string();
        assert!(error.contains("restart") && error.contains(layers.to_str().unwrap()), "{error}");
        assert!(store.ready_for_writes().await.is_err() && store.failure().is_some());
        ingest(&store, START + 24, &[(page_key(2), delta(b"b"))]);
        assert!(store.flush().await.is_err());
        assert_eq!(store.disk_consistent_lsn(), START + 8);
        std::fs::rename(dir.timeline().join("away"), &layers).unwrap();
        assert!(
            store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap()
                == [version(START + 16, &delta(b"a")), version(START + 8, &image(1))]
        );
        drop(store);
        // A restart goes on from what the last manifest says.
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        assert_eq!((store.last_record_lsn(), store.disk_consistent_lsn()), (START + 8, START + 8));
        ingest(&store, START + 16, &[(page_key(1), delta(b"a"))]);
        store.flush().await.unwrap();
        assert_eq!(store.disk_consistent_lsn(), START + 16);
    });
}

/// A timeline that stopped in the middle of a record cannot freeze its open layer any more.
#[test]
fn reads_do_not_fill_memory_that_cannot_be_frozen() {
    let dir = TempDir::new();
    on_ring(|| async {
        let config = StoreConfig { memory_bytes_max: 1 << 20, ..StoreConfig::default() };
        let store = Store::create(&dir.timeline(), record(), config).await.unwrap();
        ingest(&store, START + 8, &[(page_key(1), image(1))]);
        store.put(page_key(2), START + 16, &image(2));
        for block in 0..1000 {
            store.materialise(page_key(block), START + 8, &[3; PAGE_SIZE]);
        }
        assert!(store.memory_bytes() < 3 << 20, "{}", store.memory_bytes());
    });
}
