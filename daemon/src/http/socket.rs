//! A stream of io as hyper polls it.

use hyper::rt::{Read, ReadBufCursor, Write};
use ironpage_io::IoError;
use ironpage_io::net::{Reader, Stream, Writer};
use ironpage_io::time::{Sleep, sleep};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes of one receive.
const READ_MAX: usize = 16 << 10;
/// What the other side still sends is read past for this long, and no more than so many bytes of it: a socket
/// closed over bytes nobody read is reset, and the reset overtakes the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 << 20;

type Sending = Pin<Box<dyn Future<Output = (Writer, Result<(), IoError>)>>>;

/// A connection between hyper and the ring: a write is taken at once and sent behind it, one at a time.
pub struct Socket {
    reader: Reader,
    writer: Option<Writer>,
    sending: Option<Sending>,
    closing: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Socket {
    pub fn new(stream: Stream) -> Socket {
        let (reader, writer) = stream.split();
        Socket { reader, writer: Some(writer), sending: None, closing: None }
    }

    /// Receives what is there; nothing is lost if it is polled no more.
    fn poll_receive(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<std::io::Result<Vec<u8>>> {
        let mut bytes = Vec::new();
        let received = pin!(self.reader.read_into(&mut bytes, max.min(READ_MAX))).poll(cx);
        received.map(|result| result.map(|_| bytes).map_err(std::io::Error::other))
    }

    /// Ready once nothing is being sent.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let Poll::Ready((writer, result)) = sending.as_mut().poll(cx) else { return Poll::Pending };
        self.sending = None;
        self.writer = Some(writer);
        Poll::Ready(result.map_err(std::io::Error::other))
    }
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let received = self.get_mut().poll_receive(cx, buf.remaining());
        received.map(|result| result.map(|bytes| buf.put_slice(&bytes)))
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        match this.poll_sent(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let Some(mut writer) = this.writer.take() else { return Poll::Ready(Ok(0)) };
        let copy = bytes.to_vec();
        this.sending = Some(Box::pin(async move {
            let (result, _) = writer.write_all(copy).await;
            (writer, result)
        }));
        // Submits it; how it ends is the next write's or flush's to say.
        if let Poll::Ready(Err(error)) = this.poll_sent(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.poll_sent(cx)?.is_pending() {
            return Poll::Pending;
        }
        if this.closing.is_none() {
            if let Some(writer) = &this.writer {
                writer.shutdown_write();
            }
            this.closing = Some((Box::pin(sleep(LINGER)), LINGER_BYTES_MAX));
        }
        loop {
            let received = this.poll_receive(cx, READ_MAX);
            let Some((until, left)) = &mut this.closing else { return Poll::Ready(Ok(())) };
            match received {
                Poll::Ready(Ok(bytes)) if !bytes.is_empty() && *left > bytes.len() => *left -= bytes.len(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
