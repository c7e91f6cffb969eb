//! Files that were damaged, cut, lost or swapped.

use super::*;

const KEYS: u32 = 150;

/// Three flushes: images, deltas on them with an image among them, blobs. Returns what reads of each key give.
async fn prepared(dir: &TempDir) -> Vec<(Key, Values)> {
    let store = Store::create(&dir.timeline(), record(), StoreConfig::default()).await.unwrap();
    let keys = || (0..KEYS).map(page_key);
    for (n, key) in keys().enumerate().filter(|(n, _)| n % 5 == 0) {
        ingest(&store, store.last_record_lsn() + 8, &[(key, image(n as u8))]);
    }
    store.flush().await.unwrap();
    for (n, key) in keys().enumerate() {
        let lsn = store.last_record_lsn() + 8;
        ingest(&store, lsn, &[(key, delta(&[n as u8; 50])), (key, delta(b"second"))]);
        if n % 7 == 0 {
            ingest(&store, lsn + 8, &[(key, image(100 + n as u8))]);
            ingest(&store, lsn + 16, &[(key, delta(b"on the image"))]);
        }
    }
    store.flush().await.unwrap();
    let lsn = store.last_record_lsn() + 8;
    ingest(&store, lsn, &[(Key::control(), blob(b"control")), (page_key(3), delta(b"late"))]);
    store.flush().await.unwrap();
    read_all(&store).await.into_iter().map(|(key, values)| (key, values.unwrap())).collect()
}

async fn read_all(store: &Store) -> Vec<(Key, Result<Values, StoreError>)> {
    let mut all = Vec::new();
    for key in (0..KEYS).step_by(3).map(page_key).chain([Key::control()]) {
        all.push((key, store.values(key, Lsn::MAX, Lsn::INVALID).await));
    }
    all
}

/// Opens the store and reads all; counts reads that failed, with the file named. Any that succeed are right.
async fn failures(dir: &TempDir, expected: &[(Key, Values)], damaged: &Path) -> usize {
    let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
    let mut failed = 0;
    for ((key, found), (_, right)) in read_all(&store).await.iter().zip(expected) {
        match found {
            Ok(values) => assert!(values == right, "{key} is wrong, from {damaged:?}"),
            Err(error) => {
                assert!(error.to_string().contains(damaged.to_str().unwrap()), "{error}");
                failed += 1;
            }
        }
    }
    failed
}

#[test]
fn a_flipped_bit_gives_an_error_or_the_right_values() {
    let dir = TempDir::new();
    on_ring(|| async {
        let expected = prepared(&dir).await;
        let mut random = Random(11);
        let files = dir.layer_files();
        let mut failed = 0;
        for round in 0..600 {
            let path = &files[random.below(files.len() as u64) as usize];
            let bytes = std::fs::read(path).unwrap();
            let mut damaged = bytes.clone();
            // Every other one beyond the images, where the smaller sections are.
            let from = if round % 2 == 0 { 0 } else { bytes.len() / 2 };
            let at = from + random.below((bytes.len() - from) as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
            std::fs::write(path, &damaged).unwrap();
            failed += usize::from(failures(&dir, &expected, path).await > 0);
            std::fs::write(path, &bytes).unwrap();
        }
        assert!(failed > 50, "only {failed} of 600 flips were noticed");
        assert_eq!(failures(&dir, &expected, Path::new("/none")).await, 0);
    });
}

#[test]
fn a_cut_file_gives_an_error() {
    let dir = TempDir::new();
    on_ring(|| async {
        let expected = prepared(&dir).await;
        for path in dir.layer_files() {
            let bytes = std::fs::read(&path).unwrap();
            for length in (0..bytes.len()).step_by(bytes.len() / 13 + 1).chain([bytes.len() - 1]) {
                std::fs::write(&path, &bytes[..length]).unwrap();
                let failed = failures(&dir, &expected, &path).await;
                assert!(failed > 0 || length > 4096, "{path:?} cut to {length} was not noticed");
            }
            std::fs::write(&path, &bytes).unwrap();
        }
    });
}

#[test]
fn a_layer_of_another_tenant_or_flush_is_refused() {
    let (dir, other) = (TempDir::new(), TempDir::new());
    on_ring(|| async {
        let expected = prepared(&dir).await;
        let store =
            Store::create(&other.timeline(), TimelineRecord { tenant: TenantId([7; 16]), ..record() }, StoreConfig::default())
                .await
                .unwrap();
        ingest(&store, START + 8, &(0..KEYS).map(|block| (page_key(block), image(9))).collect::<Vec<_>>());
        store.flush().await.unwrap();
        let files = dir.layer_files();
        let own = std::fs::read(&files[0]).unwrap();
        std::fs::copy(&other.layer_files()[0], &files[0]).unwrap();
        assert!(failures(&dir, &expected, &files[0]).await > 0);
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        let errors: Vec<String> =
            read_all(&store).await.into_iter().filter_map(|(_, result)| Some(result.err()?.to_string())).collect();
        assert!(errors.iter().all(|error| error.contains("another tenant")), "{errors:?}");
        std::fs::write(&files[0], own).unwrap();

        // Two layers of one slot under each other's names.
        let (a, b) = (&files[0], &files[1]);
        let (bytes_a, bytes_b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        std::fs::write(a, &bytes_b).unwrap();
        std::fs::write(b, &bytes_a).unwrap();
        let store = Store::open(&dir.timeline(), StoreConfig::default()).await.unwrap();
        for ((key, found), (_, right)) in read_all(&store).await.into_iter().zip(&expected) {
            assert!(found.is_err() || found.unwrap() == *right, "{key}");
        }
    });
}

#[test]
fn a_missing_layer_or_damaged_manifest_is_named_at_open() {
    let dir = TempDir::new();
    on_ring(|| async {
        prepared(&dir).await;
        let manifest = dir.timeline().join(MANIFEST_NAME);
        let bytes = std::fs::read(&manifest).unwrap();
        for bit in (0..bytes.len() * 8).step_by(37) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&manifest, damaged).unwrap();
            let error = Store::open(&dir.timeline(), StoreConfig::default()).await.err().unwrap().to_string();
            assert!(error.contains(manifest.to_str().unwrap()), "{error}");
        }
        std::fs::write(&manifest, bytes).unwrap();
        let lost = dir.layer_files().remove(0);
        std::fs::remove_file(&lost).unwrap();
        let error = Store::open(&dir.timeline(), StoreConfig::default()).await.err().unwrap().to_string();
        assert!(error.contains(lost.to_str().unwrap()) && error.contains("missing"), "{error}");
    });
}
