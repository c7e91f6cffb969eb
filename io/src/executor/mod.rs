//! A core: tasks that run in turns on one thread, and the operations they wait for.
//!
//! A turn runs the tasks that were ready when it began, hands what they submitted to the driver in
//! one go, waits only if nothing is ready, then reaps completions and fires timers.

mod core;
mod join;
mod operation;
mod remote;
mod slab;
mod task;
mod timers;

use std::fs::File;
use std::future::Future;
use std::sync::Arc;

pub(crate) use self::core::Core;
pub use join::{Aborted, JoinHandle};
pub(crate) use operation::{Operation, Outcome, Payload};
pub(crate) use timers::TimerKey;

use crate::driver::Driver;
use crate::driver::ring::Ring;
use crate::error::Error;

/// What a core is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Submission queue entries (8 to 16384), rounded up to a power of two. The completion queue has four times
    /// as many, and half of those bounds the operations in flight; more wait in the core.
    pub sq_entries: u32,
    /// Seed of [`random`]; `None` takes one from the kernel.
    pub seed: Option<u64>,
    /// A file, such as the lock of a data directory, that stays open until the last operation of this core
    /// has ended, even when the process was killed: the kernel takes a ring apart some time after its
    /// process is gone, and writes in flight still happen until then.
    pub pinned: Option<Arc<File>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { sq_entries: 512, seed: None, pinned: None }
    }
}

/// Makes the calling thread a core and runs the future `main` returns until it is done.
///
/// Tasks still running then are dropped, operations in flight are cancelled and waited for: when
/// `run` returns (or unwinds from a panic in a task) the kernel uses no memory of this core any more.
/// SIGXFSZ is ignored from then on.
pub fn run<F: Future>(config: Config, main: impl FnOnce() -> F) -> Result<F::Output, Error> {
    // A file beyond RLIMIT_FSIZE is the error of one write (EFBIG), as a full disk is, and not the end of the process.
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let ring = Ring::new(config.sq_entries, config.seed)?;
    if let Some(file) = &config.pinned {
        ring.pin(file)?;
    }
    run_on(Box::new(ring), main)
}

/// As [`run`], on any driver.
pub fn run_on<F: Future>(driver: Box<dyn Driver>, main: impl FnOnce() -> F) -> Result<F::Output, Error> {
    let core = Core::enter(driver)?;
    core.run(main)
}

/// Starts a task on this core. It runs also if nobody awaits the handle.
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    join::spawn(&Core::current(), future)
}

/// Lets the other ready tasks and arrived completions go first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await
}

/// A random number from the core's generator: good for jitter, sampling and identities that need not
/// resist an adversary, not for secrets.
pub fn random() -> u64 {
    Core::current().random()
}

#[cfg(test)]
mod tests;
