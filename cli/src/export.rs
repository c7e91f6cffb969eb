//! `ironpage export`: a branch as a data directory that a stock Postgres starts with, and nothing of ours in it.
//!
//! A snapshot of the branch holds the moment still while its pages are fetched. The directory looks as if its server had
//! shut down: its WAL is one checkpoint at the start of the next segment, which needs none of the WAL before it.
//! Tablespaces become directories beside it, with links as a server makes them.

use crate::api::{At, Kind, NewBranch, Reach};
use crate::cluster::{Cluster, random};
use crate::endpoint::basebackup::{self, Received};
use crate::endpoint::paths::DataDir;
use crate::error::{AtPath, Error, Result};
use crate::files;
use crate::place::Place;
use crate::programs::Programs;
use crate::progress;
use crate::sys;
use crate::template::Template;
use crate::user::Owner;
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::wal::checkpoint::CheckpointWal;
use ironpage_layout::{Lsn, Oid};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use zerocopy::little_endian::I64;

/// A snapshot that an export could not remove, because it was killed, goes away after this.
const SNAPSHOT_SECONDS: u64 = 24 * 3600;

/// What `ironpage export` was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    pub tenant: &'a str,
    pub branch: &'a str,
    /// The branch's head if none.
    pub at: Option<At>,
    pub out: &'a Path,
}

pub fn export(cluster: &Cluster, request: Request<'_>) -> Result<()> {
    let programs = Programs::find()?;
    let owner = Owner::of_postgres()?;
    let template = Template::of(cluster, &programs, &owner)?;
    let target = Target::prepare(request.out, owner)?;
    let exported = snapshot_of(cluster, request).and_then(|snapshot| {
        let place = Place::find(cluster, request.tenant, &snapshot.name)?;
        progress::line(&format!("exporting branch '{}' at {} to {}", request.branch, snapshot.lsn, target.dir.path.display()));
        target.write(cluster, &place, snapshot.lsn, &template)
    });
    if exported.is_err() {
        // The failure is the one to tell.
        let _ = target.remove();
    }
    exported?.lines(&target).iter().for_each(|line| progress::line(line));
    println!("{}", target.dir.path.display());
    Ok(())
}

/// The moment that is exported, held until dropped.
struct Snapshot<'a> {
    cluster: &'a Cluster,
    tenant: &'a str,
    name: String,
    lsn: Lsn,
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.api().delete_branch(self.tenant, &self.name, Reach::Alone) {
            progress::line(&format!("snapshot '{}' stays until it expires: {error}", self.name));
        }
    }
}

fn snapshot_of<'a>(cluster: &'a Cluster, request: Request<'a>) -> Result<Snapshot<'a>> {
    let mut unique = [0; 6];
    random(&mut unique)?;
    let name = format!("export-{}", unique.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let new = NewBranch {
        name: name.clone(),
        from: request.branch.to_string(),
        at: request.at,
        ttl_seconds: Some(SNAPSHOT_SECONDS),
        kind: Kind::Snapshot,
    };
    let created = cluster.api().create_branch(request.tenant, &new)?;
    if created.rounded {
        progress::line(&format!("no record ends there; the last one before ends at {}", created.lsn));
    }
    Ok(Snapshot { cluster, tenant: request.tenant, name, lsn: created.lsn })
}

/// Where it goes: a new or empty directory, and one beside it if there are tablespaces.
struct Target {
    dir: DataDir,
    tablespaces: PathBuf,
    /// Whether the directory was there before.
    was_there: bool,
}

/// What came of it.
struct Exported {
    tablespaces: Vec<Oid>,
    prepared: usize,
}

impl Target {
    fn prepare(out: &Path, owner: Owner) -> Result<Target> {
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = out.file_name().ok_or_else(|| Error::Refused(format!("{} names no directory to make", out.display())))?;
        // Links to tablespaces are absolute.
        let path = fs::canonicalize(parent).at("find", parent)?.join(name);
        let mut beside = path.clone().into_os_string();
        beside.push("_tablespaces");
        let tablespaces = PathBuf::from(beside);
        for path in [&path, &tablespaces] {
            if !is_empty(path)? {
                let why =
                    format!("{} is there and not empty: an export writes a new directory, name another place", path.display());
                return Err(Error::Refused(why));
            }
        }
        let was_there = path.is_dir();
        if let Some((uid, gid)) = owner.ids().filter(|_| was_there) {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).at("change the owner of", &path)?;
        }
        if was_there {
            // A server refuses a data directory that others may read (checkDataDir, miscinit.c).
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(&path, mode).at("change the mode of", &path)?;
        }
        Ok(Target { dir: DataDir { path, owner }, tablespaces, was_there })
    }

    fn write(&self, cluster: &Cluster, place: &Place, lsn: Lsn, template: &Template) -> Result<Exported> {
        basebackup::create_tree(&self.dir)?;
        let received = basebackup::fetch_all_pages(&cluster.pageserver(), place.identity(), lsn, &self.dir)?;
        let tablespaces = self.move_tablespaces()?;
        let prepared = fs::read_dir(self.dir.path.join("pg_twophase")).at("list", &self.dir.path)?.count();
        self.write_control(&received, lsn, place.branch.system_id)?;
        self.write_configuration(template, prepared)?;
        for path in [Some(&self.dir.path), (!tablespaces.is_empty()).then_some(&self.tablespaces)].into_iter().flatten() {
            sys::sync_file_system(path).at("sync", path)?;
        }
        Ok(Exported { tablespaces, prepared })
    }

    /// Tablespaces are directories inside an endpoint; a stock server has them elsewhere and links to them.
    fn move_tablespaces(&self) -> Result<Vec<Oid>> {
        let links = self.dir.path.join("pg_tblspc");
        let mut moved = Vec::new();
        for entry in fs::read_dir(&links).at("list", &links)? {
            let entry = entry.at("list", &links)?;
            let Some(oid) = entry.file_name().to_str().and_then(|name| name.parse::<Oid>().ok()) else { continue };
            self.dir.owner.create_dir(&self.tablespaces)?;
            let target = self.tablespaces.join(oid.to_string());
            fs::rename(entry.path(), &target).at("move", &entry.path())?;
            symlink(&target, entry.path()).at("create the link", &entry.path())?;
            if let Some((uid, gid)) = self.dir.owner.ids() {
                lchown(entry.path(), Some(uid), Some(gid)).at("change the owner of", &entry.path())?;
            }
            moved.push(oid);
        }
        moved.sort_unstable();
        Ok(moved)
    }

    /// A shutdown checkpoint in the segment after `lsn`, and the pg_control that names it.
    fn write_control(&self, received: &Received, lsn: Lsn, system_id: u64) -> Result<()> {
        let control = ControlFile::read(&received.control)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let mut checkpoint = control.checkpoint_copy;
        checkpoint.time = I64::new(now);
        // As a server has it that nobody told otherwise.
        checkpoint.full_page_writes = 1;
        let at = Lsn(lsn.0 - 1).segment_start() + WAL_SEGMENT_SIZE;
        let wal = CheckpointWal::fabricate(at, received.prev_record_lsn, &checkpoint, system_id, &[])
            .map_err(|error| Error::Endpoint(format!("cannot end the WAL at {at}: {error}")))?;
        for (name, bytes) in wal.files() {
            self.file(&Path::new("pg_wal").join(name), bytes)?;
        }
        self.file(Path::new("global/pg_control"), &wal.control(&control).to_file())
    }

    /// What initdb writes; an endpoint's settings are about the endpoint.
    fn write_configuration(&self, template: &Template, prepared: usize) -> Result<()> {
        for name in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"] {
            let path = template.directory.dir.join(name);
            let mut text = fs::read(&path).at("read", &path)?;
            if name == "postgresql.auto.conf" && prepared > 0 {
                // Without it a server with prepared transactions does not start.
                text.extend_from_slice(format!("max_prepared_transactions = '{}'\n", prepared.max(64)).as_bytes());
            }
            self.file(Path::new(name), &text)?;
        }
        Ok(())
    }

    fn file(&self, name: &Path, bytes: &[u8]) -> Result<()> {
        let path = self.dir.path.join(name);
        self.dir.owner.create_file(&path)?.write_all(bytes).at("write", &path)
    }

    /// Removes what an export left that failed.
    fn remove(&self) -> Result<()> {
        files::remove_if_there(&self.tablespaces)?;
        if !self.was_there {
            return files::remove_if_there(&self.dir.path);
        }
        for entry in fs::read_dir(&self.dir.path).at("list", &self.dir.path)? {
            files::remove_if_there(&entry.at("list", &self.dir.path)?.path())?;
        }
        Ok(())
    }
}

impl Exported {
    fn lines(&self, target: &Target) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.tablespaces.is_empty() {
            let dir = target.tablespaces.display();
            lines.push(format!("tablespaces are in {dir}: who moves them changes the links in pg_tblspc"));
        }
        if self.prepared > 0 {
            lines.push(format!("prepared transactions: {}, and max_prepared_transactions is set for them", self.prepared));
        }
        lines.push("settings are initdb's: pg_hba.conf trusts this machine, and nothing of ALTER SYSTEM is taken over".into());
        lines.push(format!("start it with `pg_ctl start -D {}`, as user {}", target.dir.path.display(), target.dir.owner.name));
        lines
    }
}

/// No such directory, or nothing in it.
fn is_empty(path: &Path) -> Result<bool> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        listed => Ok(listed.at("list", path)?.next().is_none()),
    }
}
