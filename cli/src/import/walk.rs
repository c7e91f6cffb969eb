//! The parts of a data directory, in the order they are sent.
//!
//! Left out: free space maps (decision 4), temporary relations, the main forks of unlogged relations (a crash would empty
//! them), replication slots, statistics, and all settings.

use super::data_dir::{DataDirectory, refuse};
use super::relation_file::RelationFile;
use super::sender::Sender;
use crate::error::{AtPath, Result};
use crate::progress;
use ironpage_layout::crc::crc32c;
use ironpage_layout::key::{SLRU_PAGES_PER_SEGMENT, SlruKind};
use ironpage_layout::postgres::checksum::{self, Checksums};
use ironpage_layout::postgres::page;
use ironpage_layout::rel::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PAGE_SIZE, SEGMENT_BLOCKS, TABLESPACE_VERSION_DIRECTORY};
use ironpage_layout::wire::MAX_WAL_CHUNK;
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Fork, Oid, RelTag};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Prepared transactions an endpoint can take over: its max_prepared_transactions.
const PREPARED_MAX: usize = 64;
/// Bytes of a relation map (RelMapFile, utils/cache/relmapper.c) and of what its CRC covers; its magic number.
const MAP_SIZE: usize = 512;
const MAP_CRC_OFFSET: usize = 504;
const MAP_MAGIC: u32 = 0x0059_2717;
/// Most bytes of a prepared transaction's file: MaxAllocSize bounds what Postgres reads (ReadTwoPhaseFile, twophase.c), a frame what we send.
const TWO_PHASE_BYTES_MAX: u64 = 4 << 20;

/// What an import left out, and what it found that its user should know.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    pub relations: u64,
    pub databases: u64,
    pub tablespaces: u64,
    pub bytes: u64,
    pub prepared: Vec<u32>,
    /// Unlogged relations, which are empty now.
    pub unlogged: u64,
    pub slots: Vec<String>,
    pub origins: bool,
    /// Files that a server would pass over too.
    pub odd: Vec<String>,
}

/// Bytes of all files below the directories that hold relations: about what will be sent.
pub fn size_of(source: &DataDirectory) -> Result<u64> {
    let mut total = 0;
    for (directory, _, _) in database_directories(source)? {
        for (path, name) in entries(&directory)? {
            if RelationFile::parse(&name).is_some() {
                total += fs::metadata(&path).at("look at", &path)?.len();
            }
        }
    }
    Ok(total)
}

/// Sends all of the directory.
pub fn send(source: &DataDirectory, sender: &mut Sender) -> Result<Report> {
    let mut walk = Walk { source, sender, report: Report::default(), buffer: vec![0; MAX_WAL_CHUNK] };
    walk.sender.item(&Item::Control(&source.control.to_bytes()))?;
    for (oid, _) in tablespaces(source)? {
        walk.report.tablespaces += 1;
        walk.sender.item(&Item::Tablespace(oid))?;
    }
    for (directory, tablespace, database) in database_directories(source)? {
        walk.database(&directory, tablespace, database)?;
    }
    for slru in SlruKind::ALL {
        walk.slru(slru)?;
    }
    walk.two_phase()?;
    walk.left_out()?;
    Ok(walk.report)
}

struct Walk<'a> {
    source: &'a DataDirectory,
    sender: &'a mut Sender,
    report: Report,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// A database's directory, or global/ as database 0.
    fn database(&mut self, dir: &Path, tablespace: Oid, database: Oid) -> Result<()> {
        let mut forks: BTreeMap<(Oid, u8), Vec<u32>> = BTreeMap::new();
        for (path, name) in entries(dir)? {
            match name.as_str() {
                "PG_VERSION" => {
                    let version = fs::read(&path).at("read", &path)?;
                    self.report.databases += 1;
                    self.sender.item(&Item::Database { tablespace, database, version: &version })?;
                }
                "pg_filenode.map" => {
                    let map = fs::read(&path).at("read", &path)?;
                    check_map(&path, &map)?;
                    self.sender.item(&Item::RelMap { tablespace, database, map: &map })?;
                }
                name => {
                    if let Some(file) = RelationFile::parse(name) {
                        forks.entry((file.relation, file.fork)).or_default().push(file.segment);
                    }
                }
            }
        }
        for (&(relation, number), segments) in &forks {
            let Some(fork) = Fork::from_number(number) else { continue };
            let unlogged = forks.contains_key(&(relation, Fork::Init as u8));
            let rel = RelTag { tablespace, database, relation };
            match fork {
                Fork::Fsm => {}
                Fork::Main if unlogged => self.report.unlogged += 1,
                Fork::Vm if unlogged => {}
                _ => self.fork(dir, rel, fork, segments)?,
            }
        }
        Ok(())
    }

    /// A fork out of its files: they count up to the first that is not full (mdnblocks, md.c).
    fn fork(&mut self, dir: &Path, rel: RelTag, fork: Fork, segments: &[u32]) -> Result<()> {
        let name = |segment| match segment {
            0 => dir.join(format!("{}{}", rel.relation, fork.suffix())),
            _ => dir.join(format!("{}{}.{segment}", rel.relation, fork.suffix())),
        };
        let mut files = Vec::new();
        let mut blocks = 0u32;
        let mut whole = true;
        let mut sorted = segments.to_vec();
        sorted.sort_unstable();
        for (index, segment) in sorted.into_iter().enumerate() {
            let path = name(segment);
            let length = fs::metadata(&path).at("look at", &path)?.len();
            let here = length / PAGE_SIZE as u64;
            if here > u64::from(SEGMENT_BLOCKS) {
                let why = format!("{} has {length} bytes, and a relation's file has 1 GiB at most", path.display());
                return Err(self.damaged(why));
            }
            if !whole || segment as usize != index {
                if length > 0 {
                    self.report.odd.push(format!("{}: a file before it is not full", path.display()));
                }
                continue;
            }
            if length % PAGE_SIZE as u64 != 0 {
                self.report.odd.push(format!("{}: its last page is incomplete", path.display()));
            }
            let too_many = || self.damaged(format!("{} is beyond the largest block number", path.display()));
            blocks = blocks.checked_add(here as u32).ok_or_else(too_many)?;
            whole = here == u64::from(SEGMENT_BLOCKS);
            files.push((path, segment * SEGMENT_BLOCKS, here as u32));
        }
        if files.is_empty() {
            return Ok(());
        }
        if fork == Fork::Main {
            self.report.relations += 1;
        }
        self.sender.item(&Item::RelSize { rel, fork, blocks })?;
        for (path, first, blocks) in files {
            self.pages(&path, rel, fork, first, blocks)?;
        }
        Ok(())
    }

    /// The pages of one file, the first of which is block `first`.
    fn pages(&mut self, path: &Path, rel: RelTag, fork: Fork, first: u32, blocks: u32) -> Result<()> {
        let mut file = File::open(path).at("open", path)?;
        let (mut block, mut left) = (first, blocks as usize * PAGE_SIZE);
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let length = left.min(buffer.len());
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            file.read_exact(chunk).at("read", path)?;
            for (bytes, block) in chunk.chunks_exact(PAGE_SIZE).zip(block..) {
                self.check(path, block, bytes)?;
            }
            self.sender.pages(rel, fork, BlockNumber(block), chunk)?;
            self.report.bytes += length as u64;
            block += (length / PAGE_SIZE) as u32;
            left -= length;
        }
        self.buffer = buffer;
        Ok(())
    }

    /// What a server would refuse to read is not imported: it would be found damaged later, and who did it would be unclear.
    fn check(&self, path: &Path, block: u32, bytes: &[u8]) -> Result<()> {
        let Ok(page) = <&[u8; PAGE_SIZE]>::try_from(bytes) else { return Ok(()) };
        let damaged = |why: String| {
            let checksums =
                if self.source.checksums() == Checksums::On { "; `pg_checksums --check` lists all such pages" } else { "" };
            refuse(
                &self.source.dir,
                format!("block {block} of {} is damaged: {why}", path.display()),
                format!(
                    "its own server would not read it either: restore a backup, or salvage with zero_damaged_pages{checksums}"
                ),
            )
        };
        checksum::verify(page, BlockNumber(block), self.source.checksums()).map_err(|error| damaged(error.to_string()))?;
        let lsn = page::lsn(page);
        if lsn > self.source.end_lsn {
            return Err(damaged(format!("it is of {lsn}, and the WAL ends at {}", self.source.end_lsn)));
        }
        Ok(())
    }

    fn slru(&mut self, slru: SlruKind) -> Result<()> {
        for (path, name) in entries(&self.source.dir.join(slru.directory()))? {
            let hexadecimal = (4..=8).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            let Some(segment) = u32::from_str_radix(&name, 16).ok().filter(|_| hexadecimal) else { continue };
            let pages = fs::read(&path).at("read", &path)?;
            if !pages.len().is_multiple_of(PAGE_SIZE) || pages.len() > SLRU_PAGES_PER_SEGMENT as usize * PAGE_SIZE {
                return Err(self.damaged(format!("{} has {} bytes: 1 to 32 pages are possible", path.display(), pages.len())));
            }
            let Some(page) = segment.checked_mul(SLRU_PAGES_PER_SEGMENT) else { continue };
            if !pages.is_empty() {
                self.sender.item(&Item::SlruPages { slru, page, pages: &pages })?;
            }
        }
        Ok(())
    }

    fn two_phase(&mut self) -> Result<()> {
        for (path, name) in entries(&self.source.dir.join("pg_twophase"))? {
            let Some(xid) = u32::from_str_radix(&name, 16).ok().filter(|_| name.len() == 8) else { continue };
            let length = fs::metadata(&path).at("look at", &path)?.len();
            if length > TWO_PHASE_BYTES_MAX - 4096 {
                return Err(self.damaged(format!("the prepared transaction in {} has {length} bytes, too many", path.display())));
            }
            let bytes = fs::read(&path).at("read", &path)?;
            // The file ends with the CRC-32C of what is before it (EndPrepare and RecreateTwoPhaseFile, twophase.c).
            let intact = bytes.split_last_chunk().filter(|(state, crc)| crc32c(state).to_le_bytes() == **crc);
            let Some((state, _)) = intact else {
                return Err(self.damaged(format!("the prepared transaction in {} does not match its CRC", path.display())));
            };
            self.sender.item(&Item::TwoPhase { xid, state })?;
            self.report.prepared.push(xid);
        }
        if self.report.prepared.len() > PREPARED_MAX {
            let why =
                format!("it has {} prepared transactions, and an endpoint takes over {PREPARED_MAX}", self.report.prepared.len());
            return Err(refuse(&self.source.dir, why, "commit or roll back some of those that pg_prepared_xacts shows"));
        }
        Ok(())
    }

    /// What a server has beside its data.
    fn left_out(&mut self) -> Result<()> {
        let slots = entries(&self.source.dir.join("pg_replslot"))?;
        self.report.slots = slots.into_iter().filter(|(path, _)| path.is_dir()).map(|(_, name)| name).collect();
        // Magic number and CRC alone are 8 bytes (CheckPointReplicationOrigin, origin.c).
        let origins = fs::metadata(self.source.dir.join("pg_logical/replorigin_checkpoint"));
        self.report.origins = origins.is_ok_and(|file| file.len() > 8);
        Ok(())
    }

    fn damaged(&self, why: String) -> crate::error::Error {
        refuse(&self.source.dir, why, "its own server could not use it either: restore a backup")
    }
}

impl Report {
    /// What was imported and what was not, a line each.
    pub fn lines(&self) -> Vec<String> {
        let plural = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let mut lines = vec![format!(
            "imported {} in {} and {}",
            progress::bytes(self.bytes),
            plural(self.relations, "relation"),
            plural(self.databases, "database"),
        )];
        if self.tablespaces > 0 {
            let count = plural(self.tablespaces, "tablespace");
            lines.push(format!("{count}: kept, as directories inside each endpoint's data directory"));
        }
        if !self.prepared.is_empty() {
            let count = plural(self.prepared.len() as u64, "prepared transaction");
            lines.push(format!("{count}: kept, to be committed or rolled back on an endpoint"));
        }
        if self.unlogged > 0 {
            lines.push(format!("{}: empty now, as after a crash", plural(self.unlogged, "unlogged relation")));
        }
        if !self.slots.is_empty() {
            lines.push(format!("replication slots dropped: {}", self.slots.join(", ")));
        }
        if self.origins {
            lines.push("progress of replication origins dropped: subscriptions start over where their slots stand".into());
        }
        lines.extend(self.odd.iter().map(|odd| format!("passed over, as a server does: {odd}")));
        lines.push("postgresql.conf, ALTER SYSTEM settings and pg_hba.conf are not taken over".into());
        lines
    }
}

fn check_map(path: &Path, map: &[u8]) -> Result<()> {
    let word = |at: usize| map.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let covered = map.get(..MAP_CRC_OFFSET).unwrap_or_default();
    if map.len() == MAP_SIZE && word(0) == Some(MAP_MAGIC) && word(MAP_CRC_OFFSET) == Some(crc32c(covered)) {
        return Ok(());
    }
    Err(refuse(path, "the relation map is damaged", "its own server could not start with it: restore a backup"))
}

/// Tablespaces beside the two that are always there: their directories of this server version.
fn tablespaces(source: &DataDirectory) -> Result<Vec<(Oid, PathBuf)>> {
    let mut found = Vec::new();
    for (path, name) in entries(&source.dir.join("pg_tblspc"))? {
        let Ok(oid) = name.parse::<Oid>() else { continue };
        let directory = path.join(TABLESPACE_VERSION_DIRECTORY);
        if !directory.is_dir() {
            let target = fs::read_link(&path).unwrap_or(path);
            return Err(refuse(
                &source.dir,
                format!("tablespace {oid} has no directory {}/{TABLESPACE_VERSION_DIRECTORY}", target.display()),
                "bring the tablespace back to where pg_tblspc's link points, or point the link to it",
            ));
        }
        found.push((oid, directory));
    }
    Ok(found)
}

/// Directories with relations: (directory, tablespace, database), global/ as database 0.
fn database_directories(source: &DataDirectory) -> Result<Vec<(PathBuf, Oid, Oid)>> {
    let mut found = vec![(source.dir.join("global"), GLOBAL_TABLESPACE, 0)];
    let mut roots = vec![(DEFAULT_TABLESPACE, source.dir.join("base"))];
    roots.extend(tablespaces(source)?);
    for (tablespace, root) in roots {
        for (path, name) in entries(&root)? {
            let Ok(database) = name.parse::<Oid>() else { continue };
            // What an interrupted CREATE or DROP DATABASE leaves has no version.
            if tablespace != DEFAULT_TABLESPACE || path.join("PG_VERSION").is_file() {
                found.push((path, tablespace, database));
            }
        }
    }
    Ok(found)
}

/// Entries of a directory by name, sorted: imports of one directory are alike. None if there is no such directory.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.at("list", dir)?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.at("list", dir)?;
        found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
    }
    found.sort();
    Ok(found)
}
