//! Waking a core from another thread.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::SegQueue;

use super::task::Wake;
use crate::error::Errno;

/// What other threads see of a core. A task is queued at most once, so the tasks bound the queue.
pub(crate) struct Remote {
    queue: SegQueue<Arc<Wake>>,
    /// The core is about to block, or does, and needs the bell to look at the queue.
    asleep: AtomicBool,
    /// The core has ended and will not look again.
    closed: AtomicBool,
    /// An eventfd that the core reads through its driver.
    bell: OwnedFd,
}

impl Remote {
    pub(crate) fn new() -> Result<Self, Errno> {
        // Not O_NONBLOCK: the ring would answer a read of it with EAGAIN instead of waiting.
        // SAFETY: plain system call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(Errno::last());
        }
        // SAFETY: just created, owned by nobody else.
        let bell = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { queue: SegQueue::new(), asleep: AtomicBool::new(false), closed: AtomicBool::new(false), bell })
    }

    /// From any thread: has the core run `task`.
    pub(crate) fn push(&self, task: Arc<Wake>) {
        self.queue.push(task);
        // Pairs with the fences in prepare_sleep and close: either we see the flag, or the core sees the
        // task.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            return self.empty();
        }
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // It blocks only at a counter of 2^64 - 2, and each ring needs the core to have slept anew.
        // SAFETY: an eventfd takes eight bytes, which `one` has.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// The core announces that it is going to block. False if a task has arrived: do not.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.asleep.store(false, Ordering::SeqCst);
        false
    }

    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// The core has ended. Tasks refer to this, so none may stay in the queue.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.empty();
    }

    fn empty(&self) {
        while self.queue.pop().is_some() {}
    }

    pub(crate) fn pop(&self) -> Option<Arc<Wake>> {
        self.queue.pop()
    }

    pub(crate) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}
