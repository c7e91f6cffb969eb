//! A copy of a data directory that a stock Postgres brings to consistency: base backups become importable there.
//!
//! ```text
//! PARENT/ironpage-import-PID/
//!     data/               the data directory; pg_tblspc links to the next
//!     tablespaces/OID/
//!     conf/               settings of ours: those of the copy may load libraries, archive, or listen
//! ```

use super::data_dir::refuse;
use crate::error::{AtPath, Error, Result, log_tail};
use crate::files;
use crate::process::Process;
use crate::programs::Programs;
use crate::progress;
use crate::sys;
use crate::user::Owner;
use ironpage_layout::Oid;
use ironpage_layout::postgres::control::ControlFile;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Nobody else's: whatever is called so is removed once its process is gone, and the place may be one with a user's own files.
const PREFIX: &str = "ironpage-import-";

/// The copy; removed when dropped.
pub struct Scratch {
    pub dir: PathBuf,
    pub owner: Owner,
    /// Replication slots that were in the copy: a server would keep WAL for them.
    pub slots: Vec<String>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = files::remove_if_there(&self.dir) {
            progress::line(&format!("the copy in {} could not be removed: {error}", self.dir.display()));
        }
    }
}

impl Scratch {
    /// An empty one in `parent`. What imports that were killed left there goes.
    pub fn create(parent: &Path, owner: &Owner) -> Result<Scratch> {
        for entry in fs::read_dir(parent).at("list", parent)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok());
            if pid.is_some_and(|pid| Process::of(pid).is_none()) {
                files::remove_if_there(&entry.path())?;
            }
        }
        let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
        let scratch = Scratch { dir, owner: owner.clone(), slots: Vec::new() };
        for dir in [scratch.dir.clone(), scratch.data(), scratch.tablespaces()] {
            owner.create_dir(&dir)?;
        }
        Ok(scratch)
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn tablespaces(&self) -> PathBuf {
        self.dir.join("tablespaces")
    }

    /// A tablespace's directory, made if it is not there.
    pub fn tablespace(&self, oid: Oid) -> Result<PathBuf> {
        let dir = self.tablespaces().join(oid.to_string());
        self.owner.create_dir(&dir)?;
        Ok(dir)
    }

    /// Links a tablespace of the copy to its directory here.
    pub fn link_tablespace(&self, oid: Oid) -> Result<()> {
        let (target, links) = (self.tablespace(oid)?, self.data().join("pg_tblspc"));
        self.owner.create_dir(&links)?;
        let link = links.join(oid.to_string());
        files::remove_if_there(&link)?;
        symlink(&target, &link).at("create the link", &link)?;
        self.owner.ids().map_or(Ok(()), |(uid, gid)| lchown(&link, Some(uid), Some(gid))).at("change the owner of", &link)
    }

    /// Has Postgres replay the backup's WAL and shut down. `what` is what the user named.
    pub fn recover(&mut self, programs: &Programs, what: &Path, log: &Path) -> Result<()> {
        let data = self.data();
        let path = data.join("global/pg_control");
        let control = ControlFile::read(&fs::read(&path).at("read", &path)?)
            .map_err(|error| refuse(what, error.to_string(), "only a backup of a stock Postgres 15 can be imported"))?;
        // A standby's settings, a server's own, and links to where the tablespaces are at its home.
        for name in ["standby.signal", "recovery.signal", "postgresql.auto.conf", "tablespace_map", "postmaster.pid"] {
            files::remove_if_there(&data.join(name))?;
        }
        for entry in fs::read_dir(data.join("pg_replslot")).into_iter().flatten().flatten() {
            self.slots.push(entry.file_name().to_string_lossy().into_owned());
            files::remove_if_there(&entry.path())?;
        }
        self.make_missing_directories()?;
        let settings = self.write_settings(&control)?;
        progress::line("recovering the copy with a Postgres of its own");
        let output = File::create(log).at("create", log)?;
        let errors = output.try_clone().at("open", log)?;
        let program = programs.postgres("postgres");
        let mut command = Command::new(&program);
        // One process without a socket, which shuts down at the end of its input (pg_rewind recovers a target so).
        command.args(["--single", "-D"]).arg(&data).arg("-c").arg(format!("config_file={}", settings.display()));
        command.arg("template1").current_dir("/").stdin(Stdio::null()).stdout(output).stderr(errors).env("LC_ALL", "C.UTF-8");
        self.owner.run_as(&mut command);
        sys::dies_with_us(&mut command, libc::SIGQUIT);
        let status = command.status().map_err(|source| Error::Program { program, source })?;
        if status.success() {
            return Ok(());
        }
        let why =
            format!("a server could not recover it ({status}). The end of its log, {}:\n{}\n", log.display(), log_tail(log));
        Err(refuse(what, why, "take the backup with its WAL (pg_basebackup -X stream or -X fetch), and whole"))
    }

    /// Empty directories that a tar may have left out.
    fn make_missing_directories(&self) -> Result<()> {
        for directory in crate::endpoint::basebackup::DIRECTORIES {
            self.owner.create_dir(&self.data().join(directory))?;
        }
        Ok(())
    }

    /// What replaying this server's WAL takes, and nothing else of its settings.
    fn write_settings(&self, control: &ControlFile) -> Result<PathBuf> {
        let dir = self.dir.join("conf");
        self.owner.create_dir(&dir)?;
        let on = |value: u8| if value != 0 { "on" } else { "off" };
        let settings = [
            ("listen_addresses", "''".to_string()),
            ("unix_socket_directories", "''".into()),
            ("shared_preload_libraries", "''".into()),
            ("archive_mode", "off".into()),
            ("hot_standby", "off".into()),
            ("fsync", "on".into()),
            ("max_wal_size", "4GB".into()),
            ("max_connections", control.max_connections.get().max(100).to_string()),
            ("max_worker_processes", control.max_worker_processes.get().max(8).to_string()),
            ("max_prepared_transactions", control.max_prepared_xacts.get().max(64).to_string()),
            ("max_locks_per_transaction", control.max_locks_per_xact.get().max(64).to_string()),
            ("track_commit_timestamp", on(control.track_commit_timestamp).into()),
            ("wal_log_hints", on(control.wal_log_hints).into()),
        ];
        let text: String = settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        for (name, text) in [("postgresql.conf", text.as_str()), ("pg_hba.conf", ""), ("pg_ident.conf", "")] {
            let path = dir.join(name);
            self.owner.create_file(&path)?.write_all(text.as_bytes()).at("write", &path)?;
        }
        Ok(dir.join("postgresql.conf"))
    }
}

/// Copies a data directory into the scratch, tablespaces included.
pub fn copy(from: &Path, scratch: &Scratch) -> Result<()> {
    copy_tree(from, &scratch.data(), scratch)
}

fn copy_tree(from: &Path, to: &Path, scratch: &Scratch) -> Result<()> {
    scratch.owner.create_dir(to)?;
    for entry in fs::read_dir(from).at("list", from)? {
        let entry = entry.at("list", from)?;
        let (path, name) = (entry.path(), entry.file_name());
        let link = fs::symlink_metadata(&path).at("look at", &path)?.is_symlink();
        let tablespace = name.to_str().and_then(|name| name.parse().ok()).filter(|_| to.ends_with("data/pg_tblspc"));
        match (fs::metadata(&path).at("look at", &path)?, tablespace) {
            (about, Some(oid)) if about.is_dir() => {
                copy_tree(&path, &scratch.tablespace(oid)?, scratch)?;
                scratch.link_tablespace(oid)?;
            }
            // Of links that Postgres makes there are only those of tablespaces and of pg_wal.
            (about, _) if about.is_dir() && (!link || name == "pg_wal") => copy_tree(&path, &to.join(&name), scratch)?,
            (about, _) if about.is_file() && !link => copy_file(&path, &to.join(&name), scratch)?,
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, scratch: &Scratch) -> Result<()> {
    let mut source = File::open(from).at("open", from)?;
    let mut target = scratch.owner.create_file(to)?;
    io::copy(&mut source, &mut target).map(drop).at("copy to", to)
}

/// Says how much is going to be copied, and refuses what does not fit.
pub fn check_space(bytes: u64, parent: &Path, what: &Path) -> Result<()> {
    let free = sys::free_space(parent).at("look for free space in", parent)?;
    let (needed, left) = (progress::bytes(bytes), progress::bytes(free));
    progress::line(&format!("needs {needed} in {} for a copy while it runs; {left} are free", parent.display()));
    if bytes <= free {
        return Ok(());
    }
    let why = format!("a copy needs {needed}, and {} has {left}", parent.display());
    Err(refuse(what, why, "free space there, or name another place with `--scratch DIR`"))
}

/// Bytes of all files of a directory, links followed.
pub fn size_of(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).at("list", dir)? {
        let path = entry.at("list", dir)?.path();
        let about = fs::metadata(&path).at("look at", &path)?;
        total += if about.is_dir() { size_of(&path)? } else { about.len() };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_killed_imports_left_is_removed() {
        let parent = std::env::temp_dir().join(format!("ironpage-scratch-{}", std::process::id()));
        // No process has such a number (PID_MAX_LIMIT, linux/threads.h).
        let (theirs, left) = (parent.join("import-20241101"), parent.join(format!("{PREFIX}20241101")));
        for dir in [&theirs, &left] {
            fs::create_dir_all(dir).unwrap();
        }
        let scratch = Scratch::create(&parent, &Owner::of_postgres().unwrap()).unwrap();
        assert!(theirs.is_dir() && !left.exists() && scratch.data().is_dir());
        drop(scratch);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);
        fs::remove_dir_all(parent).unwrap();
    }
}
