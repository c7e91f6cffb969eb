//! `ironpage-bench`: measures Ironpage beside its peers and the raw limits, in one run.

#![allow(clippy::disallowed_methods)]

mod api;
mod branches;
mod client;
mod cluster;
mod command;
mod device;
mod first_light;
mod getpage;
mod interrupt;
mod latency;
mod machine;
mod scratch;
mod stock;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Ironpage beside its peers and the raw limits, in one run.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// pgbench, endpoint start and getpage, beside stock Postgres and the raw device.
    FirstLight(first_light::Arguments),
    /// Branches: how fast one is made, its first query and its page reads, beside copies by stock Postgres and the raw device.
    Branches(branches::Arguments),
}

/// What a measurement may use.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// Directory with the binaries to measure: `ironpage`, `safekeeper`, `pageserver`.
    #[arg(long, default_value = "target/release")]
    bin_dir: PathBuf,
    /// Directory for data of both sides; made, and removed afterwards. Must be on the disk to measure.
    #[arg(long, default_value = "/var/tmp/ironpage-bench")]
    dir: PathBuf,
    /// Where stock Postgres's programs are.
    #[arg(long, default_value = "/usr/lib/postgresql/15/bin")]
    postgres_bindir: PathBuf,
    /// Seconds of each timed run.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// First of 100 free ports on 127.0.0.1.
    #[arg(long, default_value_t = 26320)]
    port_base: u16,
    /// Result as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let command = Command::parse();
    interrupt::install();
    let outcome = match command {
        Command::FirstLight(arguments) => first_light::run(&arguments),
        Command::Branches(arguments) => branches::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ironpage-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error what comes now.
fn progress(what: &str) {
    eprintln!("... {what}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Command::command().debug_assert();
    }
}
