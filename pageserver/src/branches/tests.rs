//! Branches on disks that fail.

use super::*;
use crate::metadata::TenantState;
use crate::store::{StoreConfig, TimelineRecord};
use crate::timeline::At;
use crate::worker::{Program, WorkerConfig};
use ironpage_io::driver::simulator::{Disk, Faults, Simulator};
use ironpage_io::run_on;
use ironpage_layout::Lsn;
use ironpage_layout::postgres::control::{CATALOG_VERSION, CONTROL_VERSION, ControlFile, state};
use ironpage_layout::wire::admin::{KIND_BRANCH, TimelineCreate};
use ironpage_layout::wire::basebackup::Item;
use zerocopy::FromZeros;
use zerocopy::little_endian::{I32, U32};

const TENANT: TenantId = TenantId([1; 16]);
const ROOT: TimelineId = TimelineId([2; 16]);
const START: Lsn = Lsn(0x1000100);
const PREV: Lsn = Lsn(0x1000028);

fn simulate<F: Future>(seed: u64, disk: &Disk, faults: Faults, main: impl FnOnce() -> F) -> F::Output {
    run_on(Box::new(Simulator::new(seed, disk.clone(), faults)), main).unwrap()
}

async fn open() -> Result<Branches, BranchError> {
    ironpage_io::fs::create_dir_all("/data").await.map_err(MetadataError::from)?;
    let config = TimelinesConfig { dir: PathBuf::from("/data"), store: StoreConfig::default() };
    // Nothing here needs redo.
    let program = Program { postgres: PathBuf::from("/no/postgres"), library: PathBuf::from("/no/redo.so") };
    Branches::open(config, Worker::new(WorkerConfig::new(program)), Vec::new()).await
}

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
    control
}

/// A root named `main` without any relations.
async fn import(branches: &Branches) {
    let request = TimelineCreate {
        tenant: TENANT,
        timeline: ROOT,
        system_id: 7,
        postgres_version: 150_018,
        start_lsn: START,
        prev_record_lsn: PREV,
        readable_lsn: START,
        kind: KIND_BRANCH,
        prefix_length: 0,
        name: "main".into(),
    };
    branches.create_tenant("main", Some(TENANT)).await.unwrap();
    let Admission::Begin(branch) = branches.admit_import(&request).await.unwrap() else { panic!("it is new") };
    let record = TimelineRecord {
        tenant: TENANT,
        timeline: ROOT,
        name: "main".into(),
        system_id: 7,
        postgres_version: 150_018,
        start_lsn: START,
        prev_record_lsn: PREV,
        readable_lsn: START,
        ancestor: None,
    };
    let mut import = branches.timelines().import(record).await.unwrap().unwrap();
    import.item(&Item::Control(&control().to_bytes())).await.unwrap();
    let timeline = import.finish(1, START).await.unwrap();
    branches.finish_import(*branch, timeline, START).await.unwrap();
}

fn request(name: &str) -> CreateBranch {
    CreateBranch { name: name.into(), from: "main".into(), at: At::Head, expiry: Expiry(None), kind: BranchKind::Branch }
}

/// Whatever write or flush fails while branches are made, reset and restored, the next start has each of them whole, old or
/// new: a change that may have reached the journal is not taken back behind its back.
#[test]
fn what_the_journal_may_have_on_disk_is_not_removed() {
    let (mut done, mut poisoned, mut kept) = (0, 0, 0);
    for seed in 0..300 {
        let disk = Disk::new();
        simulate(seed, &disk, Faults::default(), || async {
            let branches = open().await.unwrap();
            import(&branches).await;
            branches.create("main", request("old")).await.unwrap();
            assert_eq!(branches.state().tenants().next().unwrap().state, TenantState::Active);
        });
        let faults = Faults { failed_writes: 10, failed_syncs: 20, short_transfers: 100, interrupted: 50, ..Faults::default() };
        let (made, failed) = simulate(seed, &disk, faults, || async move {
            // It may not even start.
            let Ok(branches) = open().await else { return (Vec::new(), false) };
            let mut made = Vec::new();
            for name in ["a", "b", "c"] {
                if branches.create("main", request(name)).await.is_ok() {
                    made.push(name);
                }
            }
            let _ = branches.restore("main", "old", At::Lsn(START)).await;
            let _ = branches.reset("main", "old", Children::Refuse).await;
            (made, branches.failure().is_some())
        });
        if seed % 2 == 0 {
            disk.crash(seed);
        }
        let there = simulate(seed, &disk, Faults::default(), || async move {
            let branches = open().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for branch in branches.state().branches().filter(|branch| branch.state == BranchState::Active) {
                branches.timeline(branch).unwrap().load_head().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            branches.branch("main", "old").unwrap();
            ["a", "b", "c"].into_iter().filter(|name| branches.branch("main", name).is_ok()).collect::<Vec<_>>()
        });
        assert!(made.iter().all(|name| there.contains(name)), "seed {seed}: {made:?} were made, {there:?} are there");
        done += made.len();
        poisoned += usize::from(failed);
        kept += there.len() - made.len();
    }
    assert!(done > 100 && poisoned > 50 && kept > 0, "{done} {poisoned} {kept}");
}
