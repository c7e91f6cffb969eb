//! A base backup from the pageserver, written as the files of a data directory.

use super::paths::DataDir;
use crate::client::{Client, Identity, Peer};
use crate::error::{AtPath, Error, Result};
use crate::user::Owner;
use ironpage_layout::key::SLRU_PAGES_PER_SEGMENT;
use ironpage_layout::rel::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PAGE_SIZE, SEGMENT_BLOCKS, TABLESPACE_VERSION_DIRECTORY};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::basebackup::{ALL_PAGES, BaseBackup, BaseBackupEnd, Item};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::{BlockNumber, Fork, Lsn, Oid, RelTag, Term};
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zerocopy::little_endian::{U32, U64};

/// How long the pageserver may wait for WAL before it says that it lags.
const WAIT_MS_MAX: u32 = 2000;
/// Longest silence between two frames.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a base backup says beside the files it becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// pg_control as the pageserver keeps it.
    pub control: Vec<u8>,
    /// Start of the record that ends at the backup's LSN.
    pub prev_record_lsn: Lsn,
}

/// Fetches the state at `lsn` into `data_dir`. From here on the pageserver refuses reads of lower terms.
pub fn fetch(peer: &Peer, identity: Identity, term: Term, lsn: Lsn, data_dir: &DataDir) -> Result<Received> {
    receive(peer, identity, term, lsn, 0, data_dir)
}

/// The same with the pages of all relations: a directory that needs no pageserver. Tablespaces that are links in `data_dir`
/// already are followed.
pub fn fetch_all_pages(peer: &Peer, identity: Identity, lsn: Lsn, data_dir: &DataDir) -> Result<Received> {
    receive(peer, identity, Term(0), lsn, ALL_PAGES, data_dir)
}

fn receive(peer: &Peer, identity: Identity, term: Term, lsn: Lsn, flags: u32, data_dir: &DataDir) -> Result<Received> {
    let mut client = Client::connect(peer, Role::Admin, identity, SILENCE_MAX)?;
    let request = BaseBackup { lsn: U64::new(lsn.0), wait_ms_max: U32::new(WAIT_MS_MAX), flags: U32::new(flags) };
    client.send(Kind::BaseBackup, 1, term, |out| request.encode(out))?;
    let mut files = Files::new(&data_dir.path, &data_dir.owner);
    let (mut control, mut items) = (None, 0u64);
    loop {
        let (header, payload) = client.receive()?;
        match header.kind {
            Kind::BaseBackupItem => {
                items += 1;
                match Item::decode(&payload).map_err(|error| peer.wire(error))? {
                    Item::Control(bytes) => control = Some(bytes.to_vec()),
                    item => files.write(&item)?,
                }
            }
            Kind::BaseBackupEnd => {
                let end = BaseBackupEnd::decode(&payload).map_err(|error| peer.wire(error))?;
                let broken = |why: String| Error::Endpoint(format!("the base backup of {} is not whole: {why}", peer.name));
                if end.items.get() != items || end.lsn.get() != lsn.0 {
                    let sent = (end.items.get(), Lsn(end.lsn.get()));
                    return Err(broken(format!("{items} items at {lsn} came, it speaks of {} at {}", sent.0, sent.1)));
                }
                files.finish()?;
                let control = control.ok_or_else(|| broken("it has no pg_control".into()))?;
                return Ok(Received { control, prev_record_lsn: Lsn(end.prev_record_lsn.get()) });
            }
            other => return Err(client.unexpected(other, "BaseBackupItem")),
        }
    }
}

/// The files of a data directory as items become them.
struct Files<'a> {
    root: &'a Path,
    owner: &'a Owner,
    directories: BTreeSet<PathBuf>,
    /// Files to which pages come in pieces, and the one that is open: nearly always the next page is its too.
    paged: HashSet<PathBuf>,
    open: Option<(PathBuf, File)>,
    /// Unlogged relations: their main forks start as copies of their init forks.
    unlogged: BTreeSet<(Oid, Oid, Oid)>,
    /// Forks of relations that may turn out to be unlogged: sizes wait for the end.
    sizes: Vec<(RelTag, Fork, u32)>,
}

impl<'a> Files<'a> {
    fn new(root: &'a Path, owner: &'a Owner) -> Files<'a> {
        let (directories, paged, unlogged) = (BTreeSet::new(), HashSet::new(), BTreeSet::new());
        Files { root, owner, directories, paged, open: None, unlogged, sizes: Vec::new() }
    }

    fn write(&mut self, item: &Item<'_>) -> Result<()> {
        match *item {
            Item::Control(_) => Ok(()),
            Item::Tablespace(oid) => self.directory(&tablespace_directory(oid)).map(drop),
            Item::Database { tablespace, database, version } => {
                let directory = self.directory(&database_directory(tablespace, database))?;
                self.file(&directory.join("PG_VERSION"), version)
            }
            Item::RelMap { tablespace, database, map } => {
                let directory = self.directory(&database_directory(tablespace, database))?;
                self.file(&directory.join("pg_filenode.map"), map)
            }
            // Free space maps start empty: what WAL holds of them is stale, and Postgres 15 trusts them.
            Item::RelSize { fork: Fork::Fsm, .. } => Ok(()),
            Item::RelSize { rel, fork, blocks } => {
                if fork == Fork::Init {
                    self.unlogged.insert((rel.tablespace, rel.database, rel.relation));
                }
                self.sizes.push((rel, fork, blocks));
                Ok(())
            }
            // What an unlogged relation had is gone with its server; sizes, and with them init forks, come before pages.
            Item::RelPages { rel, fork, .. } if fork != Fork::Init && self.is_unlogged(rel) => Ok(()),
            Item::RelPages { rel, fork, block, pages } => {
                for (index, page) in pages.chunks_exact(PAGE_SIZE).enumerate() {
                    let block = block.0.checked_add(index as u32).map(BlockNumber).ok_or_else(|| too_large(rel))?;
                    // Files begin sparse and stay so.
                    if page.iter().any(|byte| *byte != 0) {
                        let path = self.relation_path(rel, fork, block.0 / SEGMENT_BLOCKS)?;
                        self.page(path, block.0 % SEGMENT_BLOCKS, page)?;
                    }
                }
                Ok(())
            }
            Item::SlruPages { slru, page, pages } => {
                for (index, bytes) in pages.chunks_exact(PAGE_SIZE).enumerate() {
                    let page = page.wrapping_add(index as u32);
                    let segment = format!("{:04X}", page / SLRU_PAGES_PER_SEGMENT);
                    let path = self.root.join(slru.directory()).join(segment);
                    self.page(path, page % SLRU_PAGES_PER_SEGMENT, bytes)?;
                }
                Ok(())
            }
            Item::TwoPhase { xid, state } => {
                // The file ends with the CRC-32C of what is before it (EndPrepare and RecreateTwoPhaseFile, twophase.c).
                let crc = ironpage_layout::crc::crc32c(state).to_le_bytes();
                self.file(&self.root.join("pg_twophase").join(format!("{xid:08X}")), &[state, &crc].concat())
            }
        }
    }

    /// Makes the relation files: of their size, with the blocks that came, and those of unlogged relations as after a crash.
    fn finish(mut self) -> Result<()> {
        for (rel, fork, blocks) in std::mem::take(&mut self.sizes) {
            match fork {
                Fork::Init => {
                    self.sized(rel, Fork::Init, blocks)?;
                    self.copy_init(rel, blocks)?;
                }
                _ if self.is_unlogged(rel) => {}
                _ => self.sized(rel, fork, blocks)?,
            }
        }
        Ok(())
    }

    fn sized(&mut self, rel: RelTag, fork: Fork, blocks: u32) -> Result<()> {
        let segments = blocks.div_ceil(SEGMENT_BLOCKS).max(1);
        for segment in 0..segments {
            let here = (blocks - segment * SEGMENT_BLOCKS).min(SEGMENT_BLOCKS);
            let path = self.relation_path(rel, fork, segment)?;
            let file = match self.paged.contains(&path) {
                true => File::options().write(true).open(&path).at("open", &path)?,
                false => self.owner.create_file(&path)?,
            };
            file.set_len(u64::from(here) * PAGE_SIZE as u64).at("set the size of", &path)?;
        }
        Ok(())
    }

    /// What crash recovery would do (ResetUnloggedRelations, reinit.c); a start that looks shut down leaves it out.
    fn copy_init(&mut self, rel: RelTag, blocks: u32) -> Result<()> {
        for segment in 0..blocks.div_ceil(SEGMENT_BLOCKS).max(1) {
            let from = self.relation_path(rel, Fork::Init, segment)?;
            let to = self.relation_path(rel, Fork::Main, segment)?;
            let mut source = File::open(&from).at("open", &from)?;
            let mut target = self.owner.create_file(&to)?;
            io::copy(&mut source, &mut target).at("copy an init fork to", &to)?;
        }
        Ok(())
    }

    fn page(&mut self, path: PathBuf, index: u32, page: &[u8]) -> Result<()> {
        let file = match self.open.take() {
            Some((open, file)) if open == path => file,
            _ if self.paged.contains(&path) => File::options().write(true).open(&path).at("open", &path)?,
            _ => {
                self.paged.insert(path.clone());
                self.owner.create_file(&path)?
            }
        };
        file.write_all_at(page, u64::from(index) * PAGE_SIZE as u64).at("write", &path)?;
        self.open = Some((path, file));
        Ok(())
    }

    fn is_unlogged(&self, rel: RelTag) -> bool {
        self.unlogged.contains(&(rel.tablespace, rel.database, rel.relation))
    }

    fn file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.owner.create_file(path)?.write_all(bytes).at("write", path)
    }

    /// The directory of that name below the root, made with those above it.
    fn directory(&mut self, relative: &Path) -> Result<PathBuf> {
        let mut path = self.root.to_path_buf();
        for part in relative.components() {
            path.push(part);
            if !self.directories.contains(&path) {
                self.owner.create_dir(&path)?;
                self.directories.insert(path.clone());
            }
        }
        Ok(path)
    }

    fn relation_path(&mut self, rel: RelTag, fork: Fork, segment: u32) -> Result<PathBuf> {
        let directory = self.directory(&database_directory(rel.tablespace, rel.database))?;
        let name = format!("{}{}", rel.relation, fork.suffix());
        Ok(directory.join(if segment == 0 { name } else { format!("{name}.{segment}") }))
    }
}

fn too_large(rel: RelTag) -> Error {
    Error::Endpoint(format!("the base backup has pages of relation {rel} beyond the largest block number"))
}

fn tablespace_directory(oid: Oid) -> PathBuf {
    match oid {
        GLOBAL_TABLESPACE => "global".into(),
        DEFAULT_TABLESPACE => "base".into(),
        oid => Path::new("pg_tblspc").join(oid.to_string()).join(TABLESPACE_VERSION_DIRECTORY),
    }
}

/// GetDatabasePath (common/relpath.c), but a tablespace is always a directory inside the endpoint.
fn database_directory(tablespace: Oid, database: Oid) -> PathBuf {
    match tablespace {
        GLOBAL_TABLESPACE => "global".into(),
        _ => tablespace_directory(tablespace).join(database.to_string()),
    }
}

/// Directories initdb makes (initdb.c, `subdirs`), and archive_status.
pub const DIRECTORIES: [&str; 22] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

/// The empty tree of a data directory, with its version file.
pub fn create_tree(data_dir: &DataDir) -> Result<()> {
    let (root, owner) = (&data_dir.path, &data_dir.owner);
    fs::create_dir_all(root.parent().unwrap_or(Path::new("/"))).at("create directory", root)?;
    owner.create_dir(root)?;
    for directory in DIRECTORIES {
        owner.create_dir(&root.join(directory))?;
    }
    let version = root.join("PG_VERSION");
    owner.create_file(&version)?.write_all(b"15\n").at("write", &version)
}
