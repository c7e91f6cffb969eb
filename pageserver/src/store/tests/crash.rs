//! A crash at any moment of a flush.

use super::*;

#[test]
fn a_crash_between_layers_and_manifest_leaves_the_state_before() {
    let dir = TempDir::new();
    let manifest = dir.timeline().join(MANIFEST_NAME);
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        ingest(&store, START + 8, &[(page_key(1), image(1))]);
        store.flush().await.unwrap();
        let before = (std::fs::read(&manifest).unwrap(), dir.layer_files());
        ingest(&store, START + 16, &[(page_key(1), delta(b"a")), (page_key(9), delta(b"c"))]);
        store.flush().await.unwrap();
        drop(store);
        // The crash: the new layers are there, the new manifest is not.
        let after = dir.layer_files();
        std::fs::write(&manifest, &before.0).unwrap();
        std::fs::write(dir.timeline().join("manifest.tmp"), b"half a manif").unwrap();
        assert!(after.len() > before.1.len());

        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        assert_eq!(dir.layer_files(), before.1, "files the manifest does not name are removed");
        assert_eq!((store.last_record_lsn(), store.disk_consistent_lsn()), (START + 8, START + 8));
        assert!(store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap() == [version(START + 8, &image(1))]);
        // The same WAL again, and the same file names.
        ingest(&store, START + 16, &[(page_key(1), delta(b"a")), (page_key(9), delta(b"c"))]);
        store.flush().await.unwrap();
        drop(store);
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        assert_eq!((store.last_record_lsn(), dir.layer_files()), (START + 16, after));
        let expected = [version(START + 16, &delta(b"a")), version(START + 8, &image(1))];
        assert!(store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap() == expected);
    });
}

#[test]
fn what_was_not_flushed_is_gone_and_can_be_ingested_again() {
    let dir = TempDir::new();
    on_ring(|| async {
        let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
        ingest(&store, START + 8, &[(page_key(1), image(1))]);
        store.flush().await.unwrap();
        for round in 0..3 {
            let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
            assert_eq!(store.last_record_lsn(), START + 8, "round {round}");
            ingest(&store, START + 16, &[(page_key(1), delta(b"a"))]);
            assert_eq!(store.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap().len(), 2);
        }
    });
}
