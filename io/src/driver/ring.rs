//! The driver of real machines: one io_uring, used by one thread.

use std::time::{Duration, SystemTime};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::posix::Posix;
use super::{Completion, Driver, Full, Names, Op, Token, Wait};
use crate::error::{Errno, Error};
use crate::time::Instant;

/// user_data of cancel requests, whose own completions mean nothing. No token maps to it, as
/// `Token::slot` stays below `u32::MAX`.
const CANCEL: u64 = u64::MAX;

/// From io_uring.h: arm a poll first instead of trying the receive at once.
const IORING_RECVSEND_POLL_FIRST: u16 = 1;

/// Completion queue entries per submission queue entry.
const CQ_FACTOR: u32 = 4;

pub struct Ring {
    ring: IoUring,
    random: SplitMix,
    names: Posix,
}

impl Ring {
    /// Sets up the ring for the calling thread, which alone may use it.
    pub fn new(sq_entries: u32, seed: Option<u64>) -> Result<Self, Error> {
        let entries = sq_entries.clamp(8, 32768).next_power_of_two();
        let ring = build(entries).map_err(|errno| explain(errno, entries))?;
        let seed = match seed {
            Some(seed) => seed,
            None => kernel_random()?,
        };
        Ok(Self { ring, random: SplitMix(seed), names: Posix })
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
        let _ = self.ring.submit();
        let sq = self.ring.submission();
        if sq.capacity() - sq.len() >= count { Ok(()) } else { Err(Full) }
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

impl Driver for Ring {
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
        let want = usize::from(wait != Wait::Poll && self.ring.completion().is_empty());
        let result = match wait {
            Wait::Poll => {
                let sq = self.ring.submission();
                if sq.is_empty() && !sq.taskrun() && !sq.cq_overflow() {
                    return Ok(());
                }
                drop(sq);
                self.ring.submit()
            }
            Wait::Completion => self.ring.submit_and_wait(want),
            Wait::Until(deadline) => {
                let left = deadline.saturating_duration_since(self.now()).min(WAIT_MAX);
                let timeout = types::Timespec::from(left);
                self.ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&timeout))
            }
        };
        match result.map_err(Errno::from) {
            Ok(_) => Ok(()),
            // ETIME: the deadline. EINTR: a signal. EBUSY, EAGAIN: completions must be reaped first.
            Err(Errno(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(errno) => Err(errno),
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

/// Sebastiano Vigna's SplitMix64: one addition and a mix, any seed is good.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Longest single wait, so that a time far in the future fits the kernel's types.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(3600);
