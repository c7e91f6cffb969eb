//! Proposer and acceptor of a timeline's WAL as sans-I/O state machines.
//!
//! Raft's leader election and log matching, specialised to one stream of bytes. The acceptor is what a
//! safekeeper runs, the proposer what a launcher (it wins a term) and the worker inside Postgres (it
//! continues that term) run. Neither knows of sockets, files or clocks: input in, actions out, so that
//! the daemon, Postgres and the simulation in `tests/` drive the same code.
//!
//! What the two promise together, and the simulation checks:
//! 1. A term has at most one leader: an acceptor grants a term once, durably, before it says so.
//! 2. Logs that agree in the term that wrote a position agree in every byte before it.
//! 3. What was committed is in the log of every later leader, and never cut from any log.
//! 4. `commit_lsn` is always the end of a WAL record.

pub mod acceptor;
mod error;
pub mod history;
pub mod proposer;

pub use acceptor::{Acceptor, ConnId, PersistentState, Recovery};
pub use error::{Error, Result};
pub use proposer::Proposer;
