//! What can go wrong: starting a core ([`Error`]) and operating on one ([`IoError`]).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A kernel error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `errno`.
    pub(crate) fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// A negative completion result as an errno, anything else as a count.
    pub(crate) fn check(result: i32) -> Result<usize, Errno> {
        if result < 0 { Err(Errno(-result)) } else { Ok(result as usize) }
    }

    /// The call did nothing and may be repeated as it was.
    pub(crate) fn is_transient(self) -> bool {
        self.0 == libc::EINTR || self.0 == libc::EAGAIN
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a core could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("Linux 6.1 or newer with io_uring is needed, this is Linux {found} ({errno}): boot a newer kernel")]
    Kernel { found: String, errno: Errno },

    #[error(
        "io_uring is not allowed here (kernel.io_uring_disabled = {sysctl}): run `sysctl -w kernel.io_uring_disabled=0`, \
         or, in a container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
    )]
    Disabled { sysctl: String },

    #[error("{step} of the io_uring failed: {errno}")]
    Ring { step: &'static str, errno: Errno },

    #[error("not enough locked memory for an io_uring of {entries} entries: raise `ulimit -l` (RLIMIT_MEMLOCK)")]
    LockedMemory { entries: u32 },

    #[error("this thread already runs a core; one thread runs one core")]
    Nested,
}

/// Why an operation failed. Cheap to clone: a poisoned file repeats its first reason.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    #[error("{operation} of {} failed: {errno}", path.display())]
    Path { operation: &'static str, path: Arc<Path>, errno: Errno },

    #[error("{operation} of {} at offset {offset}, {len} bytes, failed: {errno}", path.display())]
    File { operation: &'static str, path: Arc<Path>, offset: u64, len: u64, errno: Errno },

    #[error("{operation} of {} refused, an earlier failure poisoned the file: {reason}", path.display())]
    Poisoned { operation: &'static str, path: Arc<Path>, reason: Arc<IoError> },

    #[error("{} ends at offset {}, {wanted} bytes were wanted from offset {offset}", path.display(), offset + *got as u64)]
    UnexpectedEof { path: Arc<Path>, offset: u64, wanted: usize, got: usize },

    #[error("{operation} of {} at offset {offset} makes no progress", path.display())]
    NoProgress { operation: &'static str, path: Arc<Path>, offset: u64 },

    #[error("{operation} of {} at offset {offset}, {len} bytes: direct I/O needs multiples of {alignment}", path.display())]
    Misaligned { operation: &'static str, path: Arc<Path>, offset: u64, len: u64, alignment: u64 },

    #[error(
        "{} lies on {filesystem}, which has no direct I/O: keep the data on ext4 or xfs, or open the file without it",
        path.display()
    )]
    DirectUnsupported { path: Arc<Path>, filesystem: String },

    #[error("{operation} {address}: {errno}")]
    Socket { operation: &'static str, address: Arc<str>, errno: Errno },

    #[error("{address} is not an address this host can resolve: {reason}")]
    Address { address: Arc<str>, reason: Arc<str> },

    #[error("{operation} {address}: no answer within {after:?}")]
    TimedOut { operation: &'static str, address: Arc<str>, after: Duration },

    #[error("{operation} {program}: {errno}")]
    Process { operation: &'static str, program: Arc<str>, errno: Errno },

    #[error("{operation}: {errno}")]
    Signal { operation: &'static str, errno: Errno },
}

impl IoError {
    pub(crate) fn path(operation: &'static str, path: &Path, errno: Errno) -> Self {
        Self::Path { operation, path: path.into(), errno }
    }

    /// The kernel's error number, of the first failure if the file is poisoned.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Path { errno, .. }
            | Self::File { errno, .. }
            | Self::Socket { errno, .. }
            | Self::Process { errno, .. }
            | Self::Signal { errno, .. } => Some(*errno),
            Self::Poisoned { reason, .. } => reason.errno(),
            _ => None,
        }
    }

    /// The file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno(libc::ENOENT))
    }

    /// The file exists already (`create_new`).
    pub fn is_already_exists(&self) -> bool {
        self.errno() == Some(Errno(libc::EEXIST))
    }

    /// The peer of a socket or pipe is gone: nothing to report, the connection is over.
    pub fn is_disconnected(&self) -> bool {
        matches!(self.errno(), Some(Errno(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN)))
    }
}
