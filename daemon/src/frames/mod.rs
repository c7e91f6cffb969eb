//! Framed connections: `layout::wire` over the sockets of io.
//!
//! A connection is a [`FrameReader`], owned by the one task that reads it, and a [`FrameWriter`], a handle
//! that any number of tasks of the core share: replies go out in any order, each frame whole. Both sides
//! hold a bounded number of bytes.

mod handshake;
mod reader;
mod writer;

pub use handshake::{Accepted, HELLO_TIMEOUT, accept, connect};
pub use reader::{Frame, FrameReader};
pub use writer::{FrameWriter, WRITE_BUFFER_MAX};

use ironpage_io::IoError;
use ironpage_io::net::Stream;
use ironpage_layout::Term;
use ironpage_layout::wire::{ErrorCode, Kind, RemoteError, WireError};
use std::rc::Rc;

/// What can go wrong on a framed connection. Each ends it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("{0}")]
    Io(#[from] IoError),
    #[error("{peer} closed the connection{within}")]
    Closed { peer: String, within: &'static str },
    #[error("{peer}: {error}")]
    Wire { peer: String, error: WireError },
    /// The other side answered with an `Error` frame; `term` is that frame's.
    #[error("{peer}: {error}")]
    Remote { peer: String, error: RemoteError, term: Term },
    #[error("{peer} sent {found:?} where {expected} was due")]
    Unexpected { peer: String, expected: &'static str, found: Kind },
    #[error("{peer}: {what} took more than {seconds} s")]
    Timeout { peer: String, what: &'static str, seconds: u64 },
}

impl FrameError {
    /// The `Error` frame that tells the other side why the connection ends; `None` if telling is of no use.
    pub fn reply(&self) -> Option<RemoteError> {
        let code = match self {
            FrameError::Wire { .. } | FrameError::Unexpected { .. } => ErrorCode::Protocol,
            FrameError::Timeout { .. } => ErrorCode::Unavailable,
            FrameError::Io(_) | FrameError::Closed { .. } | FrameError::Remote { .. } => return None,
        };
        Some(RemoteError { code, message: self.to_string() })
    }

    /// Whether the other side just went away, which is how connections end.
    pub fn is_close(&self) -> bool {
        match self {
            FrameError::Closed { within, .. } => within.is_empty(),
            FrameError::Io(error) => error.is_disconnected(),
            _ => false,
        }
    }
}

/// The two halves of a connected stream.
pub fn split(stream: Stream) -> (FrameReader, FrameWriter) {
    let peer: Rc<str> = stream.peer().to_string().into();
    let (reader, writer) = stream.split();
    (FrameReader::new(reader, peer.clone()), FrameWriter::new(writer, peer))
}

#[cfg(test)]
mod tests;
