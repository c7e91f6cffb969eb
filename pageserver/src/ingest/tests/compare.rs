//! What ingest made of the WAL, against the files Postgres left.

use super::data_dir;
use super::scratch::Scratch;
use super::store::TestStore;
use crate::ingest::Head;
use ironpage_layout::key::SlruKind;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::slru::precedes;
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::value::RelCuts;
use ironpage_layout::{BlockNumber, Fork, Key};
use std::collections::BTreeSet;

/// FirstNormalObjectId: databases from here on are of the workload.
const FIRST_NORMAL_OID: u32 = 16384;

pub struct Comparison<'a> {
    pub postgres: &'a Scratch,
    pub head: &'a Head,
    pub store: &'a TestStore,
}

impl Comparison<'_> {
    fn control_on_disk(&self) -> ControlFile {
        ControlFile::read(&self.postgres.read("global/pg_control")).expect("pg_control")
    }

    /// The counters we keep ourselves were right before the last checkpoint told them.
    pub fn counters(&self, before_shutdown: &Head) {
        let ours = before_shutdown.control().expect("pg_control").checkpoint_copy;
        let theirs = self.control_on_disk().checkpoint_copy;
        assert_eq!(ours.next_xid, theirs.next_xid, "next_xid");
        assert_eq!(ours.next_multi, theirs.next_multi, "next_multi");
        assert_eq!(ours.next_multi_offset, theirs.next_multi_offset, "next_multi_offset");
        // It moves without WAL unless segments of pg_xact go; a checkpoint tells.
        assert!(!precedes(theirs.oldest_xid.get(), ours.oldest_xid.get()), "oldest_xid");
        assert_eq!(ours.oldest_multi, theirs.oldest_multi, "oldest_multi");
        assert_eq!(ours.oldest_commit_ts_xid, theirs.oldest_commit_ts_xid, "oldest_commit_ts_xid");
        assert_eq!(ours.newest_commit_ts_xid, theirs.newest_commit_ts_xid, "newest_commit_ts_xid");
        assert_eq!(ours.full_page_writes, theirs.full_page_writes, "full_page_writes");
        // OIDs are logged 8192 ahead.
        let ahead = ours.next_oid.get().wrapping_sub(theirs.next_oid.get());
        assert!(ahead <= 8192, "next_oid {} for {}", ours.next_oid, theirs.next_oid);
    }

    pub fn control(&self) {
        let mut ours = *self.head.control().expect("pg_control");
        let theirs = self.control_on_disk();
        assert_eq!(ours.checkpoint_copy, theirs.checkpoint_copy);
        // The time of the last write, the state and the LSN of unlogged relations are not in WAL.
        (ours.time, ours.state, ours.unlogged_lsn) = (theirs.time, theirs.state, theirs.unlogged_lsn);
        assert_eq!(ours.to_bytes(), theirs.to_bytes());
    }

    pub fn slrus(&self) {
        for slru in SlruKind::ALL {
            let files = data_dir::slru_pages(self.postgres, slru);
            let numbers: BTreeSet<u32> = files.keys().copied().collect();
            assert_eq!(*self.head.slru_pages(slru), numbers, "pages of {slru:?}");
            for (number, bytes) in files {
                let page = self.store.page(Key::slru(slru, number), Default::default()).expect("no records");
                let differs = page.iter().zip(&bytes).position(|(ours, theirs)| ours != theirs);
                assert_eq!(differs, None, "page {number} of {slru:?}, first difference");
            }
        }
        assert!(self.head.slru_pages(SlruKind::Clog).len() > 2, "the workload fills pages of pg_xact");
        assert!(self.head.slru_pages(SlruKind::MultiOffsets).len() > 1, "the workload fills pages of multixact offsets");
    }

    /// Every permanent relation is known with its size; zero pages at its end may have been added without WAL.
    pub fn sizes(&self) {
        let files = data_dir::relations(self.postgres);
        let mut compared = 0;
        for ((rel, fork), bytes) in &files {
            let on_disk = (bytes.len() / PAGE_SIZE) as u32;
            match (fork, self.head.relation_blocks(*rel, *fork)) {
                (Fork::Fsm, _) => {}
                (Fork::Main | Fork::Vm, None) if files.contains_key(&(*rel, Fork::Init)) => {}
                (_, Some(blocks)) => {
                    assert!(blocks <= on_disk, "{rel} {fork:?}: {blocks} blocks, {on_disk} on disk");
                    let rest = &bytes[blocks as usize * PAGE_SIZE..];
                    assert!(rest.iter().all(|byte| *byte == 0) || *fork == Fork::Vm, "{rel} {fork:?} is longer on disk");
                    compared += 1;
                }
                (Fork::Vm, None) => assert!(bytes.chunks(PAGE_SIZE).all(|page| page[24..].iter().all(|byte| *byte == 0))),
                (_, None) => panic!("{rel} {fork:?} of {on_disk} blocks is unknown"),
            }
        }
        for (rel, fork, _) in self.head.relation_forks() {
            assert!(fork == Fork::Fsm || files.contains_key(&(rel, fork)), "{rel} {fork:?} has no file");
        }
        assert!(compared > 1000, "{compared} forks");
    }

    pub fn visibility_maps(&self) {
        let (mut set, mut wrong) = (0, Vec::new());
        for ((rel, fork), bytes) in data_dir::relations(self.postgres) {
            let blocks = self.head.relation_blocks(rel, fork).unwrap_or(0);
            if fork != Fork::Vm {
                continue;
            }
            let cuts = self.store.blob(Key::rel_cuts(rel, fork)).and_then(|bytes| RelCuts::decode(&bytes)).unwrap_or_default();
            for (block, theirs) in bytes.chunks(PAGE_SIZE).enumerate().take(blocks as usize) {
                let block = BlockNumber(block as u32);
                let Some(ours) = self.store.page(Key::page(rel, fork, block), cuts.cut_of(block.0)) else { continue };
                // CREATE DATABASE logs pages of maps as standard ones (RelationCopyStorageUsingBuffer), so that their bits
                // lie in the hole of the image and are lost; recovery, too, has fewer than the primary then.
                let logged_copy = rel.database >= FIRST_NORMAL_OID;
                if logged_copy && ours[24..].iter().zip(&theirs[24..]).all(|(ours, theirs)| ours & !theirs == 0) {
                    continue;
                }
                if ours != *theirs {
                    let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs).unwrap_or(0);
                    let history = self.store.history(Key::page(rel, fork, block));
                    let around = at & !7..(at & !7) + 8;
                    let (ours, theirs) = (&ours[around.clone()], &theirs[around]);
                    wrong.push(format!("{block:?} of {rel} at {at}: {ours:x?}, not {theirs:x?}; {cuts:?} {history}"));
                }
                set += theirs[24..].iter().filter(|byte| **byte != 0).count();
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(set > 100, "{set} bytes of visibility maps");
    }

    pub fn directories(&self) {
        let mut databases = BTreeSet::new();
        for (tablespace, database, dir) in data_dir::databases(self.postgres) {
            let path = self.postgres.path(&format!("{dir}/pg_filenode.map"));
            if path.exists() {
                let map = std::fs::read(path).expect("a map");
                assert_eq!(self.store.blob(Key::rel_map(tablespace, database)), Some(map), "map of {tablespace}/{database}");
                databases.insert((tablespace, database));
            }
        }
        assert_eq!(self.head.rel_maps, databases);
        databases.retain(|(_, database)| *database != 0);
        assert_eq!(self.head.databases, databases);
        let tablespaces = super::scratch::files_in(&self.postgres.path("pg_tblspc"));
        let tablespaces: BTreeSet<u32> = tablespaces.iter().map(|(name, _)| name.parse().expect("an OID")).collect();
        assert_eq!(self.head.tablespaces, tablespaces);
        assert_eq!(tablespaces.len(), 1);
        let origins: Vec<_> = self.head.origins.iter().map(|(origin, lsns)| (*origin, lsns.0.0)).collect();
        assert_eq!(origins, [(1, 0x234567)]);
    }

    pub fn prepared_transactions(&self) {
        let files = super::scratch::files_in(&self.postgres.path("pg_twophase"));
        let xids: BTreeSet<u32> = files.iter().map(|(name, _)| u32::from_str_radix(name, 16).expect("an xid")).collect();
        assert_eq!((self.head.two_phase_xids(), xids.len()), (&xids, 1));
        for (xid, (_, path)) in xids.iter().zip(files) {
            let file = std::fs::read(path).expect("a state file");
            assert_eq!(self.store.blob(Key::two_phase(*xid)).as_deref(), Some(&file[..file.len() - 4]));
        }
    }

    /// A restart makes the same head of what was stored.
    pub fn rebuilt_from_the_store(&self) {
        let mut mark = Vec::new();
        let mut sink = |key: Key, _, value: ironpage_layout::Value<'_>| {
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            mark.push((key, bytes));
        };
        self.head.put_mark(&mut sink).expect("pg_control");
        let live = |key: &Key, bytes: &[u8]| key.kind != ironpage_layout::KeyKind::Slru || bytes != [4];
        let stored = self
            .store
            .newest()
            .filter(|(key, _)| !matches!(key.kind, ironpage_layout::KeyKind::Page | ironpage_layout::KeyKind::Control));
        let stored = stored.filter(|(key, bytes)| live(key, bytes));
        let loaded = Head::load(
            self.head.last_record_lsn(),
            self.head.prev_record_lsn(),
            stored.chain(mark.iter().map(|(key, bytes)| (*key, bytes.as_slice()))),
        )
        .unwrap_or_else(|error| panic!("{error}"));
        // pg_control's CRC and padding are made right when it is written.
        let bytes = |head: &Head| head.control().expect("pg_control").to_bytes();
        assert_eq!(bytes(&loaded), bytes(self.head));
        assert_eq!(loaded.relations, self.head.relations);
        assert_eq!(loaded.slrus, self.head.slrus);
        let rest = |head: &Head| Head {
            control: None,
            relations: Default::default(),
            slrus: Default::default(),
            begun_offsets_page: None,
            ..head.clone()
        };
        assert_eq!(rest(&loaded), rest(self.head));
    }
}
