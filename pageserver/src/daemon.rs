//! The daemon from its start to its end.

use crate::api;
use crate::branches::{BranchError, Branches};
use crate::service::Service;
use crate::store::StoreConfig;
use crate::timeline::TimelinesConfig;
use crate::worker::{Worker, WorkerConfig, WorkerError, check_version, pin};
use ironpage_daemon::cli::Address;
use ironpage_daemon::lock::{DirLock, LockError};
use ironpage_daemon::{http, info};
use ironpage_io::IoError;
use ironpage_io::net::Listener;
use ironpage_layout::NodeId;
use std::path::PathBuf;

/// Below the data directory: what the redo worker runs from. No tenant has that name.
const PROGRAMS_DIR: &str = "redo-worker";

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    pub listen: Address,
    pub http_listen: Option<Address>,
    pub dir: PathBuf,
    pub safekeepers: Vec<Address>,
    /// The installed server's binary.
    pub postgres: PathBuf,
    /// redo.so, made for that binary.
    pub redo_library: PathBuf,
    /// Bytes of WAL kept in memory before they go to layer files.
    pub memory_layer_bytes: usize,
}

/// Why the daemon did not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{} does not exist: give the directory of PostgreSQL 15's programs as --postgres-bindir (pg_config --bindir says which)", path.display())]
    NoPostgres { path: PathBuf },
    #[error("{} does not exist: build it (make -C pageserver/redo-worker) and give it as --redo-library", path.display())]
    NoRedoLibrary { path: PathBuf },
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("cannot listen on {address}, another process may use the port; give another {option}: {error}")]
    Listen { option: &'static str, address: String, error: IoError },
    #[error("data directory {}: {error}", dir.display())]
    Timelines { dir: PathBuf, error: Box<BranchError> },
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Core(#[from] ironpage_io::Error),
}

/// Serves until SIGTERM or SIGINT. Nothing needs to be flushed then: what is not in layer files is read
/// again from the safekeepers.
// What comes before the core blocks: there is no ring yet to go through.
#[allow(clippy::disallowed_methods)]
pub fn run(config: Config) -> Result<(), Error> {
    let lock = DirLock::acquire(&config.dir)?;
    if !config.postgres.is_file() {
        return Err(Error::NoPostgres { path: config.postgres });
    }
    if !config.redo_library.is_file() {
        return Err(Error::NoRedoLibrary { path: config.redo_library });
    }
    // The worker is started in another directory.
    let dir = std::path::absolute(config.dir.join(PROGRAMS_DIR)).map_err(|error| WorkerError::File {
        what: "find",
        path: config.dir.clone(),
        error: error.to_string(),
    })?;
    let program = pin(&config.postgres, &config.redo_library, &dir)?;
    let core = ironpage_io::Config { pinned: Some(lock.file()), ..ironpage_io::Config::default() };
    ironpage_io::run(core, || serve(config, WorkerConfig::new(program)))?
}

async fn serve(config: Config, worker: WorkerConfig) -> Result<(), Error> {
    let shutdown = ironpage_io::signal::shutdown();
    let version = check_version(&worker.program.postgres).await?;
    let worker = Worker::new(worker);
    worker.check().await?;
    let store = StoreConfig { memory_bytes_max: config.memory_layer_bytes, ..StoreConfig::default() };
    let timelines = TimelinesConfig { dir: config.dir.clone(), store };
    let branches = Branches::open(timelines, worker.clone(), config.safekeepers)
        .await
        .map_err(|error| Error::Timelines { dir: config.dir.clone(), error: Box::new(error) })?;
    let listener = listen("--listen", &config.listen)?;
    let http = config.http_listen.as_ref().map(|address| listen("--http-listen", address)).transpose()?;
    info!(
        "pageserver {}, redo by PostgreSQL {version}, {} timelines in {}",
        config.node,
        branches.timelines().all().len(),
        config.dir.display()
    );
    branches.start();
    let service = Service::new(config.node, branches);
    let api = http.map(|listener| {
        info!("HTTP on {}", listener.name());
        ironpage_io::spawn(http::serve(listener, http::Limits::default(), api::handler(service.clone())))
    });
    info!("listening on {}", listener.name());
    let serving = ironpage_io::spawn(async move { service.serve(listener).await });
    let signal = shutdown.await?;
    serving.abort();
    if let Some(api) = api {
        api.abort();
    }
    worker.stop();
    info!("stopped by {signal:?}");
    Ok(())
}

fn listen(option: &'static str, address: &Address) -> Result<Listener, Error> {
    Listener::bind_tcp(address.socket).map_err(|error| Error::Listen { option, address: address.text.clone(), error })
}
