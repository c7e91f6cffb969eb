//! Single records that a workload seldom or never makes.

use crate::ingest::{Head, IngestAction, IngestError};
use ironpage_layout::history::{BUCKET_BITS, History, NO_COMMIT, bucket_of, bucket_start};
use ironpage_layout::key::SlruKind;
use ironpage_layout::postgres::control::{CATALOG_VERSION, CONTROL_VERSION, ControlFile, state};
use ironpage_layout::postgres::rmgr::{
    Rmgr, clog, commit_ts, database, heap, multixact, relmap, standby, storage, tablespace, xact, xlog,
};
use ironpage_layout::postgres::wal::build::{WalWriter, main_data_payload};
use ironpage_layout::postgres::wal::{Next, Verify, WalStream};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Fork, Key, Lsn, RelTag, Value};
use zerocopy::FromZeros;
use zerocopy::little_endian::{I32, U32, U64};

const START: Lsn = Lsn(0x1000100);
const PREV: Lsn = Lsn(0x1000028);
const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

fn control() -> ControlFile {
    let mut control = ControlFile::new_zeroed();
    control.control_version = U32::new(CONTROL_VERSION);
    control.catalog_version = U32::new(CATALOG_VERSION);
    control.state = I32::new(state::SHUTDOWNED);
    control.max_align = U32::new(8);
    control.block_size = U32::new(8192);
    control.relation_segment_size = U32::new(131_072);
    control.wal_block_size = U32::new(8192);
    control.wal_segment_size = U32::new(16 << 20);
    control.checkpoint_copy.timeline = U32::new(1);
    control.checkpoint_copy.next_xid = U64::new(700);
    control.checkpoint_copy.next_multi = U32::new(1);
    control.checkpoint_copy.oldest_multi = U32::new(1);
    control
}

/// A head and what it put, fed with records made here.
struct Feed {
    head: Head,
    puts: Vec<(Key, Lsn, Vec<u8>)>,
    writer: WalWriter,
    taken: usize,
    /// What the last record left to do.
    action: IngestAction,
}

impl Feed {
    fn new(control: ControlFile) -> Feed {
        let mut head = Head::new(START, PREV);
        let mut puts = Vec::new();
        let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| puts.push((key, lsn, encoded(&value)));
        head.import(&Item::Control(&control.to_bytes()), START, &mut sink).unwrap();
        head.import(&Item::RelSize { rel: REL, fork: Fork::Main, blocks: 10 }, START, &mut sink).unwrap();
        puts.clear();
        Feed { head, puts, writer: WalWriter::new(START, PREV, 0), taken: 0, action: IngestAction::None }
    }

    /// Feeds one record; what it put is in `puts`.
    fn take(&mut self, rmgr: Rmgr, info: u8, xid: u32, payload: &[u8]) -> Result<(), IngestError> {
        let at = self.writer.position();
        let prev = self.writer.prev();
        self.writer.append(rmgr as u8, info, xid, payload);
        let mut stream = WalStream::new(at, Verify::Crc).with_prev(prev);
        stream.feed(at, &self.writer.bytes()[self.taken..]).unwrap();
        self.taken = self.writer.bytes().len();
        self.puts.clear();
        let puts = &mut self.puts;
        let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| puts.push((key, lsn, encoded(&value)));
        match stream.next_record() {
            Ok(Next::Record(record)) => self.head.ingest(&record, &mut sink).map(|action| self.action = action),
            other => panic!("{other:?}"),
        }
    }

    fn data(&mut self, rmgr: Rmgr, info: u8, words: &[u32]) -> Result<(), IngestError> {
        self.take(rmgr, info, 0, &main_data_payload(&bytes(words)))
    }

    /// The values put under a key by the last record.
    fn values(&self, key: Key) -> Vec<Value<'_>> {
        self.puts.iter().filter(|put| put.0 == key).map(|put| Value::decode(&put.2).unwrap()).collect()
    }

    fn size(&self, fork: Fork) -> Option<u32> {
        self.head.relation_blocks(REL, fork)
    }

    fn next_xid(&self) -> u64 {
        self.head.control().unwrap().checkpoint_copy.next_xid.get()
    }
}

fn encoded(value: &Value<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A payload with references to blocks of `REL` and main data. Flags as in xlogrecord.h, without data or images.
fn blocks(references: &[(u8, u8, u32)], data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, flags, block) in references {
        payload.extend([*id, *flags, 0, 0]);
        payload.extend(bytes(&[REL.tablespace, REL.database, REL.relation, *block]));
    }
    payload.extend(main_data_payload(data));
    payload
}

const WILL_INIT: u8 = 0x40;
const VM: u8 = Fork::Vm as u8;

fn map_key(block: u32) -> Key {
    Key::page(REL, Fork::Vm, BlockNumber(block))
}

#[test]
fn unknown_records_stop_with_their_name() {
    let cases = [
        (Rmgr::Xlog, 0xC0),
        (Rmgr::Transaction, 0x70),
        (Rmgr::Storage, 0x30),
        (Rmgr::Clog, 0x20),
        (Rmgr::Database, 0x30),
        (Rmgr::Tablespace, 0x20),
        (Rmgr::MultiXact, 0x40),
        (Rmgr::RelMap, 0x10),
        (Rmgr::Standby, 0x30),
        (Rmgr::Btree, 0xF0),
        (Rmgr::Hash, 0xD0),
        (Rmgr::Gin, 0xA0),
        (Rmgr::Gist, 0x40),
        (Rmgr::Sequence, 0x10),
        (Rmgr::Spgist, 0x00),
        (Rmgr::Brin, 0x60),
        (Rmgr::CommitTs, 0x20),
        (Rmgr::ReplicationOrigin, 0x20),
        (Rmgr::Generic, 0x10),
        (Rmgr::LogicalMessage, 0x10),
    ];
    for (rmgr, info) in cases {
        let error = Feed::new(control()).data(rmgr, info, &[0; 8]).unwrap_err();
        assert_eq!(error, IngestError::UnknownRecord { lsn: START, rmgr: rmgr as u8, info });
        assert!(error.to_string().contains(rmgr.name()), "{error}");
    }
    // A resource manager of an extension.
    let mut feed = Feed::new(control());
    let mut writer = WalWriter::new(START, PREV, 0);
    writer.append(130, 0x20, 0, &[]);
    let mut stream = WalStream::new(START, Verify::Crc);
    stream.feed(START, writer.bytes()).unwrap();
    let Ok(Next::Record(record)) = stream.next_record() else { panic!("no record") };
    let error = feed.head.ingest(&record, &mut |_: Key, _: Lsn, _: Value<'_>| ()).unwrap_err();
    assert_eq!(error, IngestError::UnknownRecord { lsn: START, rmgr: 130, info: 0x20 });
}

#[test]
fn records_cut_short_are_errors_in_every_manager() {
    let short = [
        (Rmgr::Xlog, xlog::NEXTOID),
        (Rmgr::Xlog, xlog::CHECKPOINT_ONLINE),
        (Rmgr::Xlog, xlog::PARAMETER_CHANGE),
        (Rmgr::Transaction, xact::COMMIT),
        (Rmgr::Transaction, xact::PREPARE),
        (Rmgr::Storage, storage::CREATE),
        (Rmgr::Storage, storage::TRUNCATE),
        (Rmgr::Clog, clog::TRUNCATE),
        (Rmgr::Database, database::CREATE_FILE_COPY),
        (Rmgr::Database, database::DROP),
        (Rmgr::Tablespace, tablespace::CREATE),
        (Rmgr::MultiXact, multixact::CREATE_ID),
        (Rmgr::MultiXact, multixact::TRUNCATE_ID),
        (Rmgr::RelMap, relmap::UPDATE),
        (Rmgr::Standby, standby::RUNNING_XACTS),
        (Rmgr::CommitTs, commit_ts::TRUNCATE),
        (Rmgr::Heap, heap::INSERT),
    ];
    for (rmgr, info) in short {
        let payload = main_data_payload(&[1, 0, 0]);
        let error = Feed::new(control()).take(rmgr, info, 0, &payload).unwrap_err();
        assert!(matches!(error, IngestError::Malformed { .. }), "{error}");
    }
    let blockless = Feed::new(control()).take(Rmgr::Clog, clog::ZEROPAGE, 0, &blocks(&[(0, 0, 1)], &[0; 4]));
    assert!(matches!(blockless, Err(IngestError::Malformed { .. })));
    let commit_of_nobody = Feed::new(control()).data(Rmgr::Transaction, xact::COMMIT, &[0, 0]);
    assert!(matches!(commit_of_nobody, Err(IngestError::Malformed { .. })));
}

#[test]
fn records_out_of_order_and_blocks_beyond_the_end_are_errors() {
    let mut feed = Feed::new(control());
    feed.writer = WalWriter::new(START, PREV + 8, 0);
    let error = feed.data(Rmgr::Xlog, xlog::NOOP, &[]).unwrap_err();
    assert_eq!(error, IngestError::OutOfOrder { lsn: START, prev: PREV + 8, last: PREV });

    let delete = [0; 8];
    for (flags, block, size) in [(0, 10, Some(10)), (3, 0, None)] {
        let error = Feed::new(control()).take(Rmgr::Heap, heap::DELETE, 700, &blocks(&[(0, flags, block)], &delete));
        let fork = Fork::from_number(flags).unwrap();
        let expected = IngestError::BlockBeyondRelation { lsn: START, rel: REL, fork, block, blocks: size };
        assert_eq!(error.unwrap_err(), expected);
    }
    let map = Feed::new(control()).take(Rmgr::Heap, heap::DELETE, 700, &blocks(&[(0, VM, 0)], &delete));
    assert!(matches!(map, Err(IngestError::Malformed { .. })));
}

#[test]
fn a_base_backup_may_lack_pages_until_its_end() {
    let mut feed = Feed::new(control());
    let delete = blocks(&[(0, 0, 12)], &[0; 8]);
    // Where the second of three such records ends.
    let second = START + 2 * (0x18 + delete.len() as u64).next_multiple_of(8);
    feed.head.set_consistent_from(second);
    feed.take(Rmgr::Heap, heap::DELETE, 700, &delete).unwrap();
    assert_eq!(feed.head.relation_blocks(REL, Fork::Main), Some(13));
    feed.data(Rmgr::Storage, storage::TRUNCATE, &[10, 1663, 5, 16384, storage::TRUNCATE_HEAP]).unwrap();
    assert_eq!(feed.head.relation_blocks(REL, Fork::Main), Some(10));
    assert!(feed.head.last_record_lsn() <= second, "the test is about what comes before the end");
    feed.data(Rmgr::Xlog, xlog::NOOP, &[]).unwrap();
    let error = feed.take(Rmgr::Heap, heap::DELETE, 700, &delete).unwrap_err();
    assert!(matches!(error, IngestError::BlockBeyondRelation { block: 12, blocks: Some(10), .. }));
}

#[test]
fn a_page_that_is_initialised_extends_its_fork() {
    let mut feed = Feed::new(control());
    let record = blocks(&[(0, WILL_INIT, 12), (1, 0, 3)], &[1, 0, 0]);
    feed.take(Rmgr::Heap, heap::INSERT | heap::INIT_PAGE, 705, &record).unwrap();
    assert_eq!(feed.action, IngestAction::None);
    assert_eq!((feed.size(Fork::Main), feed.next_xid()), (Some(13), 706));
    assert_eq!(feed.head.logical_size(), 13 * 8192);
    let first = feed.values(Key::page(REL, Fork::Main, BlockNumber(12)));
    assert!(matches!(first[..], [Value::Record { initialises: true, .. }]));
    let second = feed.values(Key::page(REL, Fork::Main, BlockNumber(3)));
    assert!(matches!(second[..], [Value::Record { initialises: false, .. }]));
    assert_eq!(feed.puts.len(), 3);
    assert!(feed.puts.iter().all(|put| put.1 == feed.head.last_record_lsn()));
}

#[test]
fn heap_records_clear_the_bits_their_flags_name() {
    let clears = |operation: (Rmgr, u8), references: &[(u8, u8, u32)], data: &[u8]| {
        let mut feed = Feed::new(control());
        feed.take(operation.0, operation.1, 700, &blocks(references, data)).unwrap();
        let clears: Vec<(u32, u8)> = feed
            .values(map_key(0))
            .iter()
            .map(|value| match value {
                Value::VmClear { heap_block, flags } => (*heap_block, *flags),
                other => panic!("{other:?}"),
            })
            .collect();
        clears
    };
    let one = [(0, 0, 4)];
    let two = [(0, 0, 4), (1, 0, 5)];
    let flagged = |flags| [0, 0, 0, 0, 1, 0, 0, flags, 0, 0, 0, 0, 1, 0];
    assert_eq!(clears((Rmgr::Heap, heap::INSERT), &one, &[1, 0, 1]), [(4, 3)]);
    assert_eq!(clears((Rmgr::Heap, heap::INSERT), &one, &[1, 0, 0xFE]), []);
    assert_eq!(clears((Rmgr::Heap, heap::DELETE), &one, &flagged(1)), [(4, 3)]);
    assert_eq!(clears((Rmgr::Heap, heap::UPDATE), &two, &flagged(3)), [(5, 3), (4, 3)]);
    assert_eq!(clears((Rmgr::Heap, heap::UPDATE), &two, &flagged(2)), [(4, 3)]);
    assert_eq!(clears((Rmgr::Heap, heap::HOT_UPDATE), &one, &flagged(1)), [(4, 3)]);
    assert_eq!(clears((Rmgr::Heap, heap::LOCK), &one, &flagged(1)), [(4, 2)]);
    assert_eq!(clears((Rmgr::Heap2, heap::HEAP2_LOCK_UPDATED), &one, &flagged(1)), [(4, 2)]);
    assert_eq!(clears((Rmgr::Heap2, heap::HEAP2_MULTI_INSERT), &one, &[1, 0, 0, 0]), [(4, 3)]);
    for quiet in [heap::CONFIRM, heap::INPLACE] {
        assert_eq!(clears((Rmgr::Heap, quiet), &one, &[0xFF; 14]), []);
    }
    for quiet in [heap::HEAP2_PRUNE, heap::HEAP2_VACUUM, heap::HEAP2_FREEZE_PAGE] {
        assert_eq!(clears((Rmgr::Heap2, quiet), &one, &[0xFF; 14]), []);
    }
}

#[test]
fn setting_map_bits_touches_the_map_and_the_heap() {
    let mut feed = Feed::new(control());
    let visible = |map: u32, heap_block: u32| blocks(&[(0, VM, map), (1, 0, heap_block)], &[0, 0, 0, 0, 3]);
    feed.take(Rmgr::Heap2, heap::HEAP2_VISIBLE, 0, &visible(0, 9)).unwrap();
    assert_eq!(feed.values(map_key(0)), [Value::VmSet { heap_block: 9, flags: 3 }]);
    assert_eq!(feed.values(Key::page(REL, Fork::Main, BlockNumber(9))).len(), 1);
    assert_eq!(feed.size(Fork::Vm), Some(1));
    assert!(feed.take(Rmgr::Heap2, heap::HEAP2_VISIBLE, 0, &visible(1, 9)).is_err());
}

#[test]
fn truncation_cuts_the_map_in_the_middle_of_a_page() {
    let mut feed = Feed::new(control());
    let size = |rel: RelTag, fork, blocks| Item::RelSize { rel, fork, blocks };
    for (fork, blocks) in [(Fork::Main, 70_000), (Fork::Vm, 3), (Fork::Fsm, 20)] {
        feed.head.import(&size(REL, fork, blocks), START, &mut |_: Key, _: Lsn, _: Value<'_>| ()).unwrap();
    }
    let truncate = |blocks| [blocks, REL.tablespace, REL.database, REL.relation, 7];
    feed.data(Rmgr::Storage, storage::TRUNCATE, &truncate(32_672)).unwrap();
    assert_eq!((feed.size(Fork::Main), feed.size(Fork::Vm), feed.size(Fork::Fsm)), (Some(32_672), Some(1), Some(11)));
    assert_eq!(feed.values(map_key(1)), []);
    feed.data(Rmgr::Storage, storage::TRUNCATE, &truncate(32_000)).unwrap();
    assert_eq!(feed.values(map_key(0)), [Value::VmTruncate { heap_blocks: 32_000 }]);
    assert_eq!(feed.size(Fork::Vm), Some(1));
    assert!(matches!(feed.values(Key::rel_cuts(REL, Fork::Main))[..], [Value::Blob(_)]));
    // Longer than it is: nothing happens.
    feed.data(Rmgr::Storage, storage::TRUNCATE, &truncate(33_000)).unwrap();
    assert_eq!((feed.size(Fork::Main), feed.puts.len()), (Some(32_000), 0));
}

#[test]
fn an_image_for_a_hint_may_be_missing_but_no_other() {
    let mut feed = Feed::new(control());
    let record = blocks(&[(0, 0, 4)], &[]);
    feed.take(Rmgr::Xlog, xlog::FPI_FOR_HINT, 0, &record).unwrap();
    assert_eq!(feed.puts, []);
    assert!(matches!(feed.take(Rmgr::Xlog, xlog::FPI, 0, &record), Err(IngestError::Malformed { .. })));
}

#[test]
fn clog_and_commit_ts_lose_whole_segments() {
    let mut start = control();
    start.checkpoint_copy.next_xid = U64::new(70 * 32768);
    start.checkpoint_copy.oldest_xid = U32::new(3);
    let mut feed = Feed::new(start);
    for page in [0, 31, 32, 69] {
        feed.data(Rmgr::Clog, clog::ZEROPAGE, &[page]).unwrap();
        feed.data(Rmgr::CommitTs, commit_ts::ZEROPAGE, &[page]).unwrap();
        assert_eq!(feed.values(Key::slru(SlruKind::CommitTs, page)), [Value::ZeroPage]);
    }
    // Beyond the newest page nothing is removed: numbers have apparently wrapped.
    feed.data(Rmgr::Clog, clog::TRUNCATE, &[72, 5, 1]).unwrap();
    assert_eq!(feed.head.slru_pages(SlruKind::Clog).len(), 4);
    feed.data(Rmgr::Clog, clog::TRUNCATE, &[33, 33 * 32768, 1]).unwrap();
    assert_eq!(feed.values(Key::slru(SlruKind::Clog, 31)), [Value::Tombstone]);
    assert!(feed.head.slru_pages(SlruKind::Clog).iter().eq(&[32, 69]));
    let checkpoint = feed.head.control().unwrap().checkpoint_copy;
    assert_eq!((checkpoint.oldest_xid.get(), checkpoint.oldest_xid_database.get()), (33 * 32768, 1));
    feed.data(Rmgr::CommitTs, commit_ts::TRUNCATE, &[40, 40 * 819]).unwrap();
    assert!(feed.head.slru_pages(SlruKind::CommitTs).iter().eq(&[32, 69]));
}

#[test]
fn a_commit_spreads_over_the_pages_its_transactions_lie_on() {
    let mut start = control();
    start.track_commit_timestamp = 1;
    start.checkpoint_copy.next_xid = U64::new(32766);
    let mut feed = Feed::new(start);
    // xinfo: subtransactions.
    let mut data = 77i64.to_le_bytes().to_vec();
    data.extend(bytes(&[2, 2, 32767, 32768]));
    feed.take(Rmgr::Transaction, xact::COMMIT | xact::HAS_INFO, 32766, &main_data_payload(&data)).unwrap();
    let page = |slru, page| feed.values(Key::slru(slru, page)).into_iter().last().unwrap();
    assert_eq!(page(SlruKind::Clog, 0), Value::Clog { status: 1, xids: vec![32766, 32767].into() });
    assert_eq!(page(SlruKind::Clog, 1), Value::Clog { status: 1, xids: vec![32768].into() });
    let commit_ts = Value::CommitTs { time: 77, origin: 0, xids: vec![32766, 32767, 32768].into() };
    assert_eq!(page(SlruKind::CommitTs, 40), commit_ts);
    assert_eq!(feed.next_xid(), 32769);
    assert_eq!(feed.head.control().unwrap().checkpoint_copy.newest_commit_ts_xid.get(), 32768);
}

#[test]
fn transaction_numbers_go_through_the_epoch() {
    let mut start = control();
    start.checkpoint_copy.next_xid = U64::new(0x1_FFFF_FFFE);
    let mut feed = Feed::new(start);
    let commit = main_data_payload(&0i64.to_le_bytes());
    feed.take(Rmgr::Transaction, xact::COMMIT, u32::MAX, &commit).unwrap();
    assert_eq!(feed.next_xid(), 0x2_0000_0003);
    assert_eq!(feed.values(Key::slru(SlruKind::Clog, 131_071)).len(), 2);
    feed.take(Rmgr::Transaction, xact::ABORT, 3, &commit).unwrap();
    assert_eq!(feed.next_xid(), 0x2_0000_0004);
    assert_eq!(feed.values(Key::slru(SlruKind::Clog, 0)).last(), Some(&Value::Clog { status: 2, xids: vec![3].into() }));
}

#[test]
fn multixacts_wrap_in_both_of_their_numbers() {
    let mut start = control();
    start.checkpoint_copy.next_multi = U32::new(u32::MAX);
    start.checkpoint_copy.next_multi_offset = U32::new(u32::MAX);
    let mut feed = Feed::new(start);
    feed.data(Rmgr::MultiXact, multixact::CREATE_ID, &[u32::MAX, u32::MAX, 2, 700, 1, 701, 5]).unwrap();
    let offsets = |page| feed.values(Key::slru(SlruKind::MultiOffsets, page));
    assert_eq!(offsets(u32::MAX / 2048)[1..], [Value::MultiOffset { multi: u32::MAX, offset: u32::MAX }]);
    assert_eq!(offsets(0), [Value::ZeroPage, Value::MultiOffset { multi: 1, offset: 1 }]);
    let members = |page| feed.values(Key::slru(SlruKind::MultiMembers, page)).into_iter().last();
    assert_eq!(members(u32::MAX / 1636), Some(Value::MultiMembers { first: u32::MAX, members: vec![(700, 1)].into() }));
    assert_eq!(members(0), Some(Value::MultiMembers { first: 0, members: vec![(701, 5)].into() }));
    let checkpoint = feed.head.control().unwrap().checkpoint_copy;
    assert_eq!((checkpoint.next_multi.get(), checkpoint.next_multi_offset.get()), (0, 1));
    assert_eq!(feed.next_xid(), 702);

    // The page begun for the next multixact is not zeroed a second time.
    feed.data(Rmgr::MultiXact, multixact::ZERO_OFF_PAGE, &[0]).unwrap();
    assert_eq!(feed.puts, []);
    feed.data(Rmgr::MultiXact, multixact::ZERO_OFF_PAGE, &[0]).unwrap();
    assert_eq!(feed.puts.len(), 1);
    assert!(feed.data(Rmgr::MultiXact, multixact::CREATE_ID, &[2, 2, 1, 700, 6]).is_err());
    assert!(feed.data(Rmgr::MultiXact, multixact::CREATE_ID, &[2, 2, u32::MAX, 700, 6]).is_err());
}

#[test]
fn multixact_truncation_removes_segments_of_both_kinds() {
    let mut start = control();
    start.checkpoint_copy.next_multi = U32::new(100 * 2048);
    let mut feed = Feed::new(start);
    for page in [0, 31, 32, 63, 64] {
        feed.data(Rmgr::MultiXact, multixact::ZERO_OFF_PAGE, &[page]).unwrap();
        feed.data(Rmgr::MultiXact, multixact::ZERO_MEM_PAGE, &[page]).unwrap();
    }
    let truncate = [5, 1, 65 * 2048, 1, 33 * 1636];
    feed.data(Rmgr::MultiXact, multixact::TRUNCATE_ID, &truncate).unwrap();
    assert!(feed.head.slru_pages(SlruKind::MultiOffsets).iter().eq(&[64]));
    assert!(feed.head.slru_pages(SlruKind::MultiMembers).iter().eq(&[32, 63, 64]));
    let checkpoint = feed.head.control().unwrap().checkpoint_copy;
    assert_eq!((checkpoint.oldest_multi.get(), checkpoint.oldest_multi_database.get()), (65 * 2048, 5));
}

#[test]
fn a_database_copied_by_files_has_sizes_at_once_and_names_what_is_to_be_copied() {
    let mut feed = Feed::new(control());
    let map = [7; 512];
    let mut drop = |_: Key, _: Lsn, _: Value<'_>| ();
    feed.head.import(&Item::Database { tablespace: 1663, database: 5, version: b"15\n" }, START, &mut drop).unwrap();
    feed.head.import(&Item::RelMap { tablespace: 1663, database: 5, map: &map }, START, &mut drop).unwrap();
    feed.data(Rmgr::Database, database::CREATE_FILE_COPY, &[6, 20000, 5, 1663]).unwrap();
    let IngestAction::CopyDatabase(copy) = feed.action.clone() else { panic!("no copy") };
    let target = RelTag { tablespace: 20000, database: 6, ..REL };
    assert_eq!(copy.forks, [(REL, target, Fork::Main, 10)]);
    assert_eq!(copy.rel_map, Some((Key::rel_map(1663, 5), Key::rel_map(20000, 6))));
    assert_eq!(feed.head.relation_blocks(target, Fork::Main), Some(10));
    assert_eq!(feed.values(Key::database(20000, 6)).len(), 1);

    feed.data(Rmgr::Database, database::DROP, &[5, 1, 1663]).unwrap();
    assert_eq!(feed.values(Key::rel_size(REL, Fork::Main)), [Value::Tombstone]);
    assert_eq!(feed.values(Key::rel_map(1663, 5)), [Value::Tombstone]);
    assert_eq!(feed.values(Key::database(1663, 5)), [Value::Tombstone]);
    feed.data(Rmgr::Tablespace, tablespace::DROP, &[20000]).unwrap();
    assert_eq!(feed.head.logical_size(), 0);
}

#[test]
fn commit_times_begin_and_end_with_their_setting() {
    let mut feed = Feed::new(control());
    let change = |track: u32| [100, 8, 10, 0, 64, 1, track << 8];
    feed.data(Rmgr::Xlog, xlog::PARAMETER_CHANGE, &change(1)).unwrap();
    assert!(feed.head.slru_pages(SlruKind::CommitTs).iter().eq(&[0]));
    assert_eq!(feed.head.control().unwrap().checkpoint_copy.oldest_commit_ts_xid.get(), 700);
    assert_eq!(feed.head.control().unwrap().max_connections.get(), 100);
    feed.data(Rmgr::Xlog, xlog::PARAMETER_CHANGE, &change(0)).unwrap();
    assert_eq!(feed.values(Key::slru(SlruKind::CommitTs, 0)), [Value::Tombstone]);
    assert_eq!(feed.head.control().unwrap().checkpoint_copy.newest_commit_ts_xid.get(), 0);
}

#[test]
fn another_postgres_timeline_is_refused() {
    let mut feed = Feed::new(control());
    let error = feed.data(Rmgr::Xlog, xlog::END_OF_RECOVERY, &[0, 0, 2, 1]).unwrap_err();
    assert_eq!(error, IngestError::Timeline { lsn: START, timeline: 2 });
    let mut checkpoint = control().checkpoint_copy;
    checkpoint.timeline = U32::new(3);
    let payload = main_data_payload(&checkpoint.to_bytes());
    let error = Feed::new(control()).take(Rmgr::Xlog, xlog::CHECKPOINT_SHUTDOWN, 0, &payload).unwrap_err();
    assert_eq!(error, IngestError::Timeline { lsn: START, timeline: 3 });
}

#[test]
fn imports_and_stored_state_are_checked() {
    let mut head = Head::new(START, PREV);
    let mut sink = |_: Key, _: Lsn, _: Value<'_>| ();
    let mut running = control();
    running.state = I32::new(state::IN_PRODUCTION);
    assert!(matches!(head.import(&Item::Control(&running.to_bytes()), START, &mut sink), Err(IngestError::Import { .. })));
    let page = [0; 8192];
    let beyond = Item::RelPages { rel: REL, fork: Fork::Main, block: BlockNumber(0), pages: &page };
    assert!(matches!(head.import(&beyond, START, &mut sink), Err(IngestError::Import { .. })));
    let wrong = Item::Database { tablespace: 1663, database: 5, version: b"16\n" };
    assert!(matches!(head.import(&wrong, START, &mut sink), Err(IngestError::Import { .. })));
    assert_eq!(head.control(), Err(IngestError::NoControl));

    let none: [(Key, Vec<u8>); 0] = [];
    assert_eq!(Head::load(START, PREV, none), Err(IngestError::NoControl));
    for (key, value) in [
        (Key::rel_size(REL, Fork::Main), Value::Blob(b"123".as_slice().into())),
        (Key::rel_cuts(REL, Fork::Main), Value::Blob(b"123".as_slice().into())),
        (Key::control(), Value::Blob(b"123".as_slice().into())),
        (Key::rel_map(1, 2), Value::ZeroPage),
        (Key::MIN, Value::Blob(b"".as_slice().into())),
    ] {
        assert!(Head::load(START, PREV, [(key, encoded(&value))]).is_err(), "{key}");
    }
}

/// The history puts of a feed's last record, decoded.
fn history_of(feed: &Feed) -> Vec<(Key, Lsn, History)> {
    let of_history = feed.puts.iter().filter(|(key, ..)| key.kind == ironpage_layout::KeyKind::History);
    of_history
        .map(|(key, lsn, bytes)| match Value::decode(bytes) {
            Ok(Value::Blob(blob)) => (*key, *lsn, History::decode(&blob).unwrap()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn commits_and_the_first_records_of_buckets_leave_marks() {
    let mut feed = Feed::new(control());
    let mut puts = Vec::new();
    let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| puts.push((key, lsn, encoded(&value)));
    feed.head.finish_import(&mut sink).unwrap();
    assert_eq!(
        puts.iter().map(|put| (put.0, put.1)).collect::<Vec<_>>(),
        [(Key::control(), START), (Key::history(bucket_of(START)), START)]
    );
    let first = *feed.head.history();
    assert_eq!((first.commit_time, first.commit_time_max), (NO_COMMIT, (1 - 946_684_800) * 1_000_000));

    // Two commits, of which the second says an earlier time.
    let commit = |time: i64| main_data_payload(&time.to_le_bytes());
    let mut before = START;
    for (time, max) in [(1_000, 1_000), (900, 1_000)] {
        feed.take(Rmgr::Transaction, xact::COMMIT, 701, &commit(time)).unwrap();
        let (end, start) = (feed.head.last_record_lsn(), feed.head.prev_record_lsn());
        let expected = History { commit_time: time, commit_time_max: max, before, prev_record_lsn: start };
        assert_eq!(history_of(&feed), [(Key::history(bucket_of(end)), end, expected)]);
        before = end;
    }
    // An abort, and what is no end of a transaction, leave none.
    feed.take(Rmgr::Transaction, xact::ABORT, 702, &commit(2_000)).unwrap();
    assert_eq!(history_of(&feed), []);
    // A record over three buckets: those it passes over have the history from before it, its own has it and pg_control.
    let (known, last) = (*feed.head.history(), feed.head.last_record_lsn());
    feed.data(Rmgr::Xlog, xlog::NOOP, &vec![0; (3 << BUCKET_BITS) / 4]).unwrap();
    let end = feed.head.last_record_lsn();
    let (from, to) = (bucket_of(last), bucket_of(end));
    assert_eq!(to, from + 3);
    let marks = history_of(&feed);
    let passed: Vec<_> = (from + 1..to).map(|bucket| (Key::history(bucket), bucket_start(bucket), known)).collect();
    assert_eq!(marks[..2], passed);
    let here = History { before: last, prev_record_lsn: feed.head.prev_record_lsn(), ..known };
    assert_eq!(marks[2..], [(Key::history(to), end, here)]);
    assert!(feed.puts.iter().any(|(key, lsn, _)| (*key, *lsn) == (Key::control(), end)));
}

#[test]
fn noise_never_panics() {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut noise = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut feed = Feed::new(control());
    for round in 0..60_000u32 {
        let rmgr = Rmgr::ALL[noise() as usize % Rmgr::ALL.len()];
        let mut data: Vec<u8> = (0..noise() % 96).map(|_| noise() as u8).collect();
        // Numbers that are small, or huge, come further than others.
        for word in data.chunks_exact_mut(4) {
            match noise() % 4 {
                0 => word.copy_from_slice(&(noise() as u32 % 8).to_le_bytes()),
                1 => word.copy_from_slice(&(u32::MAX - noise() as u32 % 4).to_le_bytes()),
                _ => {}
            }
        }
        let block = [0, 3, 9, u32::MAX - 1][noise() as usize % 4];
        let references = [(0, [0, VM, WILL_INIT, 1][noise() as usize % 4], block), (1, 0, 5)];
        let payload = blocks(&references[..noise() as usize % 3], &data);
        if feed.take(rmgr, noise() as u8 & 0xF0, noise() as u32, &payload).is_err() || round % 500 == 0 {
            feed = Feed::new(control());
        }
    }
}
