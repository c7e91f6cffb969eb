//! A listening socket.

use std::fmt::Display;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::address;
use super::stream::Stream;
use crate::driver::{Handle, Op};
use crate::error::{Errno, IoError};
use crate::executor::{Operation, Outcome, Payload};

/// Connections the kernel holds for us until they are accepted; net.core.somaxconn bounds it too.
const BACKLOG: libc::c_int = 4096;

enum Local {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Accepts connections. A unix socket's file is removed when the listener is dropped.
pub struct Listener {
    handle: Rc<Handle>,
    local: Local,
    name: Arc<str>,
    /// An accept whose future may be gone; its connection goes to the next one.
    in_flight: Option<Operation<Accepting>>,
}

struct Accepting {
    _listener: Rc<Handle>,
}

impl Payload for Accepting {
    fn orphaned(&mut self, outcome: Outcome) {
        if outcome.result >= 0 {
            // SAFETY: the kernel made the descriptor for this accept, and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(outcome.result) });
        }
    }
}

impl Listener {
    /// Listens on `HOST:PORT` (or a `SocketAddr`); port 0 takes a free one, see
    /// [`local_addr`](Self::local_addr).
    pub fn bind_tcp<A: ToSocketAddrs + Display>(address: A) -> Result<Self, IoError> {
        let resolved = address::resolve(&address)?;
        let name: Arc<str> = resolved.to_string().into();
        // std sets SO_REUSEADDR, so that a restart need not wait for old connections. Not SO_REUSEPORT:
        // a second daemon on the same port must fail instead of taking half of the connections.
        let bound = TcpListener::bind(resolved).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (local, listener) = bound.map_err(|error| listen_error(&name, error.into()))?;
        Self::new(listener.into(), Local::Tcp(local), local.to_string().into())
    }

    /// Listens on a unix socket. The file a dead process left is replaced, a live one's is an error.
    pub fn bind_unix(path: impl AsRef<Path>) -> Result<Self, IoError> {
        let path = path.as_ref();
        let name: Arc<str> = path.display().to_string().into();
        let listener = match UnixListener::bind(path) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && is_dead(path) => {
                std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            other => other,
        };
        let listener = listener.map_err(|error| listen_error(&name, error.into()))?;
        Self::new(listener.into(), Local::Unix(path.into()), name)
    }

    fn new(fd: OwnedFd, local: Local, name: Arc<str>) -> Result<Self, IoError> {
        // A second listen only sets the backlog, which std has at 128.
        // SAFETY: plain system call on an open descriptor.
        if unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) } < 0 {
            return Err(listen_error(&name, Errno::last()));
        }
        Ok(Self { handle: Rc::new(Handle::kernel(fd)), local, name, in_flight: None })
    }

    /// The next connection. Dropping the future loses none. An error (too many open files) says nothing
    /// about the next one: wait a little, then go on.
    pub async fn accept(&mut self) -> Result<Stream, IoError> {
        loop {
            let operation = self.in_flight.get_or_insert_with(|| {
                let op = Op::Accept { fd: self.handle.raw() };
                // SAFETY: the payload shares the descriptor; no memory is involved.
                unsafe { Operation::submit(op, Accepting { _listener: self.handle.clone() }) }
            });
            let (outcome, _) = std::future::poll_fn(|cx| operation.poll_outcome(cx)).await;
            self.in_flight = None;
            match Errno::check(outcome.result) {
                Ok(_) => {
                    // SAFETY: the kernel made the descriptor for this accept, and nobody else knows it.
                    let fd = unsafe { OwnedFd::from_raw_fd(outcome.result) };
                    return Ok(self.accepted(fd));
                }
                // The connection was gone before we came.
                Err(Errno(libc::ECONNABORTED)) => {}
                Err(errno) if errno.is_transient() => {}
                Err(errno) => {
                    return Err(IoError::Socket { operation: "accept on", address: self.name.clone(), errno });
                }
            }
        }
    }

    fn accepted(&self, fd: OwnedFd) -> Stream {
        match &self.local {
            Local::Tcp(_) => {
                let peer = std::net::TcpStream::from(fd);
                let name = peer.peer_addr().map_or_else(|_| "a peer already gone".into(), |address| address.to_string());
                Stream::tcp(Handle::kernel(peer.into()), name.into())
            }
            Local::Unix(_) => {
                let name = format!("{} ({})", self.name, peer_process(&fd));
                Stream::new(Handle::kernel(fd), name.into())
            }
        }
    }

    /// The bound TCP address, with the port the kernel chose; None for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.local {
            Local::Tcp(address) => Some(address),
            Local::Unix(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn raw(&self) -> std::os::fd::RawFd {
        self.handle.raw()
    }

    /// The bound address as text.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Local::Unix(path) = &self.local {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Nobody listens on the socket file.
fn is_dead(path: &Path) -> bool {
    matches!(UnixStream::connect(path), Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn peer_process(fd: &OwnedFd) -> String {
    let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(fd);
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let place = std::ptr::from_mut(&mut credentials).cast();
    // SAFETY: place is writable for len bytes.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &mut len) };
    if result < 0 { "process unknown".into() } else { format!("process {}", credentials.pid) }
}

fn listen_error(name: &Arc<str>, errno: Errno) -> IoError {
    IoError::Socket { operation: "listen on", address: name.clone(), errno }
}
