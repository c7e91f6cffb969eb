//! A database cluster as initdb makes it, kept for one server version, and its way into a new branch.

use crate::client::Identity;
use crate::cluster::{Branch, Cluster};
use crate::error::{AtPath, Error, Result};
use crate::files;
use crate::import::{self, DataDirectory};
use crate::programs::{Programs, server_version};
use crate::progress;
use crate::safekeeper::{self, Start};
use crate::user::Owner;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// An initdb'd directory that was shut down cleanly.
#[derive(Clone, PartialEq, Debug)]
pub struct Template {
    pub directory: DataDirectory,
    pub postgres_version: u32,
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
        Ok(Template { directory: DataDirectory::open(&dir)?, postgres_version: version })
    }

    pub fn system_id(&self) -> u64 {
        self.directory.system_id()
    }

    /// Makes the branch from this template at all safekeepers and the pageserver. Safe to repeat.
    pub fn create_branch(&self, cluster: &Cluster, branch: &Branch) -> Result<()> {
        if branch.system_id != self.system_id() {
            let why =
                format!("branch '{}' was begun from another template (system identifier {})", branch.name, branch.system_id);
            return Err(Error::Damaged { path: self.directory.dir.clone(), why });
        }
        let identity = Identity {
            tenant: cluster.settings.tenant,
            timeline: branch.id,
            system_id: branch.system_id,
            postgres_version: branch.postgres_version,
        };
        // It starts with its segment: there is no WAL before.
        let start = Start { lsn: self.directory.start_lsn, prev_record_lsn: self.directory.prev_record_lsn };
        for peer in cluster.safekeepers() {
            safekeeper::create_timeline(&peer, identity, &branch.name, start, &[])?;
        }
        import::timeline(&cluster.pageserver(), identity, &branch.name, &self.directory).map(drop)
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
