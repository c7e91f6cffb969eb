//! `ironpage-follow`: the follower process. `ironpage follow` starts it.
#![allow(clippy::disallowed_methods)]

use clap::Parser;
use ironpage_follow::config::Config;
use ironpage_follow::follower::{self, Follower};
use ironpage_follow::log;
use std::path::PathBuf;
use std::process::ExitCode;

/// Copies another server and follows its WAL into a tenant.
#[derive(Parser)]
#[command(name = "ironpage-follow", version)]
struct Arguments {
    /// The follower's directory, with its settings.json
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[arg(long, value_name = "HOST:PORT,...")]
    safekeepers: String,
    #[arg(long, value_name = "HOST:PORT")]
    pageserver: String,
    /// The pageserver's HTTP API
    #[arg(long, value_name = "HOST:PORT")]
    http: String,
    /// Drop the slot at the source instead of following
    #[arg(long)]
    drop_slot: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ironpage-follow: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::read(&arguments.dir, &arguments.safekeepers, &arguments.pageserver, &arguments.http)?;
    if arguments.drop_slot {
        follower::drop_slot(&config)?;
        log::info(&format!("slot {} is dropped", config.settings.slot));
        return Ok(());
    }
    Err(Follower::open(config)?.run().into())
}
