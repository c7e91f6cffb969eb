//! A driver in memory, for tests: files and timers from a seed.
//!
//! Time is virtual and stands still while tasks run; it jumps to the next completion or timer when a
//! core waits. Operations end after random delays, so in any order, and fail as [`Faults`] says. The
//! same seed gives the same trace. What a power failure would leave is [`Disk::crash`]'s business.
//!
//! Sockets, children and signals are not simulated: those operations end with ENOSYS.

mod disk;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

pub use disk::Disk;
use disk::{Node, SECTOR};

use super::random::SplitMix;
use super::{Completion, Driver, Full, Handle, NO_OFFSET, Names, Op, Token, Wait};
use crate::buf::ALIGNMENT;
use crate::error::Errno;
use crate::fs::Options;
use crate::time::Instant;

/// Submission queue entries.
const CAPACITY: usize = 64;

/// Descriptors of the simulator start here, above any of the kernel's.
const FIRST_FD: RawFd = 1 << 24;

/// How often, of a thousand operations, something goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Reads that fail with EIO.
    pub failed_reads: u32,
    /// Writes that fail with EIO after some of their sectors changed.
    pub failed_writes: u32,
    /// Syncs that fail with EIO. As in Linux what they should have made durable never will be, while
    /// reads still show it and the next sync succeeds.
    pub failed_syncs: u32,
    /// Reads and writes that transfer only a part.
    pub short_transfers: u32,
    /// Reads and writes that end with EINTR or EAGAIN and do nothing.
    pub interrupted: u32,
}

/// The hash of all completions so far; equal for equal seeds.
#[derive(Debug, Clone, Default)]
pub struct Trace(Rc<Cell<u64>>);

impl Trace {
    pub fn hash(&self) -> u64 {
        self.0.get()
    }

    fn add(&self, value: u64) {
        self.0.set(SplitMix(self.0.get() ^ value).next());
    }
}

enum Action {
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
        synced: bool,
    },
    /// What had changed up to this moment.
    Sync {
        fd: RawFd,
        changes: u64,
    },
    End(i32),
}

struct Event {
    token: Token,
    part: u8,
    action: Action,
}

/// See the module.
pub struct Simulator {
    now: Instant,
    random: SplitMix,
    faults: Faults,
    /// By time; the second number shuffles what ends at the same one.
    events: BTreeMap<(Instant, u64), Event>,
    /// Wait for a cancel.
    hanging: Vec<Token>,
    queued: usize,
    ended: Vec<Completion>,
    files: SimulatedNames,
    trace: Trace,
}

struct SimulatedNames {
    disk: Disk,
    open: Rc<RefCell<BTreeMap<RawFd, Open>>>,
    next_fd: RawFd,
}

#[derive(Clone)]
struct Open {
    node: Node,
    direct: bool,
    dsync: bool,
    writable: bool,
}

/// Closes a descriptor.
struct Close {
    open: Rc<RefCell<BTreeMap<RawFd, Open>>>,
    fd: RawFd,
}

impl Drop for Close {
    fn drop(&mut self) {
        self.open.borrow_mut().remove(&self.fd);
    }
}

impl Simulator {
    pub fn new(seed: u64, disk: Disk, faults: Faults) -> Self {
        Self {
            now: Instant::from_nanos(1_000_000_000),
            random: SplitMix(seed),
            faults,
            events: BTreeMap::new(),
            hanging: Vec::new(),
            queued: 0,
            ended: Vec::new(),
            files: SimulatedNames { disk, open: Rc::default(), next_fd: FIRST_FD },
            trace: Trace::default(),
        }
    }

    pub fn trace(&self) -> Trace {
        self.trace.clone()
    }

    /// True in `permille` of a thousand cases.
    fn chance(&mut self, permille: u32) -> bool {
        self.random.next() % 1000 < u64::from(permille)
    }

    fn schedule(&mut self, token: Token, part: u8, action: Action) {
        // Between 10 us and 1 ms, mostly short.
        let delay = Duration::from_micros(10 + self.random.next() % (1 + self.random.next() % 990));
        let key = (self.now + delay, self.random.next());
        self.events.insert(key, Event { token, part, action });
    }

    fn end(&mut self, token: Token, part: u8, result: i32) {
        self.trace.add(self.now.as_nanos());
        self.trace.add(u64::from(token.slot) << 32 | u64::from(part) << 31 | u64::from(result as u32 >> 1));
        self.ended.push(Completion { token, part, result, more_ready: false });
    }

    fn carry_out(&mut self, Event { token, part, action }: Event) {
        match action {
            Action::End(result) => self.end(token, part, result),
            Action::Read { fd, buf, len, offset } => {
                let result = self.read(fd, buf, len as usize, offset);
                self.end(token, part, count(result));
            }
            Action::Write { fd, buf, len, offset, synced } => {
                // SAFETY: the submitter keeps len bytes at buf readable until it has reaped the completion.
                let bytes = unsafe { std::slice::from_raw_parts(buf, len as usize) };
                let result = self.write(fd, bytes, offset);
                if synced && result == Ok(bytes.len()) {
                    let action = self.sync_action(fd);
                    self.schedule(token, 1, action);
                } else if synced {
                    self.end(token, 1, -libc::ECANCELED);
                }
                self.end(token, part, count(result));
            }
            Action::Sync { fd, changes } => {
                match self.sync(fd, changes) {
                    Ok(count) => self.end(token, part, count as i32),
                    // The loss is there before the news of it: a sync that overlaps may report success first.
                    Err(Errno(errno)) => self.schedule(token, part, Action::End(-errno)),
                }
            }
        }
    }

    fn sync_action(&self, fd: RawFd) -> Action {
        Action::Sync { fd, changes: self.files.disk.changes() }
    }

    fn transfer_len(&mut self, file: &Open, len: usize, offset: u64) -> Result<usize, Errno> {
        if self.chance(self.faults.interrupted) {
            return Err(Errno(if self.random.next().is_multiple_of(2) { libc::EINTR } else { libc::EAGAIN }));
        }
        if file.direct && !(len.is_multiple_of(ALIGNMENT) && offset.is_multiple_of(ALIGNMENT as u64)) {
            return Err(Errno(libc::EINVAL));
        }
        if len > 1 && self.chance(self.faults.short_transfers) {
            let unit = if file.direct { SECTOR } else { 1 };
            return Ok(self.random.next() as usize % len.div_ceil(unit) * unit);
        }
        Ok(len)
    }

    fn read(&mut self, fd: RawFd, buf: *mut u8, len: usize, offset: u64) -> Result<usize, Errno> {
        let file = self.files.get(fd)?;
        // A read of nothing would look like the end of the file.
        let len = match self.transfer_len(&file, len, offset)? {
            0 => len.min(SECTOR),
            len => len,
        };
        if self.chance(self.faults.failed_reads) {
            return Err(Errno(libc::EIO));
        }
        file.node.read(offset, len, |bytes| {
            // SAFETY: the submitter keeps len bytes at buf writable until it has reaped the completion,
            // and read gives at most len bytes.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf, bytes.len()) }
        })
    }

    fn write(&mut self, fd: RawFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let file = self.files.get(fd)?;
        if !file.writable {
            return Err(Errno(libc::EBADF));
        }
        let len = self.transfer_len(&file, bytes.len(), offset)?;
        if self.chance(self.faults.failed_writes) {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                if self.random.next().is_multiple_of(2) {
                    self.files.disk.write(&file.node, offset + (index * SECTOR) as u64, sector)?;
                }
            }
            return Err(Errno(libc::EIO));
        }
        self.files.disk.write(&file.node, offset, bytes.get(..len).unwrap_or(bytes))?;
        if file.dsync {
            let changes = self.files.disk.changes();
            self.sync(fd, changes)?;
        }
        Ok(len)
    }

    fn sync(&mut self, fd: RawFd, changes: u64) -> Result<usize, Errno> {
        let file = self.files.get(fd)?;
        if self.chance(self.faults.failed_syncs) {
            self.files.disk.forget(&file.node, changes);
            return Err(Errno(libc::EIO));
        }
        self.files.disk.sync(&file.node, changes);
        Ok(0)
    }
}

fn count(result: Result<usize, Errno>) -> i32 {
    match result {
        Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
        Err(Errno(errno)) => -errno,
    }
}

// SAFETY: an event is gone when its completion is made, and with it the pointers; counts are lengths of
// slices of at most the length asked for.
unsafe impl Driver for Simulator {
    unsafe fn submit(&mut self, token: Token, op: &Op) -> Result<(), Full> {
        let parts = usize::from(op.parts());
        if self.queued + parts > CAPACITY {
            return Err(Full);
        }
        self.queued += parts;
        let action = match *op {
            Op::Read { offset: NO_OFFSET, .. } => {
                self.hanging.push(token);
                return Ok(());
            }
            Op::Read { fd, buf, len, offset } => Action::Read { fd, buf, len, offset },
            Op::Write { fd, buf, len, offset } => Action::Write { fd, buf, len, offset, synced: false },
            Op::WriteSync { fd, buf, len, offset } => Action::Write { fd, buf, len, offset, synced: true },
            Op::Sync { fd } => self.sync_action(fd),
            Op::Recv { .. } | Op::Send { .. } | Op::Accept { .. } | Op::Connect { .. } | Op::Poll { .. } => {
                Action::End(-libc::ENOSYS)
            }
        };
        self.schedule(token, 0, action);
        Ok(())
    }

    fn cancel(&mut self, token: Token) -> Result<(), Full> {
        if let Some(index) = self.hanging.iter().position(|hanging| *hanging == token) {
            self.hanging.swap_remove(index);
            self.end(token, 0, -libc::ECANCELED);
        }
        Ok(())
    }

    fn turn(&mut self, wait: Wait) -> Result<(), Errno> {
        self.queued = 0;
        let next = self.events.first_key_value().map(|(key, _)| key.0);
        let until = match wait {
            _ if !self.ended.is_empty() => self.now,
            Wait::Poll => self.now + Duration::from_micros(1),
            Wait::Until(deadline) => next.map_or(deadline, |next| next.min(deadline)),
            // Nothing is left that could wake the core.
            Wait::Completion => next.ok_or(Errno(libc::EDEADLK))?,
        };
        self.now = self.now.max(until);
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let event = entry.remove();
            self.carry_out(event);
        }
        Ok(())
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.ended);
    }

    fn capacity(&self) -> usize {
        2 * CAPACITY
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.now.as_nanos())
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn names(&mut self) -> &mut dyn Names {
        &mut self.files
    }
}

impl SimulatedNames {
    fn get(&self, fd: RawFd) -> Result<Open, Errno> {
        self.open.borrow().get(&fd).cloned().ok_or(Errno(libc::EBADF))
    }

    fn add(&mut self, open: Open) -> Handle {
        let fd = self.next_fd;
        self.next_fd += 1;
        self.open.borrow_mut().insert(fd, open);
        Handle::driver(fd, Box::new(Close { open: self.open.clone(), fd }))
    }
}

impl Names for SimulatedNames {
    fn open(&mut self, path: &Path, options: &Options) -> Result<Handle, Errno> {
        let node = self.disk.open(path, options)?;
        Ok(self.add(Open { node, direct: options.direct, dsync: options.dsync, writable: options.write }))
    }

    fn open_dir(&mut self, path: &Path) -> Result<Handle, Errno> {
        let node = self.disk.open_dir(path)?;
        Ok(self.add(Open { node, direct: false, dsync: false, writable: false }))
    }

    fn size(&mut self, handle: &Handle) -> Result<u64, Errno> {
        self.get(handle.raw())?.node.size()
    }

    fn set_len(&mut self, handle: &Handle, len: u64) -> Result<(), Errno> {
        let file = self.get(handle.raw())?;
        self.disk.set_len(&file.node, len)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        self.disk.rename(from, to)
    }

    fn remove_file(&mut self, path: &Path) -> Result<(), Errno> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&mut self, path: &Path) -> Result<(), Errno> {
        self.disk.remove_dir_all(path)
    }

    fn create_dir_all(&mut self, path: &Path) -> Result<(), Errno> {
        self.disk.create_dir_all(path);
        Ok(())
    }

    fn read_dir(&mut self, path: &Path) -> Result<Vec<String>, Errno> {
        self.disk.read_dir(path)
    }

    fn exists(&mut self, path: &Path) -> Result<bool, Errno> {
        Ok(self.disk.exists(path))
    }

    fn filesystem(&mut self, _path: &Path) -> String {
        "a simulated disk".into()
    }
}

#[cfg(test)]
mod tests;
