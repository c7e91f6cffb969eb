//! Ingest of all WAL that a stock Postgres writes under a varied workload, held against its files.

// Tests drive a stock Postgres and read its files; the daemon does not.
#![allow(clippy::disallowed_methods)]

mod compare;
mod data_dir;
mod records;
mod scratch;
mod store;
mod wal;

use super::{Head, IngestAction};
use compare::Comparison;
use ironpage_layout::Lsn;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::wal::{DecodedRecord, Verify, WalStream};
use scratch::Scratch;
use store::TestStore;

/// Settings of the runs, one after the other on one data directory.
const RUNS: [&[(&str, &str)]; 3] = [
    &[("full_page_writes", "on"), ("wal_compression", "off"), ("track_commit_timestamp", "on"), ("wal_level", "replica")],
    &[("full_page_writes", "on"), ("wal_compression", "pglz"), ("track_commit_timestamp", "off"), ("wal_level", "logical")],
    &[("full_page_writes", "off"), ("wal_compression", "off"), ("track_commit_timestamp", "on"), ("wal_level", "replica")],
];

#[test]
fn all_wal_of_a_varied_workload_is_ingested_and_gives_the_files_back() {
    let postgres = Scratch::init();
    let control = ControlFile::read(&postgres.read("global/pg_control")).expect("pg_control of initdb");
    let checkpoint = Lsn(control.checkpoint.get());
    let mut stream = WalStream::new(checkpoint, Verify::Crc).with_system_id(control.system_id.get());
    let mut wal = wal::Reader::new(postgres.path("pg_wal"));
    let start = wal.next(&mut stream).expect("the checkpoint of initdb");
    assert_eq!((start.start, wal.next(&mut stream)), (checkpoint, None));

    let mut head = Head::new(start.end, checkpoint);
    let mut store = TestStore::default();
    data_dir::import(&postgres, |item| head.import(&item, start.end, &mut store).expect("import"));
    head.finish_import(&mut store).expect("an import ends");

    for settings in RUNS {
        postgres.run_workload(settings);
    }

    let mut before_shutdown = head.clone();
    let (mut records, mut copies) = (Vec::new(), 0);
    while let Some(record) = wal.next(&mut stream) {
        before_shutdown = head.clone_if_last(before_shutdown, &record);
        let action = head.ingest(&record.borrow(), &mut store).unwrap_or_else(|error| panic!("{error}"));
        if let IngestAction::CopyDatabase(copy) = action {
            copies += 1;
            store.copy_rel_map(&copy, record.end);
        }
        records.push(wal::Summary::of(&DecodedRecord::decode(&record.bytes).expect("decodes"), &record));
    }
    assert!(copies > 0, "the workload copies a database file by file");
    wal::compare_with_waldump(&postgres, start.end, head.last_record_lsn(), &records);

    let comparison = Comparison { postgres: &postgres, head: &head, store: &store };
    comparison.counters(&before_shutdown);
    comparison.control();
    comparison.slrus();
    comparison.sizes();
    comparison.visibility_maps();
    comparison.directories();
    comparison.prepared_transactions();
    comparison.rebuilt_from_the_store();
    wal::start_from_a_fabricated_checkpoint(&postgres, &head);
}

impl Head {
    /// `self`, if `record` is a shutdown checkpoint, else `before`.
    fn clone_if_last(&self, before: Head, record: &wal::OwnedRecord) -> Head {
        if record.is_shutdown_checkpoint() { self.clone() } else { before }
    }
}
