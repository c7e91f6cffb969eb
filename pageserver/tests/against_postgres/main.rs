//! The pageserver beside the Postgres it serves: a scratch cluster, its WAL, and recovery of it as the oracle.

#![allow(clippy::disallowed_methods)]

mod branches;
mod client;
mod datadir;
mod lockstep;
mod native;
mod oracle;
mod port;
mod safekeeper;
mod scratch;
mod start;
mod wal;
mod workload;
