//! A connection.

use std::fmt::Display;
use std::net::ToSocketAddrs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::address;
use super::half::{Endpoint, Incoming, Medium, Outgoing};
use crate::driver::{Handle, Op};
use crate::error::{Errno, IoError};
use crate::executor::{Operation, Payload};
use crate::time;

/// A connected socket, closed when dropped (both halves, if split).
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

/// The receiving half of a [`Stream`], or the reading end of a pipe.
pub struct Reader {
    endpoint: Rc<Endpoint>,
    incoming: Incoming,
}

/// The sending half of a [`Stream`], or the writing end of a pipe.
pub struct Writer {
    endpoint: Rc<Endpoint>,
    outgoing: Outgoing,
}

impl Reader {
    pub(crate) fn new(endpoint: Rc<Endpoint>) -> Self {
        Self { incoming: Incoming::new(endpoint.clone()), endpoint }
    }

    /// Appends up to `max` received bytes to `bytes` and gives it back with their number; 0 is the end of
    /// the stream. If the future is dropped, `bytes` goes with it, but what was to be received comes
    /// with the next read: for a buffer that gathers, use [`read_into`](Self::read_into).
    pub async fn read(&mut self, bytes: Vec<u8>, max: usize) -> (Result<usize, IoError>, Vec<u8>) {
        self.incoming.read(bytes, max).await
    }

    /// As [`read`](Self::read), into a buffer that stays with the caller; for that it copies once.
    /// Dropping the future loses nothing.
    pub async fn read_into(&mut self, bytes: &mut Vec<u8>, max: usize) -> Result<usize, IoError> {
        self.incoming.read_into(bytes, max).await
    }

    /// The name of the other side.
    pub fn peer(&self) -> &Arc<str> {
        &self.endpoint.name
    }

    /// Ends both directions; see [`Stream::shutdown`].
    pub fn shutdown(&self) {
        shutdown(&self.endpoint, libc::SHUT_RDWR);
    }
}

impl Writer {
    pub(crate) fn new(endpoint: Rc<Endpoint>) -> Self {
        Self { outgoing: Outgoing::new(endpoint.clone()), endpoint }
    }

    /// Sends all of `bytes` and gives it back. If the future is dropped, what is left of it is sent
    /// before the next write; without a next write an unknown part of it is.
    /// After an error nothing more can be sent.
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> (Result<(), IoError>, Vec<u8>) {
        self.outgoing.write_all(bytes).await
    }

    pub fn peer(&self) -> &Arc<str> {
        &self.endpoint.name
    }

    /// Ends both directions; see [`Stream::shutdown`].
    pub fn shutdown(&self) {
        shutdown(&self.endpoint, libc::SHUT_RDWR);
    }

    /// Ends the sending direction; the peer reads the end of the stream.
    pub fn shutdown_write(&self) {
        shutdown(&self.endpoint, libc::SHUT_WR);
    }
}

/// Fails only on a socket that is not connected any more, which is what was wanted.
fn shutdown(endpoint: &Endpoint, how: libc::c_int) {
    if endpoint.medium == Medium::Socket {
        // SAFETY: plain system call on an open descriptor.
        unsafe { libc::shutdown(endpoint.handle.raw(), how) };
    }
}

struct Connecting {
    handle: Handle,
    _address: address::Raw,
}

impl Payload for Connecting {}

impl Stream {
    /// Connects to `HOST:PORT` (or a `SocketAddr`), TCP_NODELAY set. A host name is looked up first, which
    /// may block the core; a number is not.
    pub async fn connect_tcp<A: ToSocketAddrs + Display>(address: A, timeout: Duration) -> Result<Self, IoError> {
        let resolved = address::resolve(&address)?;
        let name: Arc<str> = resolved.to_string().into();
        let domain = if resolved.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let connecting = Self::connect(domain, address::tcp(resolved), name.clone());
        match time::timeout(timeout, connecting).await {
            Ok(connected) => Ok(Self::tcp(connected?, name)),
            Err(_) => Err(IoError::TimedOut { operation: "connect to", address: name, after: timeout }),
        }
    }

    /// Connects to a unix socket.
    pub async fn connect_unix(path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        let name: Arc<str> = path.display().to_string().into();
        let raw = address::unix(path).map_err(|errno| connect_error(&name, errno))?;
        let handle = Self::connect(libc::AF_UNIX, raw, name.clone()).await?;
        Ok(Self::new(handle, name))
    }

    async fn connect(domain: libc::c_int, raw: address::Raw, name: Arc<str>) -> Result<Handle, IoError> {
        // Not SOCK_NONBLOCK: the ring would answer EAGAIN instead of waiting.
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(connect_error(&name, Errno::last()));
        }
        // SAFETY: just created, owned by nobody else.
        let handle = Handle::kernel(unsafe { OwnedFd::from_raw_fd(fd) });
        let op = Op::Connect { fd: handle.raw(), address: Rc::as_ptr(&raw.storage).cast(), len: raw.len };
        // SAFETY: the payload owns the socket and shares the address, which stays in place.
        let operation = unsafe { Operation::submit(op, Connecting { handle, _address: raw }) };
        let (outcome, payload) = operation.await;
        match Errno::check(outcome.result) {
            Ok(_) => Ok(payload.handle),
            Err(errno) => Err(connect_error(&name, errno)),
        }
    }

    pub(super) fn new(handle: Handle, name: Arc<str>) -> Self {
        let endpoint = Rc::new(Endpoint { handle, medium: Medium::Socket, name });
        Self { reader: Reader::new(endpoint.clone()), writer: Writer::new(endpoint) }
    }

    pub(super) fn tcp(handle: Handle, name: Arc<str>) -> Self {
        set_option(handle.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY);
        // A peer that vanished is noticed also without traffic.
        set_option(handle.raw(), libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        Self::new(handle, name)
    }

    /// See [`Reader::read`].
    pub async fn read(&mut self, bytes: Vec<u8>, max: usize) -> (Result<usize, IoError>, Vec<u8>) {
        self.reader.read(bytes, max).await
    }

    /// See [`Reader::read_into`].
    pub async fn read_into(&mut self, bytes: &mut Vec<u8>, max: usize) -> Result<usize, IoError> {
        self.reader.read_into(bytes, max).await
    }

    /// See [`Writer::write_all`].
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> (Result<(), IoError>, Vec<u8>) {
        self.writer.write_all(bytes).await
    }

    /// Ends both directions now, whoever still holds halves of it: pending and later reads give 0,
    /// writes fail.
    pub fn shutdown(&self) {
        self.writer.shutdown();
    }

    /// Ends the sending direction; the peer reads the end of the stream.
    pub fn shutdown_write(&self) {
        self.writer.shutdown_write();
    }

    /// Halves for two tasks. The socket closes when both are dropped; end it earlier by `shutdown`.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// The address of the other side.
    pub fn peer(&self) -> &Arc<str> {
        self.reader.peer()
    }
}

fn connect_error(name: &Arc<str>, errno: Errno) -> IoError {
    IoError::Socket { operation: "connect to", address: name.clone(), errno }
}

/// Switches an option on. These are hints for the kernel: the connection works without.
fn set_option(fd: i32, level: libc::c_int, option: libc::c_int) {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: on is readable for len bytes.
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(&on).cast(), len) };
}
