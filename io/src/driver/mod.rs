//! The seam between a core and what carries out its operations.
//!
//! A [`Driver`] submits operations, reaps completions, tells the time, draws random numbers and keeps
//! the names of files. [`ring`] does it with the kernel, [`simulator`] in memory from a seed. The
//! executor, the operation slab, poisoning and resumption of short I/O live above and know neither.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::SystemTime;

use crate::error::Errno;
use crate::fs::Options;
use crate::time::Instant;

pub(crate) mod posix;
pub(crate) mod random;
pub mod ring;
pub mod simulator;

/// Offset of reads and writes on what has none: pipes, signalfds, eventfds.
pub const NO_OFFSET: u64 = u64::MAX;

/// One operation. Pointers and descriptors are raw: the slab that submits it owns what they refer to.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Read {
        fd: RawFd,
        buf: *mut u8,
        len: u32,
        offset: u64,
    },
    Write {
        fd: RawFd,
        buf: *const u8,
        len: u32,
        offset: u64,
    },
    /// A write and, only after all of it succeeded, an fdatasync. Completes in two parts.
    WriteSync {
        fd: RawFd,
        buf: *const u8,
        len: u32,
        offset: u64,
    },
    /// fdatasync.
    Sync {
        fd: RawFd,
    },
    /// `ready` is a hint from the last completion: without it, wait for data before trying.
    Recv {
        fd: RawFd,
        buf: *mut u8,
        len: u32,
        ready: bool,
    },
    Send {
        fd: RawFd,
        buf: *const u8,
        len: u32,
    },
    Accept {
        fd: RawFd,
    },
    Connect {
        fd: RawFd,
        address: *const libc::sockaddr,
        len: libc::socklen_t,
    },
    /// Ready for any of `events` (POLLIN, POLLOUT).
    Poll {
        fd: RawFd,
        events: u32,
    },
}

impl Op {
    /// Completions the driver will deliver.
    pub fn parts(&self) -> u8 {
        if matches!(self, Self::WriteSync { .. }) { 2 } else { 1 }
    }

    /// Whether waiting for it has no bound of its own, so that an abandoned one must be cancelled.
    /// File operations end by themselves, and a cancelled write would only be less certain.
    pub fn is_unbounded(&self) -> bool {
        match self {
            Self::Read { offset, .. } | Self::Write { offset, .. } => *offset == NO_OFFSET,
            Self::WriteSync { .. } | Self::Sync { .. } => false,
            Self::Recv { .. } | Self::Send { .. } | Self::Accept { .. } | Self::Connect { .. } | Self::Poll { .. } => true,
        }
    }
}

/// Names a submitted operation: slot of the slab and how often the slot was used before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Token {
    /// Below `u32::MAX`.
    pub slot: u32,
    /// Below 2^31.
    pub generation: u32,
}

/// One part of an operation is over.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub token: Token,
    /// 0, or 1 for the fdatasync of a [`Op::WriteSync`].
    pub part: u8,
    /// A count, or a negated errno.
    pub result: i32,
    /// More data was in the socket after this [`Op::Recv`].
    pub more_ready: bool,
}

/// The submission queue is full: reap, then try again.
#[derive(Debug)]
pub struct Full;

/// How long [`Driver::turn`] may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// Until a completion.
    Completion,
    /// Until a completion or this instant.
    Until(Instant),
}

/// An open file, socket or pipe of some driver; closed when dropped.
pub struct Handle {
    raw: RawFd,
    _owner: Owner,
}

enum Owner {
    Kernel {
        _fd: OwnedFd,
    },
    /// Dropping it tells the driver.
    Driver {
        _guard: Box<dyn Any>,
    },
}

impl Handle {
    pub fn kernel(fd: OwnedFd) -> Self {
        Self { raw: fd.as_raw_fd(), _owner: Owner::Kernel { _fd: fd } }
    }

    /// A descriptor only its driver knows; `guard` is dropped at close.
    pub fn driver(raw: RawFd, guard: Box<dyn Any>) -> Self {
        Self { raw, _owner: Owner::Driver { _guard: guard } }
    }

    pub fn raw(&self) -> RawFd {
        self.raw
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self._owner, Owner::Kernel { .. }) { "kernel" } else { "driver" };
        write!(f, "Handle({} {kind})", self.raw)
    }
}

/// Carries out operations.
///
/// # Safety
/// A completion says that the driver does not use the memory of that part any more, and its count is at
/// most the length asked for. Callers free and read memory on that word.
pub unsafe trait Driver {
    /// Starts `op`; its completions will carry `token`.
    ///
    /// # Safety
    /// Until the last of `op.parts()` completions has been reaped, every pointer in `op` must stay
    /// valid for its length (for writing, if the operation reads into it), nothing else may access
    /// that memory in conflict, and the descriptors must stay open.
    unsafe fn submit(&mut self, token: Token, op: &Op) -> Result<(), Full>;

    /// Asks for the end of an operation. Its completion still comes, with ECANCELED if it was in time.
    fn cancel(&mut self, token: Token) -> Result<(), Full>;

    /// Hands over what was submitted and waits as told. May return early.
    fn turn(&mut self, wait: Wait) -> Result<(), Errno>;

    /// Appends the completions that are there.
    fn reap(&mut self, into: &mut Vec<Completion>);

    /// Operations that may be in flight at once without losing completions.
    fn capacity(&self) -> usize;

    fn now(&self) -> Instant;

    fn wall_clock(&self) -> SystemTime;

    fn random(&mut self) -> u64;

    /// Rare operations on names and metadata. They may block the core for a moment.
    fn names(&mut self) -> &mut dyn Names;
}

/// The name space of files: what is rare enough to be done at once instead of through the ring.
pub trait Names {
    fn open(&mut self, path: &Path, options: &Options) -> Result<Handle, Errno>;
    /// Opens a directory for [`Op::Sync`].
    fn open_dir(&mut self, path: &Path) -> Result<Handle, Errno>;
    fn size(&mut self, handle: &Handle) -> Result<u64, Errno>;
    fn set_len(&mut self, handle: &Handle, len: u64) -> Result<(), Errno>;
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno>;
    fn remove_file(&mut self, path: &Path) -> Result<(), Errno>;
    fn remove_dir_all(&mut self, path: &Path) -> Result<(), Errno>;
    fn create_dir_all(&mut self, path: &Path) -> Result<(), Errno>;
    /// Names of the entries, sorted.
    fn read_dir(&mut self, path: &Path) -> Result<Vec<String>, Errno>;
    fn exists(&mut self, path: &Path) -> Result<bool, Errno>;
    /// Name of the file system `path` (or its directory) lies on.
    fn filesystem(&mut self, path: &Path) -> String;
}
