//! An open file.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::io::{Kind, transfer};
use super::poison::Shared;
use crate::IoBuf;
use crate::buf::ALIGNMENT;
use crate::error::{Errno, IoError};
use crate::executor::Core;

/// How to open a file. The default opens nothing: set `read`, `write` or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub read: bool,
    pub write: bool,
    /// O_CREAT, mode 0600.
    pub create: bool,
    /// O_CREAT | O_EXCL: the file must not exist.
    pub create_new: bool,
    /// O_TRUNC
    pub truncate: bool,
    /// O_DIRECT: offsets and lengths must be multiples of the device's block size ([`ALIGNMENT`] always
    /// is one).
    pub direct: bool,
    /// O_DSYNC: a write returns when it is durable.
    pub dsync: bool,
}

/// A file. Clones share it, also its poisoning; it is closed when the last clone is dropped and the
/// last operation on it has ended.
///
/// **Poisoning.** Once a write or sync has failed, every later write and sync of this `File` fails
/// with [`IoError::Poisoned`] and the first reason. Reads go on.
///
/// **Dropped futures.** An operation in flight runs to its end in the kernel, with the buffer and the
/// file it needs. A dropped write may have happened in part; later operations on its range, and syncs,
/// wait for it, and its failure poisons the file.
#[derive(Clone)]
pub struct File {
    shared: Rc<Shared>,
}

/// Tries without progress before a transfer gives up.
const IDLE_TRIES_MAX: u32 = 16;

/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 1 << 20;

impl File {
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, IoError> {
        let path: Arc<Path> = path.as_ref().into();
        let core = Core::current();
        match core.names(|names| names.open(&path, &options)) {
            Ok(handle) => Ok(Self { shared: Rc::new(Shared::new(handle, path, options.direct, options.dsync)) }),
            Err(Errno(libc::EINVAL)) if options.direct => {
                let filesystem = core.names(|names| names.filesystem(&path));
                Err(IoError::DirectUnsupported { path, filesystem })
            }
            Err(errno) => Err(IoError::Path { operation: "open", path, errno }),
        }
    }

    pub(super) async fn open_dir(path: &Path) -> Result<Self, IoError> {
        let handle =
            Core::current().names(|names| names.open_dir(path)).map_err(|errno| IoError::path("open directory", path, errno))?;
        Ok(Self { shared: Rc::new(Shared::new(handle, path.into(), false, false)) })
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// A write or sync has failed; see [`File`].
    pub fn is_poisoned(&self) -> bool {
        self.shared.is_poisoned()
    }

    /// Reads into all of `buf` (its length, which stays as it is) and returns how many bytes the file
    /// had; fewer only at its end.
    pub async fn read_at(&self, buf: IoBuf, offset: u64) -> (Result<usize, IoError>, IoBuf) {
        self.shared.wait_for_fences(range(offset, buf.len())).await;
        let (mut buf, mut done, mut tries) = (buf, 0, 0);
        while done < buf.len() {
            let (result, back, _) = transfer(&self.shared, Kind::Read, buf, offset, done, None).await;
            buf = back;
            let end = match result {
                Ok(0) => break,
                Ok(count) => done + count,
                Err(error) => match self.retry(error, &mut tries) {
                    Ok(()) => continue,
                    Err(error) => return (Err(error), buf),
                },
            };
            // A direct read cannot go on within a block: at the end of the file it is over, else the
            // block is read once more.
            let begin = if self.shared.direct && end < buf.len() { end - end % ALIGNMENT } else { end };
            if begin == end {
                (done, tries) = (end, 0);
            } else if self.is_end(offset + end as u64) {
                return (Ok(end), buf);
            } else if tries < IDLE_TRIES_MAX {
                done = begin;
                tries += 1;
            } else {
                return (Err(self.no_progress(Kind::Read, offset, done)), buf);
            }
        }
        (Ok(done), buf)
    }

    /// Reads all of `buf`; the file ending before that is [`IoError::UnexpectedEof`].
    pub async fn read_exact_at(&self, buf: IoBuf, offset: u64) -> (Result<(), IoError>, IoBuf) {
        let (result, buf) = self.read_at(buf, offset).await;
        let result = match result {
            Ok(got) if got == buf.len() => Ok(()),
            Ok(got) => Err(IoError::UnexpectedEof { path: self.shared.path.clone(), offset, wanted: buf.len(), got }),
            Err(error) => Err(error),
        };
        (result, buf)
    }

    /// Writes all of `buf`. Durable only after [`sync_data`](Self::sync_data) or with [`Options::dsync`].
    pub async fn write_all_at(&self, buf: IoBuf, offset: u64) -> (Result<(), IoError>, IoBuf) {
        self.write(Kind::Write, buf, offset).await
    }

    /// Writes all of `buf` and flushes the file: on success these bytes, and all whose write had
    /// returned before, survive a power failure. One trip to the kernel: the flush is linked to the
    /// write and does not run if the write failed.
    pub async fn write_durable_at(&self, buf: IoBuf, offset: u64) -> (Result<(), IoError>, IoBuf) {
        let kind = if self.shared.dsync { Kind::Write } else { Kind::WriteSync };
        self.write(kind, buf, offset).await
    }

    async fn write(&self, kind: Kind, buf: IoBuf, offset: u64) -> (Result<(), IoError>, IoBuf) {
        let shared = &self.shared;
        let mut turn = None;
        if kind == Kind::WriteSync {
            shared.wait_for_fences(0..u64::MAX).await;
            turn = Some(shared.begin_sync().await);
        } else {
            shared.wait_for_fences(range(offset, buf.len())).await;
        }
        if let Err(error) = shared.check(kind.name()) {
            return (Err(error), buf);
        }
        let (mut buf, mut done, mut tries) = (buf, 0, 0);
        while done < buf.len() {
            let (result, back, turn_back) = transfer(shared, kind, buf, offset, done, turn).await;
            (buf, turn) = (back, turn_back);
            match result {
                Ok(count) => {
                    // Direct I/O resumes at a block boundary and writes the block's begin once more.
                    let kept = match done + count {
                        all if all == buf.len() || !shared.direct => all,
                        part => part - part % ALIGNMENT,
                    };
                    if kept > done {
                        done = kept;
                        tries = 0;
                    } else if tries < IDLE_TRIES_MAX {
                        tries += 1;
                    } else {
                        let error = self.no_progress(kind, offset, done);
                        shared.poison(&error);
                        return (Err(error), buf);
                    }
                }
                Err(error) => {
                    if let Err(error) = self.retry(error, &mut tries) {
                        return (Err(error), buf);
                    }
                }
            }
        }
        // An overlapping write may have failed meanwhile; do not report durability it contradicts.
        let result = if kind == Kind::WriteSync { shared.check(kind.name()) } else { Ok(()) };
        (result, buf)
    }

    /// Nothing if the failed operation did nothing and may be tried again, else the error to report.
    fn retry(&self, error: IoError, tries: &mut u32) -> Result<(), IoError> {
        match error.errno() {
            Some(errno) if errno.is_transient() && *tries < IDLE_TRIES_MAX => {
                *tries += 1;
                Ok(())
            }
            Some(errno) if errno.is_transient() && !matches!(error, IoError::File { operation: "read", .. }) => {
                self.shared.poison(&error);
                Err(error)
            }
            Some(Errno(libc::EINVAL)) if self.shared.direct => Err(self.misaligned(error)),
            _ => Err(error),
        }
    }

    fn is_end(&self, offset: u64) -> bool {
        // Without a size the next read decides.
        let size = Core::current().names(|names| names.size(&self.shared.handle));
        size.is_ok_and(|size| offset >= size)
    }

    fn no_progress(&self, kind: Kind, offset: u64, done: usize) -> IoError {
        IoError::NoProgress { operation: kind.name(), path: self.shared.path.clone(), offset: offset + done as u64 }
    }

    /// The likely reason of an EINVAL of direct I/O.
    fn misaligned(&self, error: IoError) -> IoError {
        let alignment = ALIGNMENT as u64;
        match error {
            IoError::File { operation, path, offset, len, .. }
                if !offset.is_multiple_of(alignment) || !len.is_multiple_of(alignment) =>
            {
                IoError::Misaligned { operation, path, offset, len, alignment }
            }
            error => error,
        }
    }

    /// Flushes the file: all bytes whose write had returned before, and the size they need, survive a
    /// power failure.
    pub async fn sync_data(&self) -> Result<(), IoError> {
        self.shared.wait_for_fences(0..u64::MAX).await;
        let turn = self.shared.begin_sync().await;
        self.shared.check(Kind::Sync.name())?;
        let (result, _, turn) = transfer(&self.shared, Kind::Sync, IoBuf::default(), 0, 0, Some(turn)).await;
        drop(turn);
        result?;
        self.shared.check(Kind::Sync.name())
    }

    /// Sets the size; bytes gained read as zeros and take no space. Not durable by itself.
    pub async fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.shared.wait_for_fences(0..u64::MAX).await;
        self.shared.check("truncate")?;
        Core::current().names(|names| names.set_len(&self.shared.handle, len)).map_err(|errno| IoError::File {
            operation: "truncate",
            path: self.shared.path.clone(),
            offset: len,
            len: 0,
            errno,
        })
    }

    pub async fn size(&self) -> Result<u64, IoError> {
        Core::current()
            .names(|names| names.size(&self.shared.handle))
            .map_err(|errno| IoError::path("stat", &self.shared.path, errno))
    }

    /// Writes zeros, so that later writes there need no new blocks and their flush no metadata. Not
    /// durable by itself.
    pub async fn fill_zeros(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let (mut position, end) = (offset, offset + len);
        let mut buf = IoBuf::zeroed(ZERO_BYTES.min(usize::try_from(len).unwrap_or(ZERO_BYTES)));
        while position < end {
            let piece = (end - position).min(buf.capacity() as u64).min(ZERO_BYTES as u64);
            buf.truncate(piece as usize);
            let (result, back) = self.write_all_at(buf, position).await;
            result?;
            buf = back;
            position += piece;
        }
        Ok(())
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.shared.path).field("poisoned", &self.is_poisoned()).finish()
    }
}

fn range(offset: u64, len: usize) -> std::ops::Range<u64> {
    offset..offset.saturating_add(len as u64)
}
