//! The daemon that makes WAL durable by quorum.
//!
//! `server` takes connections and gives them to `proposer_service` (WAL in), `wal_service` (WAL out) or
//! `admin`. `registry` holds the timelines; a `timeline` is an acceptor of `ironpage_consensus` with its
//! `control` file and its `wal`. `recovery` pulls from peers what a leader does not have. One core, one ring:
//! all of it runs on one thread, and nothing is locked.

pub mod admin;
pub mod context;
pub mod control;
pub mod deletion;
pub mod error;
pub mod limits;
pub mod prefix;
pub mod proposer_service;
pub mod recovery;
pub mod registry;
pub mod server;
pub mod timeline;
pub mod wal;
pub mod wal_service;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::registry::Registry;
use ironpage_daemon::cli::Address;
use ironpage_daemon::info;
use ironpage_daemon::lock::DirLock;
use ironpage_io::net::Listener;
use ironpage_layout::NodeId;
use std::path::PathBuf;
use std::rc::Rc;

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    pub listen: Address,
    pub dir: PathBuf,
    pub peers: Vec<Address>,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<()> {
    let lock = DirLock::acquire(&config.dir).map_err(std::sync::Arc::new)?;
    let core = ironpage_io::Config { pinned: Some(lock.file()), ..ironpage_io::Config::default() };
    ironpage_io::run(core, || serve(config)).map_err(|error| Error::Core(ironpage_daemon::exit::chain(&error)))?
}

async fn serve(config: Config) -> Result<()> {
    let shutdown = ironpage_io::signal::shutdown();
    let context = Rc::new(Context::new(config.node, config.peers));
    let registry = Rc::new(Registry::new(&config.dir, context));
    registry.finish_deletions().await?;
    let timelines = registry.inspect().await?;
    let busy = |error| Error::Listen { address: config.listen.text.clone(), error };
    let listener = Listener::bind_tcp(config.listen.socket).map_err(busy)?;
    info!("safekeeper {} with {timelines} timelines in {}", config.node, config.dir.display());
    info!("listening on {}", listener.name());
    let server = ironpage_io::spawn(server::run(listener, registry.clone()));
    let upkeep = registry.clone();
    ironpage_io::spawn(async move { upkeep.upkeep().await });
    shutdown.await?;
    server.abort();
    registry.settle().await;
    info!("stopped");
    Ok(())
}
