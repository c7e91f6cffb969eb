//! The writing half of a connection.

use super::FrameError;
use ironpage_io::net::Writer;
use ironpage_io::sync::Notify;
use ironpage_layout::Term;
use ironpage_layout::wire::{self, Kind, RemoteError};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Encoded bytes that may wait for the socket; whoever wants to send more waits. One frame may exceed it.
pub const WRITE_BUFFER_MAX: usize = 1 << 20;
/// An empty buffer larger than this is given back.
const KEEP_SIZE: usize = 64 << 10;

/// Sends frames; clones share the connection. Frames queued while a write is under way go out together
/// in the next one.
#[derive(Clone)]
pub struct FrameWriter {
    shared: Rc<Shared>,
}

struct Shared {
    peer: Rc<str>,
    waiting: RefCell<Vec<u8>>,
    /// `None` while a sender writes; it will write what is queued meanwhile. Gone for good once broken.
    socket: RefCell<Option<Writer>>,
    broken: RefCell<Option<FrameError>>,
    closing: Cell<bool>,
    /// There is room again, or the connection is broken or closing.
    changed: Notify,
}

impl FrameWriter {
    pub(super) fn new(socket: Writer, peer: Rc<str>) -> FrameWriter {
        FrameWriter {
            shared: Rc::new(Shared {
                peer,
                waiting: RefCell::default(),
                socket: RefCell::new(Some(socket)),
                broken: RefCell::default(),
                closing: Cell::new(false),
                changed: Notify::new(),
            }),
        }
    }

    /// Name of the other side, for messages.
    pub fn peer(&self) -> &str {
        &self.shared.peer
    }

    /// Queues a frame and sees to it that it is written; `payload` appends its payload. When this returns
    /// the frame is with the kernel or with another sender's write; an error there is reported to the next
    /// send. Waits while `WRITE_BUFFER_MAX` bytes are queued: a slow reader slows whoever answers it.
    pub async fn send(
        &self,
        kind: Kind,
        request_id: u64,
        term: Term,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), FrameError> {
        let shared = &*self.shared;
        loop {
            let changed = shared.changed.notified();
            shared.check()?;
            if shared.waiting.borrow().len() < WRITE_BUFFER_MAX {
                break;
            }
            changed.await;
        }
        wire::encode_frame(&mut shared.waiting.borrow_mut(), kind, request_id, term, payload);
        let socket = shared.socket.borrow_mut().take();
        match socket {
            Some(socket) => Writing { shared, socket: Some(socket) }.write_all().await,
            None => Ok(()),
        }
    }

    /// Sends an `Error` frame.
    pub async fn send_error(&self, request_id: u64, term: Term, error: &RemoteError) -> Result<(), FrameError> {
        self.send(Kind::Error, request_id, term, |out| error.encode(out)).await
    }

    /// Ends the connection in both directions, now: also a read or write that waits.
    pub fn shutdown(&self) {
        self.shared.closing.set(true);
        if let Some(socket) = &*self.shared.socket.borrow() {
            socket.shutdown();
        }
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
impl FrameWriter {
    pub(super) fn is_writing(&self) -> bool {
        self.shared.socket.borrow().is_none()
    }
}

impl Shared {
    fn check(&self) -> Result<(), FrameError> {
        if let Some(error) = &*self.broken.borrow() {
            return Err(error.clone());
        }
        if self.closing.get() {
            return Err(FrameError::Closed { peer: self.peer.to_string(), within: "" });
        }
        Ok(())
    }
}

/// A write under way. Dropped before it ended, the stream may hold part of a frame and is of no more use.
struct Writing<'a> {
    shared: &'a Shared,
    socket: Option<Writer>,
}

impl Writing<'_> {
    async fn write_all(mut self) -> Result<(), FrameError> {
        let shared = self.shared;
        let Some(socket) = self.socket.as_mut() else { return Ok(()) };
        let mut batch = Vec::new();
        loop {
            batch.clear();
            if batch.capacity() > KEEP_SIZE {
                batch = Vec::new();
            }
            std::mem::swap(&mut batch, &mut shared.waiting.borrow_mut());
            shared.changed.notify_all();
            if batch.is_empty() {
                break;
            }
            let written = {
                let (mut write, mut changed) = (pin!(socket.write_all(batch)), pin!(shared.changed.notified()));
                poll_fn(|cx| {
                    while !shared.closing.get() && changed.as_mut().poll(cx).is_ready() {
                        changed.set(shared.changed.notified());
                    }
                    if shared.closing.get() { Poll::Ready(None) } else { write.as_mut().poll(cx).map(Some) }
                })
                .await
            };
            match written {
                Some((Ok(()), bytes)) => batch = bytes,
                Some((Err(error), _)) => {
                    *shared.broken.borrow_mut() = Some(error.into());
                    break;
                }
                None => break,
            }
        }
        let result = shared.check();
        if result.is_ok() {
            *shared.socket.borrow_mut() = self.socket.take();
        }
        result
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        socket.shutdown();
        let shared = self.shared;
        let abandoned = || FrameError::Closed { peer: shared.peer.to_string(), within: " within a write" };
        shared.broken.borrow_mut().get_or_insert_with(abandoned);
        shared.waiting.borrow_mut().clear();
        shared.changed.notify_all();
    }
}
