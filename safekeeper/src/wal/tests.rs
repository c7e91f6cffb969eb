//! The WAL on disk against a model, on the real ring.

use super::reader::Reader;
use super::segment;
use super::writer::Wal;
use crate::control::Properties;
use ironpage_io::driver::simulator::{Disk, Faults, Simulator};
use ironpage_io::{Config, run, run_on, spawn};
use ironpage_layout::postgres::wal::build::{WalWriter, main_data_payload};
use ironpage_layout::{Lsn, TenantId, TimelineId};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const START: Lsn = Lsn(0x00FF_C000);

fn properties() -> Properties {
    Properties {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        system_id: 5,
        start_lsn: START,
        prev_record_lsn: Lsn(0x00FF_B000),
        postgres_version: 150_000,
        name: "main".into(),
    }
}

struct Model {
    random: u64,
    /// What leaders wrote, record by record: where each ends, and its start.
    records: Vec<(Lsn, Lsn)>,
    bytes: Vec<u8>,
}

impl Model {
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % end
    }

    fn end(&self) -> Lsn {
        START + self.bytes.len() as u64
    }

    fn last(&self) -> (Lsn, Lsn) {
        self.records.last().copied().unwrap_or((START, properties().prev_record_lsn))
    }

    /// Adds some records.
    fn grow(&mut self) {
        let (end, prev) = self.last();
        let mut writer = WalWriter::new(end, prev, 5);
        for _ in 0..self.below(20) + 1 {
            let size = if self.below(4) == 0 { self.below(400_000) } else { self.below(300) } as usize;
            let filler = self.below(255) as u8;
            let (start, end) = writer.append(0, 0x20, 0, &main_data_payload(&vec![filler; size]));
            self.records.push((end, start));
        }
        self.bytes.extend_from_slice(writer.bytes());
    }

    fn cut(&mut self, records: usize) -> Lsn {
        self.records.truncate(records);
        let end = self.last().0;
        self.bytes.truncate(end.since(START) as usize);
        end
    }
}

#[test]
fn takes_flushes_cuts_and_restarts_keep_what_they_should() {
    for seed in [1, 2] {
        let dir = std::env::temp_dir().join(format!("ironpage-wal-{}-{seed}", std::process::id()));
        run(Config::default(), || model(dir.clone(), seed)).unwrap();
        run(Config::default(), || async { ironpage_io::fs::remove_dir_all(&dir).await.unwrap() }).unwrap();
    }
}

async fn model(dir: PathBuf, seed: u64) {
    let mut model = Model { random: seed, records: Vec::new(), bytes: Vec::new() };
    ironpage_io::fs::create_dir_all(&dir).await.unwrap();
    Wal::create(&dir, START, &[]).await.unwrap();
    let mut wal = Rc::new(Wal::load(&dir, &properties(), START).await.unwrap());
    for _ in 0..80 {
        match model.below(10) {
            0 => {
                // A restart, from any record end that may be known as committed.
                let known = model.below(model.records.len() as u64 + 1) as usize;
                let commit = if known == 0 { START } else { model.records[known - 1].0 };
                wal.flush().await.unwrap();
                assert_eq!(wal.durable(), model.end());
                while wal.is_preparing() {
                    ironpage_io::yield_now().await;
                }
                wal = Rc::new(Wal::load(&dir, &properties(), commit).await.unwrap());
                assert_eq!((wal.durable(), wal.record_end()), (model.end(), model.end()));
            }
            1 => {
                wal.flush().await.unwrap();
                let keep = model.records.len() - model.below(model.records.len() as u64 + 1).min(30) as usize;
                let to = model.cut(keep);
                wal.truncate(to).await.unwrap();
                for number in segment::list(&dir).await.unwrap().into_iter().filter(|number| *number >= to.segment()) {
                    let from = to.max(Lsn(number << 24));
                    let rest = Reader::new(&dir).read(from, 1 << 24).await.unwrap();
                    assert!(rest.iter().all(|byte| *byte == 0), "seed {seed}: something is left behind {to}");
                }
            }
            _ => {
                // Pieces of any size, more of them while a flush is under way.
                let from = model.end();
                model.grow();
                let new = model.bytes[from.since(START) as usize..].to_vec();
                let (first, second) = new.split_at(model.below(new.len() as u64 + 1) as usize);
                take(&wal, first);
                let flushing = spawn({
                    let wal = wal.clone();
                    async move { wal.flush().await.unwrap() }
                });
                ironpage_io::yield_now().await;
                take(&wal, second);
                let (durable, record_end) = flushing.await.unwrap();
                assert!(record_end <= durable && durable <= model.end());
                if model.below(2) == 0 {
                    assert_eq!(wal.flush().await.unwrap(), (model.end(), model.end()));
                }
            }
        }
        let durable = wal.durable();
        let from = START + model.below(durable.since(START) + 1);
        let mut reader = Reader::new(&dir);
        let mut at = from;
        while at < durable {
            let chunk = reader.read(at, durable.since(at).min(700_000) as usize).await.unwrap();
            let offset = at.since(START) as usize;
            assert!(*chunk == model.bytes[offset..offset + chunk.len()], "seed {seed}: other bytes at {at}");
            if let Some(recent) = wal.recent(at, chunk.len()) {
                assert!(recent == *chunk);
            }
            at = at + chunk.len() as u64;
        }
    }
}

fn take(wal: &Wal, bytes: &[u8]) {
    let begin = wal.end();
    // As a proposer that repeats itself: what is known already is passed over.
    let checked = wal.check(begin, bytes).unwrap();
    assert_eq!(checked.is_some(), !bytes.is_empty());
    wal.take(bytes, checked).unwrap();
}

#[test]
fn a_missing_segment_below_what_is_committed_is_damage() {
    let dir = std::env::temp_dir().join(format!("ironpage-wal-gap-{}", std::process::id()));
    run(Config::default(), || async {
        ironpage_io::fs::create_dir_all(&dir).await.unwrap();
        let mut model = Model { random: 4, records: Vec::new(), bytes: Vec::new() };
        Wal::create(&dir, START, &[]).await.unwrap();
        let wal = Rc::new(Wal::load(&dir, &properties(), START).await.unwrap());
        while model.end().segment() < 2 {
            let from = model.bytes.len();
            model.grow();
            take(&wal, &model.bytes[from..]);
            wal.flush().await.unwrap();
        }
        while wal.is_preparing() {
            ironpage_io::yield_now().await;
        }
        ironpage_io::fs::remove_file(segment::path(&dir, 1)).await.unwrap();
        let error = Wal::load(&dir, &properties(), model.end()).await.err().unwrap().to_string();
        assert!(error.contains("000000010000000000000001 is missing"), "{error}");
        ironpage_io::fs::remove_dir_all(&dir).await.unwrap();
    })
    .unwrap();
}

/// Disks whose flushes fail, processes that restart on them, losses of power: what a flush confirmed and what
/// a restart said is there stays. After a flush that failed, reads show what is not durable, and never will be
/// by another flush alone.
#[test]
fn what_a_restart_says_is_there_survives_a_loss_of_power() {
    let (mut losses, mut failures) = (0, 0);
    for seed in 1..=30u64 {
        let (dir, disk) = (PathBuf::from("/wal"), Disk::new());
        let mut model = Model { random: seed, records: Vec::new(), bytes: Vec::new() };
        let calm = Box::new(Simulator::new(seed, disk.clone(), Faults::default()));
        let created = run_on(calm, || async {
            ironpage_io::fs::create_dir_all(&dir).await.unwrap();
            Wal::create(&dir, START, &[]).await.unwrap();
            ironpage_io::fs::sync_dir(Path::new("/")).await.unwrap();
        });
        created.unwrap();
        let mut promised = START;
        for process in 0..12 {
            let faults = Faults { failed_syncs: 150, failed_writes: 20, ..Faults::default() };
            let simulator = Box::new(Simulator::new(seed * 100 + process, disk.clone(), faults));
            let failed = run_on(simulator, || one_process(&dir, &mut model, &mut promised)).unwrap().is_err();
            failures += u32::from(failed);
            if model.below(2) == 0 {
                disk.crash(seed * 100 + process);
                losses += 1;
            }
        }
    }
    assert!(losses > 100 && failures > 100, "{losses} losses of power, {failures} failed processes");
}

/// Loads the WAL and writes to it until something fails.
async fn one_process(dir: &Path, model: &mut Model, promised: &mut Lsn) -> crate::error::Result<()> {
    let wal = Rc::new(Wal::load(dir, &properties(), START).await?);
    let end = wal.durable();
    assert!(*promised <= end && end <= model.end(), "{promised} was promised, {end} is there");
    let kept = model.records.iter().filter(|(record_end, _)| *record_end <= end).count();
    assert_eq!(model.cut(kept), end, "WAL ends between records");
    *promised = end;
    for _ in 0..model.below(6) {
        let from = model.bytes.len();
        model.grow();
        take(&wal, &model.bytes[from..]);
        *promised = wal.flush().await?.1;
    }
    Ok(())
}

/// Two histories that part at some record. The cut of the first meets failing flushes, processes restart on what
/// they see, the power fails: once a cut or a restart has said where WAL ends, nothing of the first history comes
/// back behind it, where the last record of the second would vouch for it.
#[test]
fn a_cut_whose_flush_failed_stays_cut() {
    let (mut failed, mut cuts) = (0, 0);
    for seed in 1..=150u64 {
        let (dir, disk) = (PathBuf::from("/wal"), Disk::new());
        let mut model = Model { random: seed, records: Vec::new(), bytes: Vec::new() };
        let calm = || Box::new(Simulator::new(seed, disk.clone(), Faults::default()));
        let written = run_on(calm(), || async {
            ironpage_io::fs::create_dir_all(&dir).await.unwrap();
            Wal::create(&dir, START, &[]).await.unwrap();
            ironpage_io::fs::sync_dir(Path::new("/")).await.unwrap();
            let wal = Rc::new(Wal::load(&dir, &properties(), START).await.unwrap());
            for _ in 0..model.below(4) + 1 {
                let from = model.bytes.len();
                model.grow();
                take(&wal, &model.bytes[from..]);
                wal.flush().await.unwrap();
            }
            while wal.is_preparing() {
                ironpage_io::yield_now().await;
            }
        });
        written.unwrap();
        let keep = model.below(model.records.len() as u64) as usize;
        let to = model.cut(keep);
        // Processes on a disk whose flushes fail, until one got through: it has said that WAL ends at `to`.
        for process in 0u64.. {
            let faults = Faults { failed_syncs: 120, ..Faults::default() };
            let simulator = Box::new(Simulator::new(seed * 1000 + process, disk.clone(), faults));
            let cut = run_on(simulator, || async {
                // Committed up to there, so that nothing before it needs to be made durable again.
                let wal = Wal::load(&dir, &properties(), to).await?;
                assert!(wal.durable() >= to);
                if wal.durable() > to { wal.truncate(to).await } else { Ok(()) }
            });
            if cut.unwrap().is_ok() {
                break;
            }
            failed += 1;
        }
        disk.crash(seed);
        let found = run_on(calm(), || async { Wal::load(&dir, &properties(), to).await.unwrap().durable() });
        assert_eq!(found.unwrap(), to, "seed {seed}: what was cut is back");
        cuts += 1;
    }
    assert!(failed > cuts, "{failed} processes failed for {cuts} cuts");
}
