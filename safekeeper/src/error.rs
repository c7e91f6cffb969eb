//! What can go wrong in a safekeeper, and what the other side of a connection is told about it.

use ironpage_daemon::frames::FrameError;
use ironpage_daemon::lock::LockError;
use ironpage_io::IoError;
use ironpage_layout::postgres::wal::WalError;
use ironpage_layout::wire::{ErrorCode, RemoteError, WireError};
use ironpage_layout::{Lsn, TenantId, Term, TimelineId};
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

/// Says what was attempted, on what, and what to do. Cheap enough to clone: a stopped timeline tells everybody why.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("safekeeper has no timeline {timeline} of tenant {tenant}: create it, or check the ids")]
    NotFound { tenant: TenantId, timeline: TimelineId },
    #[error("timeline {timeline} was deleted")]
    Deleted { timeline: TimelineId },
    #[error("timeline {timeline} exists with another {property}")]
    Exists { timeline: TimelineId, property: &'static str },
    #[error("timeline {timeline} belongs to system identifier {ours}, not {theirs}: this is another Postgres cluster")]
    OtherSystem { timeline: TimelineId, ours: u64, theirs: u64 },
    #[error("Postgres {version} is not supported, 15 is")]
    PostgresVersion { version: u32 },
    #[error("timeline {timeline} cannot be created: {why}")]
    BadCreate { timeline: TimelineId, why: &'static str },
    #[error("control file {}: {why}; restore it, or, while no endpoint of this timeline starts, remove the directory {} and \
        create the timeline here again: its WAL comes from the other safekeepers",
        path.display(), path.parent().unwrap_or(path).display())]
    DamagedControl { path: PathBuf, why: String },
    #[error("WAL of timeline {timeline} in {}: {why}", dir.display())]
    DamagedWal { timeline: TimelineId, dir: PathBuf, why: String },
    #[error("timeline {timeline}: WAL that does not decode was refused: {error}")]
    BadWal { timeline: TimelineId, error: WalError },
    #[error("timeline {timeline}: a record should stand at {at}, but zeros do: refused")]
    ZeroWal { timeline: TimelineId, at: Lsn },
    /// A write or flush failed: nothing more is acknowledged until a restart has looked at what is on disk.
    #[error(
        "timeline {timeline} stopped, nothing more is acknowledged: {error}; free space or replace the disk, then restart this safekeeper"
    )]
    Stopped { timeline: TimelineId, error: IoError },
    #[error("{0}")]
    Io(#[from] IoError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Lock(#[from] std::sync::Arc<LockError>),
    #[error("{0}")]
    Consensus(#[from] ironpage_consensus::Error),
    #[error("{0}")]
    Malformed(#[from] WireError),
    #[error("a higher term is known: {known}, this is {asked}")]
    Fenced { known: Term, asked: Term },
    #[error("uncommitted WAL is only for followers of term {asked}, which is not accepted here yet (term {known})")]
    NotAccepted { known: Term, asked: Term },
    #[error("WAL from {asked} is not here: this safekeeper holds {start} to {end}")]
    OutOfRange { asked: Lsn, start: Lsn, end: Lsn },
    #[error("{what} is not allowed on this connection")]
    NotAllowed { what: String },
    #[error("{connections} connections are open, no more are taken")]
    TooManyConnections { connections: usize },
    #[error("{creations} timelines are being created, no more at once: try again")]
    TooManyCreations { creations: usize },
    #[error("this is a safekeeper: it does not serve pages; check the address")]
    WrongRole,
    #[error("the connection is being closed")]
    Closed,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("cannot listen on {address}: {error}; stop what uses the port, or choose another --listen")]
    Listen { address: String, error: IoError },
    #[error("{0}")]
    Core(String),
}

impl Error {
    /// The `Error` frame for whoever asked; `None` if the connection itself is what failed.
    pub fn to_remote(&self) -> Option<RemoteError> {
        let code = match self {
            Error::NotFound { .. } | Error::Deleted { .. } => ErrorCode::NotFound,
            Error::Exists { .. } => ErrorCode::Exists,
            Error::OtherSystem { .. } | Error::WrongRole => ErrorCode::Refused,
            Error::PostgresVersion { .. } => ErrorCode::Unsupported,
            Error::DamagedControl { .. } | Error::DamagedWal { .. } | Error::BadWal { .. } | Error::ZeroWal { .. } => {
                ErrorCode::Corrupt
            }
            Error::Stopped { .. } | Error::Io(_) | Error::Lock(_) => ErrorCode::Storage,
            Error::Frame(error) => return error.reply(),
            Error::Closed | Error::Listen { .. } | Error::Core(_) => return None,
            Error::Consensus(_) | Error::Malformed(_) | Error::NotAllowed { .. } | Error::BadCreate { .. } => ErrorCode::Protocol,
            Error::Fenced { .. } => ErrorCode::Fenced,
            Error::OutOfRange { .. } => ErrorCode::OutOfRange,
            Error::NotAccepted { .. } | Error::TooManyConnections { .. } | Error::TooManyCreations { .. } | Error::Stopping => {
                ErrorCode::Unavailable
            }
        };
        Some(RemoteError { code, message: self.to_string() })
    }
}
