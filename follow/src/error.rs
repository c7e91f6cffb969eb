//! What can go wrong, and whether time heals it.

use ironpage_layout::Lsn;
use ironpage_layout::wire::{ErrorCode, RemoteError, WireError};
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
        match self {
            Error::Refused(_) => false,
            // What a daemon of ours says of what it was asked: the same question gets the same answer.
            Error::Remote { source, .. } => !matches!(
                source.code,
                ErrorCode::Protocol | ErrorCode::Unsupported | ErrorCode::Exists | ErrorCode::Corrupt | ErrorCode::Refused
            ),
            _ => true,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_change_is_tried_again() {
        let remote = |code| Error::Remote { peer: "pageserver-1".into(), source: RemoteError { code, message: "no".into() } };
        assert!(remote(ErrorCode::Unavailable).passes() && remote(ErrorCode::Storage).passes());
        assert!(!remote(ErrorCode::Unsupported).passes() && !remote(ErrorCode::Exists).passes());
        assert!(Error::Source("away".into()).passes() && !Error::Refused("never".into()).passes());
    }
}
