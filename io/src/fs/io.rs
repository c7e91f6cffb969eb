//! One operation on a file, with all it owns.

use std::rc::Rc;

use super::poison::{Shared, SyncTurn};
use crate::IoBuf;
use crate::driver::Op;
use crate::error::{Errno, IoError};
use crate::executor::{Operation, Outcome, Payload};

/// Longest single transfer; the kernel cuts at 2 GiB minus a page.
pub(super) const TRANSFER_BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    /// A write linked to an fdatasync.
    WriteSync,
    Sync,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteSync => "durable write",
            Self::Sync => "fdatasync",
        }
    }
}

/// Keeps file and buffer until the kernel's last completion.
pub(super) struct FileIo {
    pub(super) buf: IoBuf,
    pub(super) turn: Option<SyncTurn>,
    file: Rc<Shared>,
    kind: Kind,
    offset: u64,
    len: u64,
    abandoned: bool,
}

impl FileIo {
    /// What an outcome says about the device, if it is a failure that poisons.
    fn failure(&self, outcome: Outcome) -> Option<IoError> {
        if self.kind == Kind::Read {
            return None;
        }
        let write = Errno::check(outcome.result);
        let errno = match write {
            // The core ended before the operation began.
            Err(Errno(libc::ECANCELED)) => return None,
            Err(errno) if errno.is_transient() && self.kind != Kind::Sync => return None,
            Err(errno) => errno,
            // The sync of a short write is cancelled by the kernel, and done after the rest.
            Ok(count) if self.kind == Kind::WriteSync && count as u64 == self.len => match Errno::check(outcome.sync) {
                Err(errno) => return Some(self.error(Kind::Sync, errno)),
                Ok(_) => return None,
            },
            Ok(_) => return None,
        };
        Some(self.error(self.kind, errno))
    }

    fn error(&self, kind: Kind, errno: Errno) -> IoError {
        match kind {
            Kind::Sync => IoError::path(kind.name(), &self.file.path, errno),
            _ => {
                IoError::File { operation: kind.name(), path: self.file.path.clone(), offset: self.offset, len: self.len, errno }
            }
        }
    }
}

impl Payload for FileIo {
    fn abandoned(&mut self) {
        if matches!(self.kind, Kind::Write | Kind::WriteSync) {
            self.abandoned = true;
            self.file.fence(self.offset..self.offset + self.len);
        }
    }

    fn orphaned(&mut self, outcome: Outcome) {
        if let Some(reason) = self.failure(outcome) {
            self.file.poison(&reason);
        }
    }
}

impl Drop for FileIo {
    fn drop(&mut self) {
        if self.abandoned {
            self.file.lift_fence(&(self.offset..self.offset + self.len));
        }
    }
}

/// One try: transfers bytes of `buf` from index `done` on, at `offset` + `done`. Poisons the file if the
/// outcome says so.
pub(super) async fn transfer(
    file: &Rc<Shared>,
    kind: Kind,
    mut buf: IoBuf,
    offset: u64,
    done: usize,
    turn: Option<SyncTurn>,
) -> (Result<usize, IoError>, IoBuf, Option<SyncTurn>) {
    let len = (buf.len() - done).min(TRANSFER_BYTES_MAX);
    let offset = offset + done as u64;
    let fd = file.handle.raw();
    let start = buf.as_mut_ptr().wrapping_add(done);
    let op = match kind {
        Kind::Read => Op::Read { fd, buf: start, len: len as u32, offset },
        Kind::Write => Op::Write { fd, buf: start, len: len as u32, offset },
        Kind::WriteSync => Op::WriteSync { fd, buf: start, len: len as u32, offset },
        Kind::Sync => Op::Sync { fd },
    };
    let payload = FileIo { buf, turn, file: file.clone(), kind, offset, len: len as u64, abandoned: false };
    // SAFETY: the payload owns the buffer, whose memory does not move with it and holds done + len
    // bytes, and shares the file, whose descriptor is open as long.
    let (outcome, mut payload) = unsafe { Operation::submit(op, payload) }.await;
    let result = match payload.failure(outcome) {
        Some(reason) => {
            file.poison(&reason);
            Err(reason)
        }
        None => Errno::check(outcome.result).map_err(|errno| payload.error(kind, errno)),
    };
    let turn = payload.turn.take();
    let buf = std::mem::take(&mut payload.buf);
    (result, buf, turn)
}
