//! The two directions of a stream of bytes, be it a socket or a pipe.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::driver::{Handle, NO_OFFSET, Op};
use crate::error::{Errno, IoError};
use crate::executor::{Operation, Outcome, Payload};

/// Longest single transfer.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    Socket,
    Pipe,
}

/// An open socket or pipe end and the name errors give it.
pub(crate) struct Endpoint {
    pub(crate) handle: Handle,
    pub(crate) medium: Medium,
    pub(crate) name: Arc<str>,
}

impl Endpoint {
    fn error(&self, operation: &'static str, errno: Errno) -> IoError {
        IoError::Socket { operation, address: self.name.clone(), errno }
    }
}

/// Bytes on their way, from index `position` on.
struct Bytes {
    bytes: Vec<u8>,
    position: usize,
    _endpoint: Rc<Endpoint>,
}

impl Payload for Bytes {}

/// The receiving direction.
pub(crate) struct Incoming {
    endpoint: Rc<Endpoint>,
    /// A receive whose future may be gone.
    in_flight: RefCell<Option<Operation<Bytes>>>,
    /// Received for a future that was gone.
    left: RefCell<Vec<u8>>,
    /// The last receive left data in the socket.
    ready: Cell<bool>,
}

impl Incoming {
    pub(crate) fn new(endpoint: Rc<Endpoint>) -> Self {
        Self { endpoint, in_flight: RefCell::default(), left: RefCell::default(), ready: Cell::new(true) }
    }

    fn start(&self, mut bytes: Vec<u8>, max: usize) {
        let len = max.min(TRANSFER_BYTES_MAX);
        bytes.reserve(len);
        let position = bytes.len();
        // SAFETY: within the capacity, or one past its end.
        let buf = unsafe { bytes.as_mut_ptr().add(position) };
        let (fd, len) = (self.endpoint.handle.raw(), len as u32);
        let op = match self.endpoint.medium {
            Medium::Socket => Op::Recv { fd, buf, len, ready: self.ready.get() },
            Medium::Pipe => Op::Read { fd, buf, len, offset: NO_OFFSET },
        };
        let payload = Bytes { bytes, position, _endpoint: self.endpoint.clone() };
        // SAFETY: the payload owns the vector, whose heap memory has room for len bytes at buf and
        // does not move with it, and shares the descriptor.
        let operation = unsafe { Operation::submit(op, payload) };
        *self.in_flight.borrow_mut() = Some(operation);
    }

    /// Ends the receive in flight: its vector with the new bytes from the returned position on.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<(Result<usize, Errno>, Bytes)> {
        let mut in_flight = self.in_flight.borrow_mut();
        let Some(operation) = in_flight.as_mut() else { unreachable!("a receive was started before it is polled") };
        let Poll::Ready((Outcome { result, more_ready, .. }, mut payload)) = operation.poll_outcome(cx) else {
            return Poll::Pending;
        };
        *in_flight = None;
        self.ready.set(more_ready);
        let result = Errno::check(result);
        if let Ok(count) = result {
            // SAFETY: count bytes were received behind position, and the driver's word is that these are
            // no more than the capacity reserved for it.
            unsafe { payload.bytes.set_len(payload.position + count) };
        }
        Poll::Ready((result, payload))
    }

    async fn end(&self) -> (Result<usize, Errno>, Bytes) {
        std::future::poll_fn(|cx| self.poll_end(cx)).await
    }

    /// What an earlier, dropped read received or is going to receive. None: nothing.
    async fn earlier(&self, bytes: &mut Vec<u8>, max: usize) -> Option<Result<usize, IoError>> {
        while self.left.borrow().is_empty() {
            self.in_flight.borrow().as_ref()?;
            let (result, payload) = self.end().await;
            match result {
                Ok(0) => return Some(Ok(0)),
                Ok(_) => *self.left.borrow_mut() = payload.bytes[payload.position..].to_vec(),
                Err(errno) if errno.is_transient() => return None,
                Err(errno) => return Some(Err(self.endpoint.error("receive from", errno))),
            }
        }
        let mut left = self.left.borrow_mut();
        let count = left.len().min(max);
        bytes.extend(left.drain(..count));
        Some(Ok(count))
    }

    pub(crate) async fn read(&self, mut bytes: Vec<u8>, max: usize) -> (Result<usize, IoError>, Vec<u8>) {
        if max == 0 {
            return (Ok(0), bytes);
        }
        if let Some(result) = self.earlier(&mut bytes, max).await {
            return (result, bytes);
        }
        loop {
            self.start(bytes, max);
            let (result, payload) = self.end().await;
            bytes = payload.bytes;
            match result {
                Ok(count) => return (Ok(count), bytes),
                Err(errno) if errno.is_transient() => self.ready.set(false),
                Err(errno) => return (Err(self.endpoint.error("receive from", errno)), bytes),
            }
        }
    }

    /// As `read`, but what `bytes` holds stays with the caller if the future is dropped.
    pub(crate) async fn read_into(&self, bytes: &mut Vec<u8>, max: usize) -> Result<usize, IoError> {
        if max == 0 {
            return Ok(0);
        }
        loop {
            if let Some(result) = self.earlier(bytes, max).await {
                return result;
            }
            self.start(Vec::new(), max);
        }
    }
}

/// The sending direction.
pub(crate) struct Outgoing {
    endpoint: Rc<Endpoint>,
    /// A send whose future may be gone.
    in_flight: RefCell<Option<Operation<Bytes>>>,
    /// A send failed, perhaps in the middle of a message: nothing more can follow it.
    broken: RefCell<Option<IoError>>,
}

impl Outgoing {
    pub(crate) fn new(endpoint: Rc<Endpoint>) -> Self {
        Self { endpoint, in_flight: RefCell::default(), broken: RefCell::default() }
    }

    fn start(&self, mut payload: Bytes) -> Operation<Bytes> {
        let len = (payload.bytes.len() - payload.position).min(TRANSFER_BYTES_MAX) as u32;
        // SAFETY: position is at most the length.
        let buf = unsafe { payload.bytes.as_mut_ptr().add(payload.position) };
        let fd = self.endpoint.handle.raw();
        let op = match self.endpoint.medium {
            Medium::Socket => Op::Send { fd, buf, len },
            Medium::Pipe => Op::Write { fd, buf, len, offset: NO_OFFSET },
        };
        // SAFETY: the payload owns the vector, whose heap memory holds len bytes at buf and does not
        // move with it, and shares the descriptor.
        unsafe { Operation::submit(op, payload) }
    }

    /// Drives the send in flight to its end.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<(Result<(), IoError>, Vec<u8>)> {
        loop {
            let mut in_flight = self.in_flight.borrow_mut();
            let Some(operation) = in_flight.as_mut() else { return Poll::Ready((Ok(()), Vec::new())) };
            let Poll::Ready((outcome, mut payload)) = operation.poll_outcome(cx) else { return Poll::Pending };
            *in_flight = None;
            let result = match Errno::check(outcome.result) {
                Ok(count) => {
                    payload.position += count;
                    if payload.position < payload.bytes.len() { None } else { Some(Ok(())) }
                }
                Err(errno) if errno.is_transient() => None,
                Err(errno) => Some(Err(self.endpoint.error("send to", errno))),
            };
            match result {
                None => *in_flight = Some(self.start(payload)),
                Some(result) => {
                    if let Err(error) = &result {
                        *self.broken.borrow_mut() = Some(error.clone());
                    }
                    return Poll::Ready((result, payload.bytes));
                }
            }
        }
    }

    async fn end(&self) -> (Result<(), IoError>, Vec<u8>) {
        std::future::poll_fn(|cx| self.poll_end(cx)).await
    }

    pub(crate) async fn write_all(&self, bytes: Vec<u8>) -> (Result<(), IoError>, Vec<u8>) {
        // A dropped write first.
        let _ = self.end().await;
        let broken = self.broken.borrow().clone();
        if let Some(error) = broken {
            return (Err(error), bytes);
        }
        if bytes.is_empty() {
            return (Ok(()), bytes);
        }
        let payload = Bytes { bytes, position: 0, _endpoint: self.endpoint.clone() };
        let operation = self.start(payload);
        *self.in_flight.borrow_mut() = Some(operation);
        self.end().await
    }
}
