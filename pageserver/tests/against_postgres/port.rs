//! The port as computes and the command line see it, with safekeepers that the test steers.

use crate::client::{Client, Reply, TENANT, TIMELINE, hello, newest, pages};
use crate::safekeeper::Safekeeper;
use crate::scratch::{Scratch, worker};
use crate::wal::Wal;
use crate::workload;
use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::FrameError;
use ironpage_io::net::{Listener, Stream};
use ironpage_io::time::timeout;
use ironpage_layout::postgres::rmgr::Rmgr;
use ironpage_layout::postgres::wal::build::{WalWriter, main_data_payload};
use ironpage_layout::wire::admin::{ImportEnd, TimelineCreate};
use ironpage_layout::wire::basebackup::{ALL_PAGES, BaseBackupEnd, Item};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{ErrorCode, Kind};
use ironpage_layout::{BlockNumber, Fork, Lsn, NodeId, RelTag, TenantId, Term};
use ironpage_pageserver::branches::Branches;
use ironpage_pageserver::service::Service;
use ironpage_pageserver::store::StoreConfig;
use ironpage_pageserver::timeline::{Timelines, TimelinesConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// A pageserver on a port of its own.
struct Pageserver {
    address: Address,
    service: Service,
    serving: ironpage_io::JoinHandle<()>,
    timelines: Timelines,
}

impl Pageserver {
    async fn start(dir: &Path, safekeepers: &[Safekeeper]) -> Pageserver {
        std::fs::create_dir_all(dir).unwrap();
        let config = TimelinesConfig { dir: dir.to_path_buf(), store: StoreConfig::default() };
        let safekeepers = safekeepers.iter().map(|safekeeper| safekeeper.address.clone()).collect();
        let branches = Branches::open(config, worker(dir), safekeepers).await.unwrap();
        branches.create_tenant("tenant", Some(TENANT)).await.unwrap();
        branches.start();
        let timelines = branches.timelines().clone();
        let listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
        let address = listener.name().parse().unwrap();
        let service = Service::new(NodeId(7), branches);
        let serving = service.clone();
        let serving = ironpage_io::spawn(async move { serving.serve(listener).await });
        Pageserver { address, service, serving, timelines }
    }

    fn stop(&self) {
        self.serving.abort();
        self.timelines.worker().stop();
    }

    fn counter(&self, name: &str) -> u64 {
        let status = self.service.status();
        status.counters.iter().find(|counter| counter.0 == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

pub fn create(wal: &Wal, name: &str) -> TimelineCreate {
    TimelineCreate {
        tenant: TENANT,
        timeline: TIMELINE,
        start_lsn: wal.start,
        prev_record_lsn: wal.prev,
        system_id: wal.system_id,
        postgres_version: 150_020,
        name: name.into(),
        readable_lsn: Lsn::INVALID,
        kind: 0,
        prefix_length: 0,
    }
}

/// Sends a whole import, but with `lost` items missing.
pub async fn import(admin: &mut Client, scratch: &Scratch, create: &TimelineCreate, lost: usize) -> Reply {
    admin.send(Kind::TimelineCreate, Term(0), |out| create.encode(out)).await;
    let items = scratch.initial.items();
    for item in items.iter().skip(lost) {
        admin.send(Kind::ImportItem, Term(0), |out| item.as_item().encode(out)).await;
    }
    admin
        .send(Kind::ImportEnd, Term(0), |out| {
            ImportEnd { items: (items.len() as u64).into(), readable_lsn: 0.into() }.encode(out)
        })
        .await;
    admin.receive().await
}

pub fn run(test: impl Future<Output = ()>) {
    ironpage_io::run(ironpage_io::Config::default(), || async { timeout(Duration::from_secs(120), test).await.unwrap() })
        .unwrap();
}

/// The relation of table `t`: the one of this many blocks that the workload made.
fn table(scratch: &Scratch) -> (RelTag, Vec<u8>) {
    let relations = scratch.primary.relations().into_iter().filter(|(rel, fork)| *fork == Fork::Main && rel.relation >= 16384);
    let sizes = relations.map(|(rel, fork)| (rel, scratch.primary.relation(rel, fork)));
    sizes.max_by_key(|(_, bytes)| bytes.len()).unwrap()
}

#[test]
fn a_timeline_lives_from_import_to_restart() {
    let scratch = Scratch::new("port", workload::little);
    let wal = Wal::of(&scratch);
    let dir = scratch.dir.join("pageserver");
    run(async {
        let bytes = Rc::new(wal.bytes.clone());
        // The first has no more than a half; the second has all.
        let half = wal.start + wal.bytes.len() as u64 / 2 / 8 * 8;
        let safekeepers = [Safekeeper::new(wal.start, bytes.clone(), half), Safekeeper::new(wal.start, bytes, wal.end)];
        safekeepers[0].term.set(Term(2));
        let pageserver = Pageserver::start(&dir, &safekeepers).await;

        imports(&pageserver, &scratch, &wal, &dir).await;
        let mut reader = Client::connect(&pageserver.address, Role::PageReader).await;
        let quarter = wal.start + wal.bytes.len() as u64 / 4;
        let (last, term) = reader.wait_for(Term(0), quarter).await;
        assert!(last >= quarter && term == Term(2), "the term comes with the WAL");
        let (last, _) = timeout(LONG, reader.wait_for(Term(2), wal.end)).await.unwrap();
        assert_eq!(last, wal.end, "the pageserver found the safekeeper that has more");

        requests(&mut reader, &pageserver, &scratch, &wal).await;
        base_backups(&pageserver, &wal).await;
        fencing(&mut reader, &pageserver, &scratch, &wal).await;
        pageserver.stop();

        // Nothing was flushed since the import: all of it comes again, from the one safekeeper that is left.
        safekeepers[0].close();
        let pageserver = Pageserver::start(&dir, &safekeepers).await;
        let mut reader = Client::connect(&pageserver.address, Role::PageReader).await;
        assert_eq!(reader.wait_for(Term(5), wal.end).await.0, wal.end);
        requests(&mut reader, &pageserver, &scratch, &wal).await;
        pageserver.stop();
    });
}

async fn imports(pageserver: &Pageserver, scratch: &Scratch, wal: &Wal, dir: &Path) {
    let timeline_dir = dir.join(TENANT.to_string()).join(TIMELINE.to_string());
    let nobody = Client::try_connect(&pageserver.address, &hello(Role::PageReader)).await;
    assert!(matches!(nobody, Err(FrameError::Remote { error, .. }) if error.code == ErrorCode::NotFound));

    // An import that loses an item, and one that is cut off, leave nothing.
    let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
    let reply = import(&mut admin, scratch, &create(wal, "main"), 1).await;
    assert!(reply.error().message.contains("items"), "{}", reply.error().message);
    let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
    admin.send(Kind::TimelineCreate, Term(0), |out| create(wal, "main").encode(out)).await;
    admin.send(Kind::ImportItem, Term(0), |out| scratch.initial.items()[0].as_item().encode(out)).await;
    drop(admin);

    // As soon as the pageserver has seen the end of that one, the name is free.
    let reply = loop {
        let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
        assert!(admin.status().await.timelines.is_empty());
        let reply = import(&mut admin, scratch, &create(wal, "main"), 0).await;
        if reply.kind != Kind::Error || reply.code() != ErrorCode::Unavailable {
            break reply;
        }
    };
    assert_eq!(reply.kind, Kind::TimelineCreated);
    assert!(timeline_dir.join("manifest").exists(), "it is durable when it is said to be");
    let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
    assert_eq!(import(&mut admin, scratch, &create(wal, "main"), 0).await.kind, Kind::TimelineCreated);
    let mut other = create(wal, "main");
    other.postgres_version = 160_001;
    assert_eq!(import(&mut admin, scratch, &other, 0).await.code(), ErrorCode::Exists);
    let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
    let mut other = create(wal, "main");
    (other.tenant, other.postgres_version) = (TenantId([9; 16]), 160_001);
    assert_eq!(import(&mut admin, scratch, &other, 0).await.code(), ErrorCode::NotFound, "the tenant comes first");
}

async fn requests(reader: &mut Client, pageserver: &Pageserver, scratch: &Scratch, wal: &Wal) {
    let term = reader.wait_for(Term(0), wal.start).await.1;
    let (rel, file) = table(scratch);
    let blocks = (file.len() / 8192) as u32;
    // Many at once, in any order.
    let mut expected = BTreeMap::new();
    for block in (0..blocks).step_by(5) {
        let request = newest(rel, block, 5.min(blocks - block), wal.end);
        expected.insert(reader.send(Kind::GetPages, term, |out| request.encode(out)).await, block);
    }
    while !expected.is_empty() {
        let reply = reader.receive().await;
        let block = expected.remove(&reply.id).expect("each request is answered once");
        let (pages, size) = pages(&reply);
        assert_eq!(size, blocks);
        for (page, theirs) in pages.chunks(8192).zip(file[block as usize * 8192..].chunks(8192)) {
            // pd_lsn; the rest may differ in hint bits from what the primary wrote.
            assert_eq!(page[..8], theirs[..8]);
        }
    }
    assert_eq!(pages(&reader.get(term, newest(rel, blocks, 2, wal.end)).await), (vec![0; 2 * 8192], blocks));
    let nothing = RelTag { relation: 999_999, ..rel };
    assert_eq!(pages(&reader.get(term, newest(nothing, 0, 1, wal.end)).await), (vec![0; 8192], 0));

    let mut at_start = newest(rel, 0, 1, Lsn(0));
    at_start.request_lsn = wal.start.0.into();
    assert_eq!(pages(&reader.get(term, at_start).await), (vec![0; 8192], 0), "the table was not there yet");
    let mut before = at_start;
    before.request_lsn = (wal.start.0 - 8).into();
    assert_eq!(reader.get(term, before).await.code(), ErrorCode::OutOfRange);

    let mut beyond = newest(rel, 0, 1, wal.end + 8);
    beyond.wait_ms_max = 20.into();
    assert_eq!(reader.get(term, beyond).await.code(), ErrorCode::Unavailable);
    for count in [0, 129, u32::MAX] {
        assert_eq!(reader.get(term, newest(rel, 0, count, wal.end)).await.code(), ErrorCode::Protocol);
    }
    let mut fork = newest(rel, 0, 1, wal.end);
    fork.fork = 4;
    assert_eq!(reader.get(term, fork).await.code(), ErrorCode::Protocol);
    assert!(pageserver.counter("getpages") > 8 && pageserver.counter("pages_served") > u64::from(blocks));

    let other_cluster = ironpage_layout::wire::hello::Hello { system_id: 1, ..hello(Role::PageReader) };
    let refused = Client::try_connect(&pageserver.address, &other_cluster).await;
    assert!(matches!(refused, Err(FrameError::Remote { error, .. }) if error.code == ErrorCode::Refused));
    let proposer = Client::try_connect(&pageserver.address, &hello(Role::Proposer)).await;
    assert!(matches!(proposer, Err(FrameError::Remote { error, .. }) if error.code == ErrorCode::Refused));
    let mut garbage = Stream::connect_tcp(pageserver.address.socket, LONG).await.unwrap();
    let _ = garbage.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10)).await;
    let mut answer = Vec::new();
    while matches!(garbage.read_into(&mut answer, 4096).await, Ok(1..)) {}
    assert!(answer.starts_with(b"IRPG") && String::from_utf8_lossy(&answer).contains("not an Ironpage frame"));
}

async fn base_backups(pageserver: &Pageserver, wal: &Wal) {
    let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
    let (_, reply) = admin.base_backup(Term(3), wal.end + 8, 20).await;
    assert_eq!(reply.code(), ErrorCode::Unavailable);
    let (_, reply) = admin.base_backup(Term(3), wal.start, 20).await;
    assert_eq!(reply.code(), ErrorCode::OutOfRange);
    assert!(reply.error().message.contains(&wal.end.to_string()));

    let (items, reply) = admin.base_backup(Term(3), wal.end, 20).await;
    assert_eq!((reply.kind, reply.term), (Kind::BaseBackupEnd, Term(3)));
    let end = BaseBackupEnd::decode(&reply.payload).unwrap();
    assert_eq!((end.lsn.get(), end.prev_record_lsn.get(), end.items.get()), (wal.end.0, wal.last_record.0, items.len() as u64));
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &items {
        let kind = match Item::decode(item).unwrap() {
            Item::Control(_) => "control",
            Item::Tablespace(_) => "tablespace",
            Item::Database { .. } => "database",
            Item::RelMap { .. } => "map",
            Item::RelSize { fork: Fork::Fsm, .. } => panic!("free space maps stay out"),
            Item::RelSize { .. } => "size",
            Item::RelPages { fork, .. } => {
                assert_eq!(fork, Fork::Init);
                "init"
            }
            Item::SlruPages { .. } => "slru",
            Item::TwoPhase { .. } => "prepared",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!((kinds["control"], kinds["database"], kinds["map"], kinds["prepared"]), (1, 3, 4, 1), "{kinds:?}");
    assert!(kinds["size"] > 500 && kinds["slru"] >= 2 && kinds["init"] >= 1, "{kinds:?}");
    whole_base_backup(pageserver, &mut admin, wal).await;
}

/// With all pages it holds each page of each fork but free space maps, once and in order.
async fn whole_base_backup(pageserver: &Pageserver, admin: &mut Client, wal: &Wal) {
    assert_eq!(admin.base_backup_with(2, Term(3), wal.end, 20).await.1.code(), ErrorCode::Protocol);
    let (items, reply) = admin.base_backup_with(ALL_PAGES, Term(3), wal.end, 20).await;
    assert_eq!(BaseBackupEnd::decode(&reply.payload).unwrap().items.get(), items.len() as u64);
    let (mut sizes, mut found) = (BTreeMap::new(), BTreeMap::<_, Vec<u8>>::new());
    for item in &items {
        match Item::decode(item).unwrap() {
            Item::RelSize { rel, fork, blocks } => _ = sizes.insert((rel, fork), blocks as usize * 8192),
            Item::RelPages { rel, fork, block, pages } => {
                let bytes = found.entry((rel, fork)).or_default();
                assert_eq!((bytes.len(), fork == Fork::Fsm), (block.0 as usize * 8192, false));
                bytes.extend_from_slice(pages);
            }
            _ => {}
        }
    }
    sizes.retain(|_, bytes| *bytes > 0);
    assert_eq!(found.iter().map(|(name, bytes)| (*name, bytes.len())).collect::<BTreeMap<_, _>>(), sizes);
    let timeline = pageserver.timelines.get(TENANT, TIMELINE).unwrap();
    for ((rel, fork), bytes) in found.iter().filter(|((rel, _), _)| rel.relation >= 16384) {
        let state = timeline.fork(*rel, *fork, wal.end).await.unwrap();
        for (block, page) in bytes.chunks(8192).enumerate() {
            assert!(timeline.page(&state, BlockNumber(block as u32)).await.unwrap()[..] == *page, "{rel} {fork:?} {block}");
        }
    }
}

async fn fencing(reader: &mut Client, pageserver: &Pageserver, scratch: &Scratch, wal: &Wal) {
    let (rel, _) = table(scratch);
    // Term 3 came with the base backup; the next primary asks for itself.
    let mut next = Client::connect(&pageserver.address, Role::PageReader).await;
    assert_eq!(next.get(Term(5), newest(rel, 0, 1, wal.end)).await.kind, Kind::Pages);
    let before = pageserver.counter("fenced");
    let reply = reader.get(Term(3), newest(rel, 0, 1, wal.end)).await;
    assert_eq!((reply.code(), reply.term), (ErrorCode::Fenced, Term(5)));
    assert_eq!(reader.wait_for(Term(3), wal.end).await.1, Term(5), "the old one learns of the new one");
    assert_eq!(pageserver.counter("fenced"), before + 1);
    // History is nobody's: a reader at an LSN needs no term, one of the newest state does.
    let mut at_lsn = newest(rel, 0, 1, wal.end);
    at_lsn.request_lsn = wal.end.0.into();
    assert_eq!(reader.get(Term(0), at_lsn).await.kind, Kind::Pages);
    assert_eq!(reader.get(Term(0), newest(rel, 0, 1, wal.end)).await.code(), ErrorCode::Fenced);
    assert_eq!(pageserver.counter("fenced"), before + 2);
    let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
    assert_eq!(admin.base_backup(Term(4), wal.end, 20).await.1.code(), ErrorCode::Fenced);
}

#[test]
fn a_record_nobody_knows_stops_its_timeline_and_says_so() {
    let scratch = Scratch::new("unknown", workload::little);
    let wal = Wal::of(&scratch);
    // A record of an extension's resource manager right behind the workload.
    let mut writer = WalWriter::new(wal.end, wal.last_record, wal.system_id);
    let (at, _) = writer.append(200, 0x30, 0, &main_data_payload(b"mystery"));
    let (_, end) = writer.append(Rmgr::Xlog as u8, 0x20, 0, &main_data_payload(b"noop"));
    let bytes = Rc::new([&wal.bytes[..], writer.bytes()].concat());
    run(async {
        let safekeeper = Safekeeper::new(wal.start, bytes, wal.end);
        let pageserver = Pageserver::start(&scratch.dir.join("pageserver"), std::slice::from_ref(&safekeeper)).await;
        let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
        assert_eq!(import(&mut admin, &scratch, &create(&wal, "main"), 0).await.kind, Kind::TimelineCreated);
        let mut reader = Client::connect(&pageserver.address, Role::PageReader).await;
        assert_eq!(reader.wait_for(Term(0), wal.end).await.0, wal.end);
        let (rel, file) = table(&scratch);
        // The request waits already when the record comes.
        let request = newest(rel, 0, 1, end);
        reader.send(Kind::GetPages, Term(0), |out| request.encode(out)).await;
        safekeeper.commit.set(end);
        let reply = reader.receive().await;
        assert_eq!(reply.code(), ErrorCode::UnknownRecord);
        let text = reply.error().message;
        assert!(text.contains("200") && text.contains("0x30") && text.contains(&at.to_string()), "{text}");
        let status = admin.status().await;
        assert_eq!((status.timelines[0].stopped.as_str(), status.timelines[0].last_record_lsn), (text.as_str(), wal.end));
        let (_, blocks) = pages(&reader.get(Term(0), newest(rel, 0, 1, wal.end)).await);
        assert_eq!(blocks as usize, file.len() / 8192, "what came before is served on");
        pageserver.stop();
    });
}

#[test]
fn wal_that_one_safekeeper_damaged_is_taken_from_another() {
    let scratch = Scratch::new("damaged", workload::little);
    let wal = Wal::of(&scratch);
    let mut damaged = wal.bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    run(async {
        let (bad, good) = (Rc::new(damaged), Rc::new(wal.bytes.clone()));
        let safekeepers = [Safekeeper::new(wal.start, bad.clone(), wal.end), Safekeeper::new(wal.start, good, wal.end)];
        let dir = scratch.dir.join("pageserver");
        let pageserver = Pageserver::start(&dir, &safekeepers).await;
        let mut admin = Client::connect(&pageserver.address, Role::Admin).await;
        assert_eq!(import(&mut admin, &scratch, &create(&wal, "main"), 0).await.kind, Kind::TimelineCreated);
        let mut reader = Client::connect(&pageserver.address, Role::PageReader).await;
        assert_eq!(reader.wait_for(Term(0), wal.end).await.0, wal.end);
        pageserver.stop();

        // With nobody who has it right, the timeline stops and names the place.
        let safekeepers = [Safekeeper::new(wal.start, bad.clone(), wal.end), Safekeeper::new(wal.start, bad, wal.end)];
        let pageserver = Pageserver::start(&dir, &safekeepers).await;
        let mut reader = Client::connect(&pageserver.address, Role::PageReader).await;
        let reply = reader.get(Term(0), newest(table(&scratch).0, 0, 1, wal.end)).await;
        assert_eq!(reply.code(), ErrorCode::Corrupt, "{}", reply.error().message);
        assert!(safekeepers.iter().all(|safekeeper| safekeeper.readers.get() > 0));
        pageserver.stop();
    });
}
