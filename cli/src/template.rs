//! A database cluster as initdb makes it, kept for one server version, and its way into a new branch.

use crate::client::{Client, Identity, Peer};
use crate::cluster::{Branch, Cluster};
use crate::error::{AtPath, Error, Result};
use crate::files;
use crate::programs::{Programs, server_version};
use crate::progress;
use crate::safekeeper::{self, Start};
use crate::user::Owner;
use ironpage_layout::key::{SLRU_PAGES_PER_SEGMENT, SlruKind};
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use ironpage_layout::postgres::control::{ControlFile, state};
use ironpage_layout::postgres::wal::{Next, Verify, WalError, WalStream};
use ironpage_layout::rel::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PAGE_SIZE, SEGMENT_BLOCKS};
use ironpage_layout::wire::admin::{ImportEnd, TimelineCreate};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{Kind, MAX_WAL_CHUNK};
use ironpage_layout::{BlockNumber, Fork, Lsn, Oid, RelTag, Term};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use zerocopy::little_endian::U64;

/// How long a daemon may take to make a timeline durable.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);

/// An initdb'd directory that was shut down cleanly.
#[derive(Clone, PartialEq, Debug)]
pub struct Template {
    dir: PathBuf,
    control: ControlFile,
    pub postgres_version: u32,
    /// Start and end of its last record, the shutdown checkpoint.
    prev_record_lsn: Lsn,
    start_lsn: Lsn,
}

impl Template {
    /// The template of the installed server, made now if there is none yet.
    pub fn of(cluster: &Cluster, programs: &Programs, owner: &Owner) -> Result<Template> {
        let version = server_version(&programs.postgres_bindir)?;
        let parent = cluster.settings.compute_dir.join("template");
        let dir = parent.join(version.to_string());
        if !dir.is_dir() {
            progress::line("template: initdb, once for this cluster and server version");
            owner.create_dir(&parent)?;
            let unfinished = parent.join(format!("{version}.unfinished"));
            files::remove_if_there(&unfinished)?;
            initdb(programs, owner, &unfinished, &cluster.logs().join("initdb.log"))?;
            fs::rename(&unfinished, &dir).at("rename", &unfinished)?;
        }
        Template::read(&dir, version)
    }

    fn read(dir: &Path, postgres_version: u32) -> Result<Template> {
        let path = dir.join("global/pg_control");
        let control = ControlFile::read(&fs::read(&path).at("read", &path)?)?;
        let damaged = |why: String| Error::Damaged { path: dir.to_path_buf(), why };
        if control.state.get() != state::SHUTDOWNED {
            return Err(damaged("its server was not shut down cleanly".into()));
        }
        let prev_record_lsn = Lsn(control.checkpoint.get());
        let mut stream = WalStream::new(prev_record_lsn, Verify::Crc);
        let from = stream.position();
        let wal = read_wal(dir, from, from.segment_start() + WAL_SEGMENT_SIZE)?;
        let broken = |error: WalError| damaged(error.to_string());
        stream.feed(from, &wal).map_err(broken)?;
        match stream.next_record().map_err(broken)? {
            Next::Record(record) => {
                let start_lsn = record.end;
                Ok(Template { dir: dir.to_path_buf(), control, postgres_version, prev_record_lsn, start_lsn })
            }
            _ => Err(damaged("its last checkpoint is not in its WAL".into())),
        }
    }

    pub fn system_id(&self) -> u64 {
        self.control.system_id.get()
    }

    fn creation(&self, cluster: &Cluster, branch: &Branch) -> TimelineCreate {
        TimelineCreate {
            tenant: cluster.settings.tenant,
            timeline: branch.id,
            start_lsn: self.start_lsn,
            prev_record_lsn: self.prev_record_lsn,
            system_id: branch.system_id,
            postgres_version: branch.postgres_version,
            name: branch.name.clone(),
            readable_lsn: Lsn::INVALID,
            kind: 0,
            prefix_length: 0,
        }
    }

    /// Makes the branch from this template at all safekeepers and the pageserver. Safe to repeat.
    pub fn create_branch(&self, cluster: &Cluster, branch: &Branch) -> Result<()> {
        if branch.system_id != self.system_id() {
            let why =
                format!("branch '{}' was begun from another template (system identifier {})", branch.name, branch.system_id);
            return Err(Error::Damaged { path: self.dir.clone(), why });
        }
        let identity = Identity {
            tenant: cluster.settings.tenant,
            timeline: branch.id,
            system_id: branch.system_id,
            postgres_version: branch.postgres_version,
        };
        let start = Start { lsn: self.start_lsn, prev_record_lsn: self.prev_record_lsn };
        let wal = read_wal(&self.dir, start.lsn.segment_start(), start.lsn)?;
        for peer in cluster.safekeepers() {
            safekeeper::create_timeline(&peer, identity, &branch.name, start, &wal)?;
        }
        self.import(&cluster.pageserver(), identity, &self.creation(cluster, branch))
    }

    fn import(&self, peer: &Peer, identity: Identity, create: &TimelineCreate) -> Result<()> {
        let client = Client::connect(peer, Role::Admin, identity, CREATE_TIMEOUT)?;
        let mut import = Import { client, items: 0 };
        import.client.send(Kind::TimelineCreate, 1, Term(0), |out| create.encode(out))?;
        import.item(&Item::Control(&self.control.to_bytes()))?;
        import.directory(&self.dir.join("global"), GLOBAL_TABLESPACE, 0)?;
        let base = self.dir.join("base");
        for (path, name) in entries(&base)? {
            if let Ok(database) = name.parse() {
                import.directory(&path, DEFAULT_TABLESPACE, database)?;
            }
        }
        for slru in SlruKind::ALL {
            import.slru(&self.dir.join(slru.directory()), slru)?;
        }
        let items = import.items;
        import
            .client
            .send(Kind::ImportEnd, 1, Term(0), |out| ImportEnd { items: U64::new(items), readable_lsn: U64::ZERO }.encode(out))?;
        import.client.expect(Kind::TimelineCreated, "TimelineCreated").map(drop)
    }
}

fn initdb(programs: &Programs, owner: &Owner, dir: &Path, log: &Path) -> Result<()> {
    owner.create_dir(dir)?;
    let output = File::create(log).at("create", log)?;
    let errors = output.try_clone().at("open", log)?;
    let program = programs.postgres("initdb");
    let mut command = Command::new(&program);
    command.arg("-D").arg(dir).args(["-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust"]);
    command.current_dir("/").stdin(Stdio::null()).stdout(output).stderr(errors);
    let status = owner.run_as(&mut command).status().map_err(|source| Error::Program { program, source })?;
    if !status.success() {
        let tail = crate::error::log_tail(log);
        return Err(Error::DiedAtStart { name: "initdb".into(), status: status.to_string(), log: log.to_path_buf(), tail });
    }
    Ok(())
}

/// WAL of the template, within one segment.
fn read_wal(dir: &Path, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    let path = dir.join("pg_wal").join(from.segment_file_name());
    let file = File::open(&path).at("open", &path)?;
    let mut bytes = vec![0; until.since(from) as usize];
    file.read_exact_at(&mut bytes, from.segment_offset()).at("read", &path)?;
    Ok(bytes)
}

/// Entries of a directory by name, sorted: imports of one template are alike. None if there is no such directory.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
    }
    found.sort();
    Ok(found)
}

/// An import under way.
struct Import {
    client: Client,
    items: u64,
}

impl Import {
    fn item(&mut self, item: &Item<'_>) -> Result<()> {
        self.items += 1;
        self.client.send(Kind::ImportItem, 1, Term(0), |out| item.encode(out))
    }

    /// A database's directory, or global/ as database 0.
    fn directory(&mut self, dir: &Path, tablespace: Oid, database: Oid) -> Result<()> {
        let entries = entries(dir)?;
        for (path, name) in &entries {
            match name.as_str() {
                "PG_VERSION" => {
                    let version = fs::read(path).at("read", path)?;
                    self.item(&Item::Database { tablespace, database, version: &version })?;
                }
                "pg_filenode.map" => {
                    let map = fs::read(path).at("read", path)?;
                    self.item(&Item::RelMap { tablespace, database, map: &map })?;
                }
                _ => {}
            }
        }
        for (path, name) in &entries {
            if let Some((relation, fork)) = first_segment(name).filter(|(_, fork)| *fork != Fork::Fsm) {
                self.relation(path, RelTag { tablespace, database, relation }, fork)?;
            }
        }
        Ok(())
    }

    fn relation(&mut self, path: &Path, rel: RelTag, fork: Fork) -> Result<()> {
        let bytes = fs::read(path).at("read", path)?;
        let blocks = bytes.len() / PAGE_SIZE;
        // A template's relations are small; a second segment would be over 1 GiB.
        if !bytes.len().is_multiple_of(PAGE_SIZE) || blocks >= SEGMENT_BLOCKS as usize {
            let why = format!("{} bytes are no size of a relation in a template", bytes.len());
            return Err(Error::Damaged { path: path.to_path_buf(), why });
        }
        self.item(&Item::RelSize { rel, fork, blocks: blocks as u32 })?;
        for (index, pages) in bytes.chunks(MAX_WAL_CHUNK).enumerate() {
            let block = BlockNumber((index * (MAX_WAL_CHUNK / PAGE_SIZE)) as u32);
            self.item(&Item::RelPages { rel, fork, block, pages })?;
        }
        Ok(())
    }

    fn slru(&mut self, dir: &Path, slru: SlruKind) -> Result<()> {
        for (path, name) in entries(dir)? {
            let Some(segment) = u32::from_str_radix(&name, 16).ok().filter(|_| name.len() >= 4) else { continue };
            let pages = fs::read(&path).at("read", &path)?;
            if !pages.is_empty() {
                self.item(&Item::SlruPages { slru, page: segment * SLRU_PAGES_PER_SEGMENT, pages: &pages })?;
            }
        }
        Ok(())
    }
}

/// Relation and fork of a relation file's name, if it is one and its first segment.
fn first_segment(name: &str) -> Option<(Oid, Fork)> {
    let (relation, suffix) = name.split_at(name.find('_').unwrap_or(name.len()));
    let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == suffix)?;
    Some((relation.parse().ok()?, fork))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_told_from_the_rest() {
        assert_eq!(first_segment("1259"), Some((1259, Fork::Main)));
        assert_eq!(first_segment("1259_vm"), Some((1259, Fork::Vm)));
        assert_eq!(first_segment("1259_fsm"), Some((1259, Fork::Fsm)));
        assert_eq!(first_segment("1259_init"), Some((1259, Fork::Init)));
        for other in ["1259.1", "1259_xy", "pg_internal.init", "PG_VERSION", "t3_16384", ""] {
            assert_eq!(first_segment(other), None, "{other}");
        }
    }
}
