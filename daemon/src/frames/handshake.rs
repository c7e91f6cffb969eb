//! How a connection starts: `Hello`, then `HelloReply` or `Error`.

use super::{FrameError, FrameReader, FrameWriter, split};
use crate::cli::Address;
use ironpage_io::net::Stream;
use ironpage_io::time::timeout;
use ironpage_layout::wire::hello::{Hello, HelloReply};
use ironpage_layout::wire::{Kind, RemoteError};
use ironpage_layout::{NodeId, Term};
use std::time::Duration;

/// How long the other side may take for its part of the handshake.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose hello is here and not yet answered: whoever knows the roles does that, with
/// [`Accepted::welcome`] or an error.
pub struct Accepted {
    pub hello: Hello,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    request_id: u64,
}

impl Accepted {
    /// Answers the hello with `HelloReply`.
    pub async fn welcome(&self, node: NodeId) -> Result<(), FrameError> {
        self.writer.send(Kind::HelloReply, self.request_id, Term(0), |out| HelloReply::new(node).encode(out)).await
    }

    /// Answers the hello with `Error`; the connection ends there.
    pub async fn refuse(&self, error: &RemoteError) -> Result<(), FrameError> {
        self.writer.send_error(self.request_id, Term(0), error).await
    }
}

/// Server side: reads the hello of a fresh connection. Bytes that are no hello are answered with an
/// `Error` frame before the error returns here.
pub async fn accept(stream: Stream) -> Result<Accepted, FrameError> {
    let (mut reader, writer) = split(stream);
    let read = async {
        let frame = reader.expect(&[Kind::Hello], "Hello").await?;
        let (request_id, hello) = (frame.header.request_id, Hello::decode(frame.payload));
        Ok((request_id, hello.map_err(|error| reader.malformed(error))?))
    };
    let read = timeout(HELLO_TIMEOUT, read).await.unwrap_or_else(|_| Err(late(writer.peer(), "its hello")));
    match read {
        Ok((request_id, hello)) => Ok(Accepted { hello, reader, writer, request_id }),
        Err(error) => {
            if let Some(reply) = error.reply() {
                // Best effort: the error that matters is the one at hand.
                let _ = writer.send_error(0, Term(0), &reply).await;
            }
            Err(error)
        }
    }
}

/// Client side: connects, says hello, and returns once welcomed. A refusal is [`FrameError::Remote`].
pub async fn connect(address: &Address, hello: &Hello) -> Result<(FrameReader, FrameWriter, NodeId), FrameError> {
    let attempt = async {
        let stream = Stream::connect_tcp(address.socket, HELLO_TIMEOUT).await?;
        let (mut reader, writer) = split(stream);
        writer.send(Kind::Hello, 0, Term(0), |out| hello.encode(out)).await?;
        let reply = HelloReply::decode(reader.expect(&[Kind::HelloReply], "HelloReply").await?.payload);
        let reply = reply.map_err(|error| reader.malformed(error))?;
        Ok((reader, writer, NodeId(reply.node.get())))
    };
    timeout(HELLO_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(late(&address.text, "connecting")))
}

fn late(peer: &str, what: &'static str) -> FrameError {
    FrameError::Timeout { peer: peer.to_string(), what, seconds: HELLO_TIMEOUT.as_secs() }
}
