//! The reading half of a connection.

use super::FrameError;
use ironpage_io::net::Reader;
use ironpage_layout::wire::{self, HEADER_SIZE, Header, Kind, MAX_PAYLOAD, RemoteError};
use std::rc::Rc;

/// Bytes asked of the socket at once.
const READ_SIZE: usize = 64 << 10;
/// An empty buffer larger than this is given back: most connections are idle most of the time.
const KEEP_SIZE: usize = 64 << 10;

/// A checked frame, in the reader's buffer until the next one is asked for.
#[derive(Debug)]
pub struct Frame<'a> {
    pub header: Header,
    pub payload: &'a [u8],
}

/// Reads frames, one task's own. Holds one frame and one read's worth of bytes at most.
pub struct FrameReader {
    socket: Reader,
    peer: Rc<str>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that belong to frames already handed out.
    taken: usize,
}

impl FrameReader {
    pub(super) fn new(socket: Reader, peer: Rc<str>) -> FrameReader {
        FrameReader { socket, peer, buffer: Vec::new(), taken: 0 }
    }

    /// Name of the other side, for messages.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The next frame; an error ends the connection. Not cancel-safe: a call that was dropped may have
    /// eaten part of a frame, so time out a connection, not a read of one that goes on.
    pub async fn next(&mut self) -> Result<Frame<'_>, FrameError> {
        let (header, end) = loop {
            let rest = self.buffer.get(self.taken..).unwrap_or_default();
            let frame = wire::split_frame(rest).map_err(|error| FrameError::Wire { peer: self.peer.to_string(), error })?;
            if let Some((header, _, length)) = frame {
                break (header, self.taken + length);
            }
            self.fill().await?;
        };
        let start = self.taken + HEADER_SIZE;
        self.taken = end;
        Ok(Frame { header, payload: self.buffer.get(start..end).unwrap_or_default() })
    }

    /// The next frame, which must be of one of `kinds`. An `Error` frame becomes [`FrameError::Remote`].
    pub async fn expect(&mut self, kinds: &[Kind], expected: &'static str) -> Result<Frame<'_>, FrameError> {
        let peer = self.peer.clone();
        let frame = self.next().await?;
        if frame.header.kind == Kind::Error {
            let wire = |error| FrameError::Wire { peer: peer.to_string(), error };
            let error = RemoteError::decode(frame.payload).map_err(wire)?;
            return Err(FrameError::Remote { peer: peer.to_string(), error, term: frame.header.term });
        }
        if !kinds.contains(&frame.header.kind) {
            return Err(FrameError::Unexpected { peer: peer.to_string(), expected, found: frame.header.kind });
        }
        Ok(frame)
    }

    /// A payload of the frame at hand did not decode.
    pub fn malformed(&self, error: wire::WireError) -> FrameError {
        FrameError::Wire { peer: self.peer.to_string(), error }
    }

    async fn fill(&mut self) -> Result<(), FrameError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.drain(..self.taken);
        self.taken = 0;
        if buffer.is_empty() && buffer.capacity() > KEEP_SIZE {
            buffer = Vec::new();
        }
        // split_frame refused any header that claims more, so this much holds a whole frame.
        debug_assert!(buffer.len() < HEADER_SIZE + MAX_PAYLOAD);
        let before = buffer.len();
        let (result, buffer) = self.socket.read(buffer, READ_SIZE).await;
        self.buffer = buffer;
        match result? {
            0 if before == 0 => Err(FrameError::Closed { peer: self.peer.to_string(), within: "" }),
            0 => Err(FrameError::Closed { peer: self.peer.to_string(), within: " within a frame" }),
            _ => Ok(()),
        }
    }
}
