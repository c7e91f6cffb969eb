//! A database cluster as initdb makes it, kept for one server version, and its way into a new branch.

use crate::client::{Identity, Peer};
use crate::cluster::{Cluster, MAIN, random};
use crate::error::{AtPath, Error, Result};
use crate::files;
use crate::import::{self, DataDirectory};
use crate::moment;
use crate::programs::{Programs, server_version};
use crate::progress;
use crate::user::Owner;
use ironpage_layout::{TenantId, TimelineId};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use zerocopy::little_endian::U64;

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

    /// The template with a system identifier of its own, made as Postgres makes one (BootStrapXLOG, xlog.c): the time,
    /// with something that tells apart what was made at once. Only pg_control holds it: none of the template's WAL is kept.
    pub fn with_new_system_id(mut self) -> Result<Template> {
        let mut low = [0; 4];
        random(&mut low)?;
        let seconds = u64::try_from(moment::now() / 1_000_000).unwrap_or_default();
        self.directory.control.system_id = U64::new(seconds << 32 | u64::from(u32::from_le_bytes(low)));
        Ok(self)
    }

    /// Makes branch main of a tenant at the pageserver, durably.
    pub fn import_main(&self, pageserver: &Peer, tenant: TenantId) -> Result<()> {
        let mut timeline = TimelineId::default();
        random(&mut timeline.0)?;
        let identity = Identity { tenant, timeline, system_id: self.system_id(), postgres_version: self.postgres_version };
        import::timeline(pageserver, identity, MAIN, &self.directory).map(drop)
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
