//! `ironpage`: clusters on this machine, their endpoints, and what they are doing.
// No part of a daemon: it blocks, and nothing simulates it.
#![allow(clippy::disallowed_methods)]

mod api;
mod branch;
mod catalogue;
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
mod follow;
mod history;
mod import;
mod log;
mod moment;
mod output;
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
mod tenant;
mod up;
mod user;

use clap::{Parser, Subcommand};
use cluster::{Cluster, MAIN};
use endpoint::Stop;
use error::Error;
use ironpage_layout::{Lsn, TenantId};
use output::Format;
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
    /// Whose branches are meant
    #[arg(long, global = true, default_value = MAIN, value_name = "NAME")]
    tenant: String,
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
        #[arg(long, value_name = "LSN|TIMESTAMP", value_parser = moment::parse_at)]
        at: Option<api::At>,
    },
    /// Make, list, rename, rewind, compare and delete branches
    Branch {
        #[command(subcommand)]
        verb: branch::Verb,
    },
    /// Make, list and delete tenants
    Tenant {
        #[command(subcommand)]
        verb: tenant::Verb,
    },
    /// Where a branch was at a time: the LSN just before the first commit after it
    Lsn {
        branch: String,
        #[arg(value_parser = moment::parse_time, allow_hyphen_values = true)]
        timestamp: i64,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// When a branch was at an LSN: the time of the last commit at or before it
    Timestamp {
        branch: String,
        lsn: Lsn,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Copy a running Postgres 15 and follow its WAL into a tenant (--tenant), to branch from
    Follow {
        /// As libpq takes it; may be left out for one that was followed before
        #[arg(value_name = "CONNINFO", conflicts_with = "stop")]
        source: Option<String>,
        /// Physical replication slot to make there [default: ironpage_TENANT]
        #[arg(long, value_name = "NAME", conflicts_with = "stop")]
        slot: Option<String>,
        /// Stay, and log to standard error
        #[arg(long, conflicts_with = "stop")]
        foreground: bool,
        /// Stop following into that tenant; what was received stays
        #[arg(long, value_name = "TENANT")]
        stop: Option<String>,
        /// Drop the slot too: it can't go on after that
        #[arg(long, requires = "stop")]
        drop_slot: bool,
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
    /// Start an endpoint; whoever served the branch until now is fenced. With --at it is read-only and fences nobody
    Start {
        name: String,
        /// Branch of a new endpoint [default: main]
        #[arg(long, value_name = "B")]
        branch: Option<String>,
        /// Show the branch as it was at an LSN or a time, read-only; without it such an endpoint shows what it showed before
        #[arg(long, value_name = "LSN|TIMESTAMP", value_parser = moment::parse_at, allow_hyphen_values = true)]
        at: Option<api::At>,
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
    let arguments = Arguments::parse();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("ironpage: {error:#}");
        match arguments.verb {
            Verb::Branch { verb: branch::Verb::Diff { .. } } => ExitCode::from(branch::DIFF_FAILED),
            _ => ExitCode::from(1),
        }
    })
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let dir = arguments.dir.as_path();
    let tenant = match arguments.tenant.parse::<TenantId>() {
        Ok(_) => &place::tenant_name(&Cluster::open(dir)?, &arguments.tenant)?,
        Err(_) => &arguments.tenant,
    };
    match &arguments.verb {
        Verb::Up { port_base, detach } => up::up(dir, *port_base, if *detach { up::Mode::Detach } else { up::Mode::Foreground })?,
        Verb::Down => {
            let (cluster, _lock) = Cluster::locked(dir)?;
            down::down(&cluster)?;
        }
        Verb::Destroy => {
            let (cluster, _lock) = Cluster::locked(dir)?;
            destroy::destroy(&cluster)?;
        }
        Verb::Status { json } => {
            status::status(&Cluster::open(dir)?, Format::of(*json))?;
        }
        Verb::Doctor => return Ok(doctor::doctor(dir)?),
        Verb::Import { source, tenant, branch, scratch } => {
            import::import(&Cluster::open(dir)?, import::Request { source, tenant, branch, scratch: scratch.as_deref() })?;
        }
        Verb::Export { branch, out, at } => {
            export::export(&Cluster::open(dir)?, export::Request { tenant, branch, at: *at, out })?;
        }
        Verb::Endpoint { verb } => endpoint(dir, tenant, verb)?,
        Verb::Branch { verb } => return Ok(branch::run(dir, tenant, verb)?),
        Verb::Tenant { verb } => tenant::run(dir, verb)?,
        Verb::Lsn { branch, timestamp, json } => {
            history::lsn(&Cluster::open(dir)?, tenant, branch, *timestamp, Format::of(*json))?;
        }
        Verb::Timestamp { branch, lsn, json } => {
            history::timestamp(&Cluster::open(dir)?, tenant, branch, *lsn, Format::of(*json))?;
        }
        Verb::Follow { stop: Some(stopped), drop_slot, .. } => {
            follow::stop(dir, stopped, if *drop_slot { follow::Slot::Drop } else { follow::Slot::Keep })?;
        }
        Verb::Follow { source, slot, foreground, .. } => {
            let (source, slot) = (source.as_deref(), slot.as_deref());
            follow::follow(dir, follow::Request { source, tenant, slot, foreground: *foreground })?;
        }
        Verb::Psql { branch, arguments } => psql::psql(&Cluster::open(dir)?, tenant, branch, arguments)?,
        Verb::Connstr { branch } => {
            let cluster = Cluster::open(dir)?;
            println!("{}", connstr::of(&cluster, connstr::endpoint_of(&cluster, tenant, branch)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn endpoint(dir: &Path, tenant: &str, verb: &EndpointVerb) -> error::Result<()> {
    match verb {
        EndpointVerb::Start { name, branch, at } => {
            let signals = sys::Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
                .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
            let programs = programs::Programs::find()?;
            let (cluster, endpoint) = {
                let (mut cluster, _lock) = Cluster::locked(dir)?;
                let wanted = endpoint::Wanted { name, tenant, branch: branch.as_deref(), at: *at };
                let endpoint = endpoint::claim(&mut cluster, &wanted)?;
                (cluster, endpoint)
            };
            endpoint::start(&cluster, &endpoint, &programs, &signals)?;
            println!("{}", connstr::of(&cluster, &endpoint));
            Ok(())
        }
        EndpointVerb::Stop { name, immediate } => {
            let cluster = Cluster::open(dir)?;
            let how = if *immediate { Stop::Immediate } else { Stop::Fast };
            let endpoint = cluster.endpoint(name)?;
            endpoint::stop(&cluster, endpoint, how, STOP_PATIENCE)?;
            endpoint::lease::release_of_stopped(&cluster, endpoint);
            Ok(())
        }
        EndpointVerb::List => endpoint::list(&Cluster::open(dir)?),
        EndpointVerb::Supervise { name } => endpoint::supervisor::supervise(dir, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
        let arguments = Arguments::try_parse_from(["ironpage", "--tenant", "a", "branch", "list", "--json"]).unwrap();
        assert_eq!(arguments.tenant, "a");
        let arguments =
            Arguments::try_parse_from(["ironpage", "branch", "create", "b", "--at", "0/15", "--tenant", "a"]).unwrap();
        assert_eq!(arguments.tenant, "a");
        let Verb::Import { tenant, .. } = Arguments::try_parse_from(["ironpage", "import", "d", "--tenant", "a"]).unwrap().verb
        else {
            panic!("no import")
        };
        assert_eq!(tenant, "a");
        assert!(Arguments::try_parse_from(["ironpage", "import", "d"]).is_err());
    }
}
