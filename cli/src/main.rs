//! `ironpage`: clusters on this machine, their endpoints, and what they are doing.
// No part of a daemon: it blocks, and nothing simulates it.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports, reason = "its verbs follow")]
mod api;
mod client;
mod cluster;
mod connstr;
mod daemons;
mod destroy;
mod doctor;
mod down;
mod endpoint;
mod error;
mod export;
mod files;
mod import;
mod log;
mod place;
mod port;
mod process;
mod programs;
mod progress;
mod psql;
mod safekeeper;
mod status;
mod sys;
mod template;
mod up;
mod user;

use clap::{Parser, Subcommand};
use cluster::{Cluster, MAIN};
use endpoint::Stop;
use error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Disaggregated storage for a stock PostgreSQL, on this machine.
#[derive(Parser)]
#[command(name = "ironpage", version)]
struct Arguments {
    /// Directory of the cluster
    #[arg(long, global = true, default_value = "./.ironpage", value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start what is down: 3 safekeepers, 1 pageserver, endpoint main; the first time make the cluster
    Up {
        /// First of the cluster's ports; remembered [default: 25432]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        port_base: Option<u16>,
        /// Return when all is ready, instead of staying until Ctrl-C
        #[arg(long)]
        detach: bool,
    },
    /// Stop everything; data stays
    Down,
    /// Stop everything and delete all data
    Destroy,
    /// What runs, and how far each branch has come
    Status {
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// What this machine lacks, and the way out
    Doctor,
    /// Start, stop and list Postgres servers
    Endpoint {
        #[command(subcommand)]
        verb: EndpointVerb,
    },
    /// Make a tenant out of a stock Postgres 15
    Import {
        /// A data directory that was shut down, a base backup (a directory or base.tar), or postgres://USER@HOST
        #[arg(value_name = "DIR|TAR|postgres://...")]
        source: String,
        /// Made if there is none of that name
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[arg(long, value_name = "NAME", default_value = MAIN)]
        branch: String,
        /// Where a base backup is copied to and recovered [default: beside the endpoints' data directories]
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
    /// Write a branch as a data directory that a stock Postgres 15 starts with
    Export {
        branch: String,
        /// A directory that is new or empty; tablespaces go to OUT_tablespaces
        out: PathBuf,
        /// A moment in its history [default: its head]
        #[arg(long, value_name = "LSN|TIMESTAMP")]
        at: Option<String>,
        #[arg(long, value_name = "NAME", default_value = MAIN)]
        tenant: String,
    },
    /// psql on a branch
    Psql {
        #[arg(default_value = MAIN)]
        branch: String,
        /// Arguments for psql
        #[arg(last = true, value_name = "PSQL ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// The connection string of a branch
    Connstr {
        #[arg(default_value = MAIN)]
        branch: String,
    },
}

#[derive(Subcommand)]
enum EndpointVerb {
    /// Start an endpoint; whoever served the branch until now is fenced
    Start {
        name: String,
        /// Branch of a new endpoint [default: main]
        #[arg(long, value_name = "B")]
        branch: Option<String>,
    },
    /// Stop an endpoint
    Stop {
        name: String,
        /// At once, without bringing unacknowledged WAL to a quorum
        #[arg(long)]
        immediate: bool,
    },
    /// All endpoints of the cluster
    List,
    /// Run an endpoint until it is stopped
    #[command(hide = true)]
    Supervise { name: String },
}

/// How long `endpoint stop` waits.
const STOP_PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ironpage: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let dir = arguments.dir.as_path();
    match &arguments.verb {
        Verb::Up { port_base, detach } => up::up(dir, *port_base, if *detach { up::Mode::Detach } else { up::Mode::Foreground })?,
        Verb::Down => {
            let (cluster, _lock) = locked(dir)?;
            down::down(&cluster)?;
        }
        Verb::Destroy => {
            let (cluster, _lock) = locked(dir)?;
            destroy::destroy(&cluster)?;
        }
        Verb::Status { json } => {
            status::status(&Cluster::open(dir)?, if *json { status::Format::Json } else { status::Format::Table })?;
        }
        Verb::Doctor => return Ok(doctor::doctor(dir)?),
        Verb::Endpoint { verb } => endpoint(dir, verb)?,
        Verb::Import { source, tenant, branch, scratch } => {
            import::import(&Cluster::open(dir)?, import::Request { source, tenant, branch, scratch: scratch.as_deref() })?;
        }
        Verb::Export { branch, out, at: _, tenant } => {
            export::export(&Cluster::open(dir)?, export::Request { tenant, branch, at: None, out })?;
        }
        Verb::Psql { branch, arguments } => psql::psql(&Cluster::open(dir)?, branch, arguments)?,
        Verb::Connstr { branch } => {
            let cluster = Cluster::open(dir)?;
            println!("{}", connstr::of(&cluster, connstr::endpoint_of(&cluster, branch)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn locked(dir: &Path) -> error::Result<(Cluster, cluster::ClusterLock)> {
    // Before the lock, which would make a directory that is no cluster look like one.
    Cluster::open(dir)?;
    let lock = Cluster::lock(dir)?;
    Ok((Cluster::open(dir)?, lock))
}

fn endpoint(dir: &Path, verb: &EndpointVerb) -> error::Result<()> {
    match verb {
        EndpointVerb::Start { name, branch } => {
            let signals = sys::Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
                .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
            let programs = programs::Programs::find()?;
            let (cluster, endpoint) = {
                let (mut cluster, _lock) = locked(dir)?;
                let known = cluster.endpoint(name).map(|endpoint| endpoint.branch.clone()).ok();
                let branch = branch.clone().or(known).unwrap_or_else(|| MAIN.to_string());
                cluster.branch(&branch)?;
                let endpoint = cluster.endpoint_for(name, &branch)?;
                cluster.save()?;
                (cluster, endpoint)
            };
            endpoint::start(&cluster, &endpoint, &programs, &signals)?;
            println!("{}", connstr::of(&cluster, &endpoint));
            Ok(())
        }
        EndpointVerb::Stop { name, immediate } => {
            let cluster = Cluster::open(dir)?;
            let how = if *immediate { Stop::Immediate } else { Stop::Fast };
            endpoint::stop(&cluster, cluster.endpoint(name)?, how, STOP_PATIENCE)
        }
        EndpointVerb::List => endpoint::list(&Cluster::open(dir)?),
        EndpointVerb::Supervise { name } => endpoint::supervisor::supervise(dir, name),
    }
}
