//! One ring per core: executor, direct files, sockets and timers on io_uring. The only crate of
//! the daemons that talks to the kernel.
//!
//! [`run`] turns the calling thread into a core: a single-threaded executor above one
//! [`driver::Driver`]. Everything a task awaits ends as an operation in the core's slab, which owns
//! buffer and file until the kernel's last completion for them. Dropping a future therefore never
//! frees memory the kernel may still write to: the slot is orphaned and freed at completion.
//!
//! - [`driver`]: the seam. The ring and the simulator submit operations, reap completions, tell the
//!   time and draw random numbers; all else is one code above them.
//! - [`executor`]: tasks, the operation slab, timers, start and end of a core.
//! - [`fs`], [`net`], [`process`], [`signal`], [`time`]: what tasks use.
//! - [`sync`]: queues and events between the tasks of a core, and the doorbell into it.
//! - [`buf`]: page-aligned buffers for direct I/O.
//!
//! Invariant: no `Send` is needed anywhere above this crate. What crosses threads is a
//! [`sync::doorbell`] and wakers, nothing else.

// The one crate where std's blocking calls are the implementation and not a mistake.
#![allow(clippy::disallowed_methods)]

pub mod buf;
pub mod driver;
mod error;
pub mod executor;
pub mod fs;
pub mod net;
pub mod process;
pub mod signal;
pub mod sync;
pub mod time;

pub use buf::IoBuf;
pub use error::{Errno, Error, IoError};
pub use executor::{Aborted, Config, JoinHandle, random, run, run_on, spawn, yield_now};
