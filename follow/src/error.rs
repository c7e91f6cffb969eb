//! What can go wrong, and whether time heals it.

use ironpage_layout::Lsn;
use ironpage_layout::wire::{RemoteError, WireError};
use std::net::SocketAddr;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Following cannot go on, ever: histories would mix, or something is not supported.
    #[error("{0}")]
    Refused(String),
    /// The source is away, or busy: it is tried again.
    #[error("the source: {0}")]
    Source(String),
    #[error("the source says: {message}")]
    SourceSays { sqlstate: String, message: String },
    #[error("cannot reach {peer} at {address}: {source}")]
    Unreachable { peer: String, address: SocketAddr, source: std::io::Error },
    #[error("the connection to {peer} broke: {source}")]
    Broken { peer: String, source: std::io::Error },
    #[error("{peer} sent what the protocol does not allow: {source}")]
    Wire { peer: String, source: WireError },
    #[error("{peer} says: {source}")]
    Remote { peer: String, source: RemoteError },
    #[error("{peer} answered with {kind} where {wanted} was due")]
    Unexpected { peer: String, kind: String, wanted: &'static str },
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the base backup: {0}")]
    Backup(String),
    #[error("WAL at {at}: {why}")]
    Wal { at: Lsn, why: String },
}

impl Error {
    /// Whether trying again can help.
    pub fn passes(&self) -> bool {
        !matches!(self, Error::Refused(_))
    }
}

/// Names the file an I/O error is about.
pub trait AtPath<T> {
    fn at(self, what: &'static str, path: &std::path::Path) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, what: &'static str, path: &std::path::Path) -> Result<T> {
        self.map_err(|source| Error::File { what, path: path.to_path_buf(), source })
    }
}
