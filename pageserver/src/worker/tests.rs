//! Against the real thing: the installed postgres with redo.so, built on demand.

#![allow(clippy::disallowed_methods)]

use super::*;
use ironpage_layout::postgres::wal::build::{RecordHead, encode_record};
use ironpage_layout::{BlockNumber, Fork, Lsn, RelTag};
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: PageTag =
    PageTag { rel: RelTag { tablespace: 1663, database: 5, relation: 16384 }, fork: Fork::Main, block: BlockNumber(3) };
const RM_XLOG: u8 = 0;
const RM_HEAP: u8 = 10;
const XLOG_FPI: u8 = 0xB0;
const XLOG_HEAP_INSERT: u8 = 0x00;
const XLOG_HEAP_INIT_PAGE: u8 = 0x80;

/// A worker, and the directory its program lies in while the test runs.
struct Scratch {
    worker: Worker,
    dir: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.worker.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl std::ops::Deref for Scratch {
    type Target = Worker;
    fn deref(&self) -> &Worker {
        &self.worker
    }
}

/// A worker of the installed PostgreSQL 15.
fn worker(name: &str) -> Scratch {
    let dir = std::env::temp_dir().join(format!("ironpage-worker-{name}-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("redo-worker");
    static MADE: std::sync::Once = std::sync::Once::new();
    MADE.call_once(|| {
        let made = Command::new("make").arg("-s").arg("-C").arg(&source).status().unwrap();
        assert!(made.success(), "make -C {} failed", source.display());
    });
    let pg_config = Command::new(std::env::var_os("PG_CONFIG").unwrap_or("pg_config".into())).arg("--bindir").output().unwrap();
    let postgres = PathBuf::from(String::from_utf8(pg_config.stdout).unwrap().trim()).join("postgres");
    let program = pin(&postgres, &source.join("redo.so"), &dir).unwrap();
    assert_eq!(pin(&postgres, &source.join("redo.so"), &dir).unwrap(), program);
    Scratch { worker: Worker::new(WorkerConfig::new(program)), dir }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    ironpage_io::run(ironpage_io::Config::default(), || test).unwrap()
}

/// A block reference to `block` of the test's relation: header, relation, block number (access/xlogrecord.h).
fn block_reference(block: u32, flags: u8, data_length: u16) -> Vec<u8> {
    let mut bytes = vec![0, flags];
    bytes.extend_from_slice(&data_length.to_le_bytes());
    for word in [PAGE.rel.tablespace, PAGE.rel.database, PAGE.rel.relation, block] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// heap_insert of a tuple of four bytes at `offset` (access/heapam_xlog.h).
fn insert(end_lsn: u64, offset: u16, info: u8, data: [u8; 4]) -> RedoRecord {
    let will_init = if info & XLOG_HEAP_INIT_PAGE != 0 { 0x40 } else { 0 };
    // xl_heap_header: infomask2, infomask, hoff; a byte of padding up to hoff, then the data.
    let mut tuple = vec![1, 0, 0, 8, 24, 0];
    tuple.extend_from_slice(&data);
    let mut payload = block_reference(PAGE.block.0, 0x20 | will_init, tuple.len() as u16);
    payload.extend_from_slice(&[255, 3]);
    payload.extend_from_slice(&tuple);
    payload.extend_from_slice(&offset.to_le_bytes());
    payload.push(0);
    let head = RecordHead { xid: 700, prev: Lsn(8), info, rmid: RM_HEAP };
    RedoRecord { end_lsn: Lsn(end_lsn), bytes: encode_record(head, &payload) }
}

fn init(end_lsn: u64) -> RedoRecord {
    insert(end_lsn, 1, XLOG_HEAP_INSERT | XLOG_HEAP_INIT_PAGE, *b"one!")
}

fn lower(page: &Page) -> u16 {
    u16::from_le_bytes([page[12], page[13]])
}

#[test]
fn records_are_applied_in_order_and_the_lsn_is_the_last_ones() {
    run(async {
        let worker = worker("order");
        worker.check().await.unwrap();
        let page = worker.redo(PAGE, None, vec![init(100), insert(200, 2, XLOG_HEAP_INSERT, *b"two!")]).await.unwrap();
        assert_eq!((lower(&page), page[4]), (24 + 2 * 4, 200));
        let page = worker.redo(PAGE, Some(page), vec![insert(300, 3, XLOG_HEAP_INSERT, *b"last")]).await.unwrap();
        assert_eq!(lower(&page), 24 + 3 * 4);
        assert!(page.windows(4).any(|four| four == b"two!") && page.windows(4).any(|four| four == b"last"));
        assert_eq!(worker.counters(), WorkerCounters { batches: 2, records: 3, failures: 0, starts: 1 });
    });
}

#[test]
fn many_pages_are_redone_at_once_and_long_chains_in_parts() {
    run(async {
        let worker = worker("many");
        let tasks: Vec<_> = (0..300)
            .map(|_| {
                let worker = worker.worker.clone();
                ironpage_io::spawn(async move { worker.redo(PAGE, None, vec![init(100)]).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(lower(&task.await.unwrap().unwrap()), 28);
        }
        // Each record starts the page anew; together they are more than a batch takes.
        let long: Vec<_> = (1..=20_000).map(|count| init(count * 8)).collect();
        let page = worker.redo(PAGE, None, long).await.unwrap();
        assert_eq!((lower(&page), page[4..8].to_vec()), (28, 160_000u32.to_le_bytes().to_vec()));
        assert!(worker.counters().batches > 301);
    });
}

#[test]
fn a_bad_record_costs_its_page_an_error_that_names_it() {
    run(async {
        let worker = worker("bad");
        let missing = worker.redo(PAGE, None, vec![insert(100, 2, XLOG_HEAP_INSERT, *b"two!")]).await.unwrap_err();
        assert!(matches!(missing, WorkerError::Invalid { .. }), "{missing}");

        let mut image = block_reference(9, 0x40, 0);
        image.extend_from_slice(&[255, 0]);
        let head = RecordHead { xid: 0, prev: Lsn(8), info: XLOG_FPI, rmid: RM_XLOG };
        let other_page = RedoRecord { end_lsn: Lsn(0x1234), bytes: encode_record(head, &image) };
        let error = worker.redo(PAGE, None, vec![init(100), other_page]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "block 3 of 1663/5/16384: redo of the record of rmgr 0 (XLOG), info 0xb0, that ends at 0/1234 failed: \
             the record does not reference the page"
        );
        let mut cut = init(100);
        cut.bytes.truncate(30);
        assert!(worker.redo(PAGE, None, vec![cut]).await.is_err());
        assert_eq!(lower(&worker.redo(PAGE, None, vec![init(100)]).await.unwrap()), 28);
        assert_eq!((worker.counters().starts, worker.counters().failures), (1, 3));
    });
}

#[test]
fn a_record_that_kills_the_worker_costs_only_its_page() {
    run(async {
        let worker = worker("deadly");
        worker.check().await.unwrap();
        // heap_xlog_insert: "invalid max offset number" is a PANIC.
        let deadly = insert(0x900, 2, XLOG_HEAP_INSERT | XLOG_HEAP_INIT_PAGE, *b"dead");
        let good = || {
            let worker = worker.worker.clone();
            ironpage_io::spawn(async move { worker.redo(PAGE, None, vec![init(100)]).await })
        };
        let mut innocent = vec![good(), good()];
        let guilty = {
            let worker = worker.worker.clone();
            ironpage_io::spawn(async move { worker.redo(PAGE, None, vec![init(100), deadly]).await })
        };
        innocent.extend([good(), good()]);
        for task in innocent {
            assert_eq!(lower(&task.await.unwrap().unwrap()), 28);
        }
        let error = guilty.await.unwrap().unwrap_err();
        assert!(matches!(error, WorkerError::Died { .. }) && error.to_string().contains("0/900"), "{error}");
        assert_eq!(worker.counters().starts, 3, "the request got a second chance");
    });
}

#[test]
fn damaged_records_harm_no_page_but_their_own() {
    run(async {
        let worker = worker("damaged");
        worker.check().await.unwrap();
        let mut seed = 1u64;
        let mut random = |below: usize| {
            // Knuth's linear congruential generator: the same damage in every run.
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for _ in 0..120 {
            let mut record = insert(200, 2, XLOG_HEAP_INSERT, *b"two!");
            for _ in 0..1 + random(3) {
                // Not the length, which the request is built by.
                let at = 4 + random(record.bytes.len() - 4);
                record.bytes[at] ^= 1 << random(8);
            }
            let damaged = worker.redo(PAGE, None, vec![init(100), record]);
            let good = worker.redo(PAGE, None, vec![init(100)]);
            let (damaged, good) = (damaged.await, good.await);
            assert_eq!(lower(&good.unwrap()), 28);
            assert!(!matches!(damaged, Err(WorkerError::BadReply | WorkerError::Timeout { .. })), "{damaged:?}");
        }
    });
}

#[test]
fn a_worker_that_hangs_is_killed() {
    run(async {
        let scratch = worker("hang");
        let mut config = scratch.shared.config.clone();
        // Stands in for a worker that loops: it reads and never answers.
        let program = config.program.library.with_file_name("hang.sh");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        config.program.postgres = program;
        config.program.library = config.program.library.with_file_name("none");
        config.timeout = Duration::from_millis(50);
        let worker = Worker::new(config);
        let error = worker.redo(PAGE, None, vec![init(100)]).await.unwrap_err();
        assert!(matches!(error, WorkerError::Timeout { .. }), "{error}");
    });
}

#[test]
fn a_program_that_is_no_postgres_is_told_from_a_bad_record() {
    run(async {
        let scratch = worker("false");
        let mut config = scratch.shared.config.clone();
        config.program.postgres = PathBuf::from("/bin/false");
        let error = Worker::new(config.clone()).check().await.unwrap_err();
        assert!(matches!(error, WorkerError::Unusable { .. }), "{error}");
        config.program.postgres = PathBuf::from("/nowhere/postgres");
        let error = Worker::new(config).check().await.unwrap_err();
        assert!(matches!(error, WorkerError::Start { .. }), "{error}");
        assert!(matches!(check_version(Path::new("/bin/echo")).await, Err(WorkerError::Version { .. })));
    });
}
