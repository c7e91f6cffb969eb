//! A data directory as items of an import.

use super::scratch::{Scratch, files_in};
use ironpage_layout::key::{SLRU_PAGES_PER_SEGMENT, SlruKind};
use ironpage_layout::postgres::control::CONTROL_SIZE;
use ironpage_layout::rel::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PAGE_SIZE};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Fork, Oid, RelTag};
use std::collections::BTreeMap;

/// Contents of all forks of all relations, by the directory they lie in. Temporary relations are left out.
pub fn relations(postgres: &Scratch) -> BTreeMap<(RelTag, Fork), Vec<u8>> {
    let mut forks = BTreeMap::new();
    for (tablespace, database, dir) in databases(postgres) {
        for (name, path) in files_in(&postgres.path(&dir)) {
            let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
            let (Ok(relation), fork) = (name[..digits].parse::<Oid>(), &name[digits..]) else { continue };
            let Some(fork) = Fork::ALL.into_iter().find(|known| known.suffix() == fork) else { continue };
            let bytes = std::fs::read(path).expect("a relation file");
            assert!(bytes.len().is_multiple_of(PAGE_SIZE), "{dir}/{name} has {} bytes", bytes.len());
            forks.insert((RelTag { tablespace, database, relation }, fork), bytes);
        }
    }
    forks
}

/// Directories that hold relations: (tablespace, database, path below the data directory).
pub fn databases(postgres: &Scratch) -> Vec<(Oid, Oid, String)> {
    let mut found = vec![(GLOBAL_TABLESPACE, 0, "global".to_string())];
    let numbered = |dir: &str| files_in(&postgres.path(dir)).into_iter().filter_map(|(name, _)| name.parse::<Oid>().ok());
    found.extend(numbered("base").map(|oid| (DEFAULT_TABLESPACE, oid, format!("base/{oid}"))));
    for tablespace in numbered("pg_tblspc") {
        for (version, _) in files_in(&postgres.path(&format!("pg_tblspc/{tablespace}"))) {
            let inside = format!("pg_tblspc/{tablespace}/{version}");
            let all: Vec<Oid> = numbered(&inside).collect();
            found.extend(all.into_iter().map(|oid| (tablespace, oid, format!("{inside}/{oid}"))));
        }
    }
    found
}

/// All pages of an SLRU by number.
pub fn slru_pages(postgres: &Scratch, slru: SlruKind) -> BTreeMap<u32, Vec<u8>> {
    let mut pages = BTreeMap::new();
    for (name, path) in files_in(&postgres.path(slru.directory())) {
        let segment = u32::from_str_radix(&name, 16).expect("a segment's name");
        let bytes = std::fs::read(path).expect("a segment");
        for (index, page) in bytes.chunks_exact(PAGE_SIZE).enumerate() {
            pages.insert(segment * SLRU_PAGES_PER_SEGMENT + index as u32, page.to_vec());
        }
    }
    pages
}

pub fn import(postgres: &Scratch, mut take: impl FnMut(Item<'_>)) {
    take(Item::Control(&postgres.read("global/pg_control")[..CONTROL_SIZE]));
    for (tablespace, database, dir) in databases(postgres) {
        if database != 0 {
            take(Item::Database { tablespace, database, version: &postgres.read(&format!("{dir}/PG_VERSION")) });
        }
        take(Item::RelMap { tablespace, database, map: &postgres.read(&format!("{dir}/pg_filenode.map")) });
    }
    for ((rel, fork), pages) in relations(postgres) {
        take(Item::RelSize { rel, fork, blocks: (pages.len() / PAGE_SIZE) as u32 });
        if !pages.is_empty() {
            take(Item::RelPages { rel, fork, block: BlockNumber(0), pages: &pages });
        }
    }
    for slru in SlruKind::ALL {
        for (page, bytes) in slru_pages(postgres, slru) {
            take(Item::SlruPages { slru, page, pages: &bytes });
        }
    }
}
