//! Branches: `ironpage branch ...`.
//!
//! What a branch is, the pageserver knows; the verbs here ask it, and keep the endpoints of a branch in step.

mod create;
mod diff;
mod list;
mod remove;
mod rename;
mod rewind;

use crate::api::{At, Reach};
use crate::cluster::{Cluster, MAIN, check_name};
use crate::error::Result;
use crate::moment;
use crate::output::Format;
use crate::place::branch_name;
use clap::Subcommand;
use std::path::Path;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Make a branch: a full copy, writable, of another one's present or past
    Create {
        name: String,
        /// The branch it starts from
        #[arg(long, value_name = "B", default_value = MAIN)]
        from: String,
        /// Where in that branch's history [default: its head]
        #[arg(long, value_name = "LSN|TIMESTAMP", value_parser = moment::parse_at, allow_hyphen_values = true)]
        at: Option<At>,
        /// It goes away by itself after so long, as 7d, 12h, 30m
        #[arg(long, value_name = "TIME", value_parser = moment::parse_ttl, allow_hyphen_values = true)]
        ttl: Option<u64>,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// All branches
    List {
        /// Children below their parents
        #[arg(long)]
        tree: bool,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Delete a branch
    Delete {
        name: String,
        /// Its children too, and theirs
        #[arg(long)]
        recursive: bool,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Give a branch another name
    Rename {
        old: String,
        new: String,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Bring a branch to its parent's present head; what was done on it is gone
    Reset {
        name: String,
        /// Delete its children, and theirs
        #[arg(long)]
        recursive: bool,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Bring a branch back to a moment of its own past; what it is now stays as a backup branch
    Restore {
        name: String,
        /// The moment
        #[arg(long, value_name = "LSN|TIMESTAMP", value_parser = moment::parse_at, allow_hyphen_values = true)]
        at: At,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// How the schemas of two branches differ; exits with 0 if they do not, 1 if they do, 2 if it cannot tell
    Diff {
        a: String,
        b: String,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
}

/// The exit code of `branch diff` for what is an error elsewhere: 1 says that there is a difference.
pub const DIFF_FAILED: u8 = 2;

pub fn run(dir: &Path, tenant: &str, verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Create { name, from, at, ttl, json } => {
            check_name(name)?;
            create::create(
                &Cluster::open(dir)?,
                tenant,
                create::Wanted { name, from, at: *at, ttl_seconds: *ttl },
                Format::of(*json),
            )?;
        }
        Verb::List { tree, json } => {
            let shape = if *tree { list::Shape::Tree } else { list::Shape::Flat };
            list::list(&Cluster::open(dir)?, tenant, shape, Format::of(*json))?;
        }
        Verb::Delete { name, recursive, json } => {
            let (mut cluster, _lock) = Cluster::locked(dir)?;
            let name = &branch_name(&cluster, tenant, name)?;
            remove::delete(&mut cluster, tenant, name, Reach::of(*recursive), Format::of(*json))?;
        }
        Verb::Rename { old, new, json } => {
            check_name(new)?;
            let (mut cluster, _lock) = Cluster::locked(dir)?;
            let old = &branch_name(&cluster, tenant, old)?;
            rename::rename(&mut cluster, tenant, old, new, Format::of(*json))?;
        }
        Verb::Reset { name, recursive, json } => {
            let (mut cluster, _lock) = Cluster::locked(dir)?;
            let name = &branch_name(&cluster, tenant, name)?;
            rewind::reset(&mut cluster, tenant, name, Reach::of(*recursive), Format::of(*json))?;
        }
        Verb::Restore { name, at, json } => {
            let (cluster, _lock) = Cluster::locked(dir)?;
            let name = &branch_name(&cluster, tenant, name)?;
            rewind::restore(&cluster, tenant, name, *at, Format::of(*json))?;
        }
        Verb::Diff { a, b, json } => return diff::diff(dir, tenant, a, b, Format::of(*json)),
    }
    Ok(ExitCode::SUCCESS)
}
