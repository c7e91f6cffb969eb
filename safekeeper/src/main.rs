//! Command line of the safekeeper.

use clap::Parser;
use ironpage_daemon::cli::{Address, parse_addresses, parse_node_id};
use ironpage_daemon::exit;
use ironpage_layout::NodeId;
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes WAL durable, by quorum with its peers.
#[derive(Parser)]
struct Arguments {
    /// Number of this safekeeper in its cluster, 1 or more.
    #[arg(long, value_parser = parse_node_id)]
    id: NodeId,
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Address,
    /// Directory of the data; created if it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// The other safekeepers, from which missing WAL is pulled.
    #[arg(long, value_name = "HOST:PORT,...", default_value = "")]
    peers: String,
}

fn main() -> ExitCode {
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
    let peers = parse_addresses(&arguments.peers).map_err(anyhow::Error::msg)?;
    let Arguments { id, listen, dir, .. } = arguments;
    Ok(ironpage_safekeeper::run(ironpage_safekeeper::Config { node: id, listen, dir, peers })?)
}
