//! The driver of real machines: one io_uring, used by one thread.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, SystemTime};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use super::posix::Posix;
use super::random::SplitMix;
use super::{Completion, Driver, Full, Names, Op, Token, Wait};
use crate::error::{Errno, Error};
use crate::time::Instant;

/// user_data of cancel requests, whose own completions mean nothing. No token maps to it, as
/// `Token::slot` stays below `u32::MAX`.
const CANCEL: u64 = u64::MAX;

/// From io_uring.h: arm a poll first instead of trying the receive at once.
const IORING_RECVSEND_POLL_FIRST: u16 = 1;

/// With the completion queue at the kernel's limit of 65536.
const ENTRIES_MAX: u32 = 65536 / CQ_FACTOR;

/// Completion queue entries per submission queue entry.
const CQ_FACTOR: u32 = 4;

pub struct Ring {
    /// Dropped before the ring.
    entrance: Entrance,
    ring: IoUring,
    random: SplitMix,
    names: Posix,
}

impl Ring {
    /// Sets up the ring for the calling thread, which alone may use it.
    pub fn new(sq_entries: u32, seed: Option<u64>) -> Result<Self, Error> {
        let entries = sq_entries.clamp(8, ENTRIES_MAX).next_power_of_two();
        let ring = build(entries).map_err(|errno| explain(errno, entries))?;
        let seed = match seed {
            Some(seed) => seed,
            None => kernel_random()?,
        };
        Ok(Self { entrance: Entrance::new(ring.as_raw_fd()), ring, random: SplitMix(seed), names: Posix })
    }

    /// Keeps `file` open as long as the ring exists in the kernel; see `Config::pinned`.
    pub fn pin(&self, file: &impl AsRawFd) -> Result<(), Error> {
        let registered = self.ring.submitter().register_files(&[file.as_raw_fd()]);
        registered.map_err(|error| Error::Ring { step: "registering the pinned file", errno: error.into() })
    }

    /// One io_uring_enter: hands over all that was pushed, waits for `want` completions.
    fn enter(&mut self, want: u32, timeout: Option<types::Timespec>) -> Result<(), Errno> {
        let sq = self.ring.submission();
        let (queued, must_run) = (sq.len() as u32, sq.taskrun() || sq.cq_overflow());
        drop(sq);
        // Completions are made, and an overflowed queue refilled, only by an enter that asks for events.
        let events = if want > 0 || must_run { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        let args = timeout.as_ref().map(|timeout| types::SubmitArgs::new().timespec(timeout));
        self.entrance.enter(queued, want, events, args.as_ref())
    }

    /// Room for `count` entries that must go to the kernel together.
    fn make_room(&mut self, count: usize) -> Result<(), Full> {
        let sq = self.ring.submission();
        if sq.capacity() - sq.len() >= count {
            return Ok(());
        }
        drop(sq);
        // SUBMIT_ALL: the kernel takes every entry, also behind one that fails. An error here
        // (EBUSY, EAGAIN) means it has no memory or wants completions reaped first.
        let _ = self.enter(0, None);
        let sq = self.ring.submission();
        if sq.capacity() - sq.len() >= count { Ok(()) } else { Err(Full) }
    }
}

/// The way into the kernel: the ring's descriptor, registered with the thread if that is possible, which
/// saves looking it up at each enter. The io-uring crate keeps a registration per `Submitter`, which
/// borrows the ring; ours lives as long as the ring, and ends with it, or the kernel would keep both.
struct Entrance {
    fd: RawFd,
    registered: Option<u32>,
}

/// From io_uring.h.
const IORING_REGISTER_RING_FDS: libc::c_uint = 20;
const IORING_UNREGISTER_RING_FDS: libc::c_uint = 21;

/// struct io_uring_rsrc_update of io_uring.h.
#[repr(C)]
struct RingFd {
    offset: u32,
    reserved: u32,
    data: u64,
}

impl Entrance {
    fn new(fd: RawFd) -> Self {
        let mut ring_fd = RingFd { offset: u32::MAX, reserved: 0, data: fd as u64 };
        let registered = Self::register(fd, IORING_REGISTER_RING_FDS, &mut ring_fd).then_some(ring_fd.offset);
        Self { fd, registered }
    }

    fn register(fd: RawFd, opcode: libc::c_uint, ring_fd: &mut RingFd) -> bool {
        let place: *mut RingFd = ring_fd;
        // SAFETY: both opcodes take one struct io_uring_rsrc_update, valid for reading and writing.
        unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, place, 1) == 1 }
    }

    fn enter(&self, queued: u32, want: u32, flags: EnterFlags, args: Option<&types::SubmitArgs<'_, '_>>) -> Result<(), Errno> {
        let (fd, mut flags) = match self.registered {
            Some(index) => (index as RawFd, flags | EnterFlags::REGISTERED_RING),
            None => (self.fd, flags),
        };
        let (place, len) = match args {
            Some(args) => {
                flags |= EnterFlags::EXT_ARG;
                (std::ptr::from_ref(args).cast::<libc::c_void>(), size_of_val(args))
            }
            None => (std::ptr::null(), 0),
        };
        // SAFETY: the queued entries were pushed under the contract of Driver::submit; place is null or
        // points to a struct io_uring_getevents_arg (which SubmitArgs is) that lives through the call.
        let result = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, queued, want, flags.bits(), place, len) };
        if result < 0 { Err(Errno::last()) } else { Ok(()) }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            Self::register(self.fd, IORING_UNREGISTER_RING_FDS, &mut RingFd { offset, reserved: 0, data: 0 });
        }
    }
}

fn build(entries: u32) -> Result<IoUring, Errno> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all().setup_cqsize(entries * CQ_FACTOR);
    // NO_SQARRAY came with 6.6; it saves an indirection per entry and nothing depends on it.
    match builder.clone().setup_no_sqarray().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(builder.build(entries)?),
        other => Ok(other?),
    }
}

/// Turns the errno of io_uring_setup into what the operator can do about it.
fn explain(errno: Errno, entries: u32) -> Error {
    let file = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
    match errno.0 {
        libc::EPERM | libc::EACCES => {
            Error::Disabled { sysctl: file("/proc/sys/kernel/io_uring_disabled").unwrap_or_else(|_| "absent".into()) }
        }
        libc::ENOSYS | libc::EINVAL => {
            Error::Kernel { found: file("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "of unknown version".into()), errno }
        }
        libc::ENOMEM => Error::LockedMemory { entries },
        _ => Error::Ring { step: "set-up", errno },
    }
}

fn kernel_random() -> Result<u64, Error> {
    let mut bytes = [0u8; 8];
    // SAFETY: bytes is writable for its length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        Ok(u64::from_le_bytes(bytes))
    } else {
        Err(Error::Ring { step: "seeding", errno: Errno::last() })
    }
}

fn user_data(token: Token, part: u8) -> u64 {
    debug_assert!(token.slot != u32::MAX && token.generation >> 31 == 0 && part < 2);
    u64::from(token.slot) << 32 | u64::from(token.generation) << 1 | u64::from(part)
}

fn completion(entry: &cqueue::Entry) -> Option<Completion> {
    let data = entry.user_data();
    (data != CANCEL).then(|| Completion {
        token: Token { slot: (data >> 32) as u32, generation: (data as u32) >> 1 },
        part: (data & 1) as u8,
        result: entry.result(),
        more_ready: cqueue::sock_nonempty(entry.flags()),
    })
}

// SAFETY: the kernel completes an operation when it is done with its memory, and counts what it moved.
unsafe impl Driver for Ring {
    unsafe fn submit(&mut self, token: Token, op: &Op) -> Result<(), Full> {
        self.make_room(op.parts().into())?;
        let fd = types::Fd;
        let mut sync = None;
        let entry = match *op {
            Op::Read { fd: raw, buf, len, offset } => opcode::Read::new(fd(raw), buf, len).offset(offset).build(),
            Op::Write { fd: raw, buf, len, offset } => opcode::Write::new(fd(raw), buf, len).offset(offset).build(),
            Op::WriteSync { fd: raw, buf, len, offset } => {
                // IO_LINK: a failed or short write cancels the sync. IO_HARDLINK would run it and
                // report success for data that was never written.
                sync = Some(fdatasync(raw));
                opcode::Write::new(fd(raw), buf, len).offset(offset).build().flags(squeue::Flags::IO_LINK)
            }
            Op::Sync { fd: raw } => fdatasync(raw),
            Op::Recv { fd: raw, buf, len, ready } => {
                let hint = if ready { 0 } else { IORING_RECVSEND_POLL_FIRST };
                opcode::Recv::new(fd(raw), buf, len).ioprio(hint).build()
            }
            Op::Send { fd: raw, buf, len } => {
                opcode::Send::new(fd(raw), buf, len).flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build()
            }
            Op::Accept { fd: raw } => {
                opcode::Accept::new(fd(raw), std::ptr::null_mut(), std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build()
            }
            Op::Connect { fd: raw, address, len } => opcode::Connect::new(fd(raw), address, len).build(),
            Op::Poll { fd: raw, events } => opcode::PollAdd::new(fd(raw), events).build(),
        };
        let mut sq = self.ring.submission();
        // SAFETY: the caller keeps memory and descriptors alive until the completions are reaped;
        // make_room saw to it that both entries of a link fit, so none is submitted without the other.
        unsafe {
            sq.push(&entry.user_data(user_data(token, 0))).map_err(|_| Full)?;
            if let Some(sync) = sync {
                sq.push(&sync.user_data(user_data(token, 1))).map_err(|_| Full)?;
            }
        }
        Ok(())
    }

    fn cancel(&mut self, token: Token) -> Result<(), Full> {
        self.make_room(1)?;
        let entry = opcode::AsyncCancel::new(user_data(token, 0)).build().user_data(CANCEL);
        // SAFETY: a cancel request refers to no memory.
        unsafe { self.ring.submission().push(&entry).map_err(|_| Full) }
    }

    fn turn(&mut self, wait: Wait) -> Result<(), Errno> {
        if !self.ring.completion().is_empty() && self.ring.submission().is_empty() {
            return Ok(());
        }
        let want = u32::from(self.ring.completion().is_empty());
        let result = match wait {
            Wait::Poll => {
                let sq = self.ring.submission();
                if sq.is_empty() && !sq.taskrun() && !sq.cq_overflow() {
                    return Ok(());
                }
                drop(sq);
                self.enter(0, None)
            }
            Wait::Completion => self.enter(want, None),
            Wait::Until(deadline) => {
                let left = deadline.saturating_duration_since(self.now()).min(WAIT_MAX);
                self.enter(want, Some(types::Timespec::from(left)))
            }
        };
        match result {
            // ETIME: the deadline. EINTR: a signal. EBUSY, EAGAIN: completions must be reaped first.
            Err(Errno(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            other => other,
        }
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.ring.completion().filter_map(|entry| completion(&entry)));
    }

    fn capacity(&self) -> usize {
        // Each operation may cost two entries: its own and its cancel's, or the two of a link.
        self.ring.params().cq_entries() as usize / 2
    }

    fn now(&self) -> Instant {
        Instant::monotonic()
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn names(&mut self) -> &mut dyn Names {
        &mut self.names
    }
}

fn fdatasync(fd: i32) -> squeue::Entry {
    opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC).build()
}

/// Longest single wait, so that a time far in the future fits the kernel's types.
const WAIT_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rings_registration_ends_with_it() {
        // The kernel has 16 places per thread.
        for _ in 0..40 {
            assert!(Ring::new(8, None).unwrap().entrance.registered.is_some());
        }
    }

    #[test]
    fn errors_of_the_set_up_name_the_way_out() {
        let text = |errno| explain(Errno(errno), 512).to_string();
        assert!(text(libc::EPERM).contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(text(libc::ENOSYS).starts_with("Linux 6.1 or newer with io_uring is needed, this is Linux "));
        assert!(text(libc::ENOMEM).contains("ulimit -l"));
    }

    #[test]
    fn tokens_pass_through_user_data() {
        let token = Token { slot: u32::MAX - 1, generation: u32::MAX >> 1 };
        for part in 0..2 {
            let data = user_data(token, part);
            assert_ne!(data, CANCEL);
            assert_eq!((data >> 32, data as u32 >> 1, data & 1), (token.slot.into(), token.generation, part.into()));
        }
    }
}
