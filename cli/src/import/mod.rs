//! Stock Postgres into a tenant's first branch: a data directory that was shut down cleanly, streamed to the pageserver
//! item by item. Whatever else can be imported becomes such a directory first; so does the template of `ironpage up`.

mod archive;
mod data_dir;
mod relation_file;
mod replication;
mod scratch;
mod sender;
mod walk;

pub use data_dir::DataDirectory;
pub use walk::Report;

use crate::api::{Reach, Tenant};
use crate::client::{Identity, Peer};
use crate::cluster::{Cluster, check_name, random};
use crate::error::{Error, Result};
use crate::programs::{self, Programs};
use crate::progress;
use crate::user::Owner;
use archive::Archive;
use data_dir::{is_unrecovered_backup, refuse};
use ironpage_layout::wire::admin::{KIND_BRANCH, TimelineCreate};
use ironpage_layout::{Lsn, TimelineId};
use replication::Server;
use scratch::Scratch;
use sender::Sender;
use std::path::Path;

/// What `ironpage import` was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// A directory, a tar, or the URL of a server.
    pub source: &'a str,
    pub tenant: &'a str,
    pub branch: &'a str,
    /// Where copies are made; beside the endpoints' data directories if none.
    pub scratch: Option<&'a Path>,
}

/// `ironpage import`.
pub fn import(cluster: &Cluster, request: Request<'_>) -> Result<()> {
    check_name(request.tenant)?;
    check_name(request.branch)?;
    let programs = Programs::find()?;
    // Before anything is copied: what cannot become a branch is said at once.
    let api = cluster.api();
    let known = api.find_tenant(request.tenant)?;
    if api.find_branch(request.tenant, request.branch)?.is_some() {
        return Err(Error::Refused(format!(
            "tenant '{}' has a branch '{}' already: choose another name with --tenant or --branch",
            request.tenant, request.branch
        )));
    }
    let prepared = Prepared::from(cluster, &programs, request)?;
    let (tenant, is_new) = match known {
        Some(tenant) => (tenant, false),
        None => (api.create_tenant(request.tenant, None)?, true),
    };
    let imported = prepared.import(cluster, &programs, &tenant, request);
    if imported.is_err() && is_new {
        // Nobody has seen it. The failure is the one to tell.
        let _ = api.delete_tenant(request.tenant, Reach::Alone);
    }
    imported?.lines().iter().for_each(|line| progress::line(line));
    Ok(())
}

/// What can be streamed, and the copy it may lie in, which goes with it.
struct Prepared {
    directory: DataDirectory,
    scratch: Option<Scratch>,
}

impl Prepared {
    fn from(cluster: &Cluster, programs: &Programs, request: Request<'_>) -> Result<Prepared> {
        let path = Path::new(request.source);
        let copied = |fill: &dyn Fn(&Scratch) -> Result<()>| {
            let owner = Owner::of_postgres()?;
            let parent = request.scratch.unwrap_or(&cluster.settings.compute_dir);
            if !owner.can_enter(parent) {
                let way_out = "name a place with `--scratch DIR` that this user can reach";
                let why = format!("user {}, whom Postgres runs as, cannot enter {}", owner.name, parent.display());
                return Err(refuse(path, why, way_out));
            }
            let mut scratch = Scratch::create(parent, &owner)?;
            fill(&scratch)?;
            if is_unrecovered_backup(&scratch.data()) {
                scratch.recover(programs, path, &cluster.logs().join("import.log"))?;
            }
            let directory = DataDirectory::open(&scratch.data()).map_err(|error| named(error, path))?;
            Ok(Prepared { directory, scratch: Some(scratch) })
        };
        let parent = request.scratch.unwrap_or(&cluster.settings.compute_dir);
        if let Some(server) = Server::parse(request.source) {
            return copied(&|scratch| server.back_up(programs, scratch));
        }
        if !path.join("PG_VERSION").is_file()
            && let Some(archive) = Archive::find(path)?
        {
            scratch::check_space(archive.unpacked_size()?, parent, path)?;
            return copied(&|scratch| archive.unpack(scratch));
        }
        if is_unrecovered_backup(path) {
            data_dir::check(path)?;
            progress::line(&format!("{} is a base backup that no server has recovered: a copy of it will be", path.display()));
            scratch::check_space(scratch::size_of(path)?, parent, path)?;
            return copied(&|scratch| scratch::copy(path, scratch));
        }
        Ok(Prepared { directory: DataDirectory::open(path)?, scratch: None })
    }

    fn import(self, cluster: &Cluster, programs: &Programs, tenant: &Tenant, request: Request<'_>) -> Result<Report> {
        let mut id = TimelineId::default();
        random(&mut id.0)?;
        let identity = Identity {
            tenant: tenant.id,
            timeline: id,
            system_id: self.directory.system_id(),
            postgres_version: programs::server_version(&programs.postgres_bindir)?,
        };
        progress::line(&format!(
            "importing {} into branch '{}' of tenant '{}'",
            request.source_shown(),
            request.branch,
            tenant.name
        ));
        let mut report = timeline(&cluster.pageserver(), identity, request.branch, &self.directory)?;
        report.slots.extend(self.scratch.iter().flat_map(|scratch| scratch.slots.iter().cloned()));
        Ok(report)
    }
}

impl Request<'_> {
    /// The source without a password.
    fn source_shown(&self) -> String {
        Server::parse(self.source).map_or(self.source.to_string(), |server| server.name().display().to_string())
    }
}

/// The error of a copy, told of what it is a copy of.
fn named(error: Error, source: &Path) -> Error {
    match error {
        Error::NotImportable { why, way_out, .. } => refuse(source, why, way_out),
        other => other,
    }
}

/// Makes a timeline out of `source`, durable and known under `name` when this returns. Safe to repeat.
pub fn timeline(peer: &Peer, identity: Identity, name: &str, source: &DataDirectory) -> Result<Report> {
    let create = TimelineCreate {
        tenant: identity.tenant,
        timeline: identity.timeline,
        start_lsn: source.start_lsn,
        prev_record_lsn: source.prev_record_lsn,
        system_id: identity.system_id,
        postgres_version: identity.postgres_version,
        name: name.to_string(),
        readable_lsn: Lsn::INVALID,
        kind: KIND_BRANCH,
        prefix_length: 0,
    };
    let mut sender = Sender::begin(peer, identity, &create, walk::size_of(source)?)?;
    let report = walk::send(source, &mut sender)?;
    source.check_unchanged()?;
    sender.finish()?;
    Ok(report)
}
