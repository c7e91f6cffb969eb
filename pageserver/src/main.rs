//! Command line of the pageserver.

use clap::Parser;
use ironpage_daemon::cli::{Address, parse_addresses, parse_node_id};
use ironpage_daemon::exit;
use ironpage_layout::NodeId;
use ironpage_pageserver::daemon::{Config, run};
use std::path::PathBuf;
use std::process::ExitCode;

/// Serves any page at any LSN, out of the WAL that safekeepers keep.
#[derive(Parser)]
struct Arguments {
    /// Number of this pageserver in its cluster, 1 or more.
    #[arg(long, value_parser = parse_node_id)]
    id: NodeId,
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Address,
    /// Where the HTTP API listens; there is none if not given.
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<Address>,
    /// Directory of the data; created if it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// The safekeepers whose WAL is read.
    #[arg(long, value_name = "HOST:PORT,...")]
    safekeepers: String,
    /// Directory of PostgreSQL 15's programs: `pg_config --bindir` says which.
    #[arg(long, value_name = "DIR")]
    postgres_bindir: PathBuf,
    /// The library that makes `postgres` a redo worker; beside this program if not given.
    #[arg(long, value_name = "FILE")]
    redo_library: Option<PathBuf>,
    /// Memory for WAL that is not yet in layer files, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    memory_layer_mib: u32,
}

fn main() -> ExitCode {
    // Of builds for tests alone: where IRONPAGE_FAULT can end the process.
    #[cfg(feature = "fault-points")]
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--list-fault-points") {
        ironpage_pageserver::fault::POINTS.iter().for_each(|point| println!("{point}"));
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    exit::code(start(arguments))
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    let safekeepers = parse_addresses(&arguments.safekeepers).map_err(anyhow::Error::msg)?;
    anyhow::ensure!(!safekeepers.is_empty(), "--safekeepers is empty: name at least one, like 127.0.0.1:5440");
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("redo.so"));
    let library = arguments.redo_library.or_else(beside).unwrap_or_else(|| PathBuf::from("redo.so"));
    run(Config {
        node: arguments.id,
        listen: arguments.listen,
        http_listen: arguments.http_listen,
        dir: arguments.dir,
        safekeepers,
        postgres: arguments.postgres_bindir.join("postgres"),
        redo_library: library,
        memory_layer_bytes: arguments.memory_layer_mib as usize * (1 << 20),
    })
    .map_err(|error| anyhow::Error::msg(exit::chain(&error)))
}
