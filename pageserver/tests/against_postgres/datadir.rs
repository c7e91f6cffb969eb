//! A data directory that no server uses.

use ironpage_layout::key::{SLRU_PAGES_PER_SEGMENT, SlruKind};
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use ironpage_layout::postgres::control::{CONTROL_SIZE, ControlFile};
use ironpage_layout::rel::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Fork, Lsn, RelTag};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

pub struct DataDir(pub PathBuf);

/// An item with bytes of its own.
pub struct OwnedItem(Vec<u8>);

impl OwnedItem {
    fn new(item: Item<'_>) -> OwnedItem {
        let mut bytes = Vec::new();
        item.encode(&mut bytes);
        OwnedItem(bytes)
    }

    pub fn as_item(&self) -> Item<'_> {
        Item::decode(&self.0).unwrap()
    }
}

/// A segment of a relation fork.
struct RelFile {
    rel: RelTag,
    fork: Fork,
    segment: u32,
    path: PathBuf,
}

impl DataDir {
    pub fn control(&self) -> ControlFile {
        ControlFile::read(&fs::read(self.0.join("global/pg_control")).unwrap()[..CONTROL_SIZE]).unwrap()
    }

    /// Start of the last checkpoint record.
    pub fn checkpoint(&self) -> Lsn {
        Lsn(self.control().checkpoint.get())
    }

    /// All WAL there is from `from` on.
    pub fn wal(&self, from: Lsn) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in from.segment().. {
            let path = self.0.join("pg_wal").join(Lsn(segment * WAL_SEGMENT_SIZE).segment_file_name());
            match fs::read(path) {
                Ok(wal) => bytes.extend_from_slice(&wal),
                Err(_) => break,
            }
        }
        bytes.split_off(from.segment_offset() as usize)
    }

    /// (tablespace, database, path) of all directories with relations.
    fn directories(&self) -> Vec<(u32, u32, PathBuf)> {
        let mut found = vec![(GLOBAL_TABLESPACE, 0, self.0.join("global"))];
        let databases = |tablespace: u32, base: PathBuf, found: &mut Vec<_>| {
            for name in names(&base) {
                if let Ok(database) = name.parse() {
                    found.push((tablespace, database, base.join(name)));
                }
            }
        };
        databases(DEFAULT_TABLESPACE, self.0.join("base"), &mut found);
        for oid in names(&self.0.join("pg_tblspc")) {
            for version in names(&self.0.join("pg_tblspc").join(&oid)) {
                databases(oid.parse().unwrap(), self.0.join("pg_tblspc").join(&oid).join(version), &mut found);
            }
        }
        found
    }

    fn files(&self) -> Vec<RelFile> {
        let mut files = Vec::new();
        for (tablespace, database, dir) in self.directories() {
            for name in names(&dir) {
                let (stem, segment) = name.split_once('.').unwrap_or((&name, "0"));
                let (relation, fork) = stem.split_once('_').unwrap_or((stem, ""));
                let fork = Fork::ALL.into_iter().find(|known| known.suffix().trim_start_matches('_') == fork);
                if let (Ok(relation), Some(fork), Ok(segment)) = (relation.parse(), fork, segment.parse()) {
                    files.push(RelFile { rel: RelTag { tablespace, database, relation }, fork, segment, path: dir.join(&name) });
                }
            }
        }
        files.sort_by_key(|file| (file.rel, file.fork, file.segment));
        files
    }

    pub fn relations(&self) -> Vec<(RelTag, Fork)> {
        let mut relations: Vec<_> = self.files().into_iter().map(|file| (file.rel, file.fork)).collect();
        relations.dedup();
        relations
    }

    /// All of a fork; nothing if it does not exist.
    pub fn relation(&self, rel: RelTag, fork: Fork) -> Vec<u8> {
        let base = match rel.tablespace {
            GLOBAL_TABLESPACE => self.0.join("global"),
            DEFAULT_TABLESPACE => self.0.join("base").join(rel.database.to_string()),
            oid => {
                let dir = self.0.join("pg_tblspc").join(oid.to_string());
                let version = names(&dir).into_iter().next().unwrap_or_default();
                dir.join(version).join(rel.database.to_string())
            }
        };
        fs::read(base.join(format!("{}{}", rel.relation, fork.suffix()))).unwrap_or_default()
    }

    pub fn rel_maps(&self) -> Vec<(u32, u32, Vec<u8>)> {
        let maps = self.directories().into_iter();
        maps.filter_map(|(tablespace, database, dir)| Some((tablespace, database, fs::read(dir.join("pg_filenode.map")).ok()?)))
            .collect()
    }

    pub fn slru(&self, slru: SlruKind) -> BTreeMap<u32, Vec<u8>> {
        let dir = self.0.join(slru.directory());
        let mut pages = BTreeMap::new();
        for name in names(&dir) {
            let Ok(segment) = u32::from_str_radix(&name, 16) else { continue };
            let bytes = fs::read(dir.join(name)).unwrap();
            for (index, page) in bytes.chunks_exact(8192).enumerate() {
                pages.insert(segment * SLRU_PAGES_PER_SEGMENT + index as u32, page.to_vec());
            }
        }
        pages
    }

    /// Prepared transactions, without the CRC that ends their files.
    pub fn two_phase(&self) -> Vec<(u32, Vec<u8>)> {
        let dir = self.0.join("pg_twophase");
        let state = |name: String| {
            let mut bytes = fs::read(dir.join(&name)).unwrap();
            bytes.truncate(bytes.len() - 4);
            (u32::from_str_radix(&name, 16).unwrap(), bytes)
        };
        names(&dir).into_iter().map(state).collect()
    }

    /// What an import sends of it.
    pub fn items(&self) -> Vec<OwnedItem> {
        let control = self.control().to_bytes();
        let mut items = vec![OwnedItem::new(Item::Control(&control))];
        for (tablespace, database, dir) in self.directories() {
            if let Ok(version) = fs::read(dir.join("PG_VERSION")) {
                items.push(OwnedItem::new(Item::Database { tablespace, database, version: &version }));
            }
        }
        for (tablespace, database, map) in self.rel_maps() {
            items.push(OwnedItem::new(Item::RelMap { tablespace, database, map: &map }));
        }
        for file in self.files().into_iter().filter(|file| file.fork != Fork::Fsm) {
            assert_eq!(file.segment, 0, "initdb makes no relation of a gigabyte");
            let bytes = fs::read(&file.path).unwrap();
            let (rel, fork, blocks) = (file.rel, file.fork, (bytes.len() / 8192) as u32);
            items.push(OwnedItem::new(Item::RelSize { rel, fork, blocks }));
            for (index, pages) in bytes.chunks(64 * 8192).enumerate() {
                let block = BlockNumber(index as u32 * 64);
                items.push(OwnedItem::new(Item::RelPages { rel, fork, block, pages }));
            }
        }
        for slru in SlruKind::ALL {
            for (page, bytes) in self.slru(slru) {
                items.push(OwnedItem::new(Item::SlruPages { slru, page, pages: &bytes }));
            }
        }
        items
    }
}

/// Names in a directory, sorted; none if it does not exist.
fn names(dir: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
