//! Whole-system tests: real processes, through public surfaces only.
//!
//! A [`Cluster`] is what `ironpage up` makes; tests steer it by the command line, `status --json`, SQL
//! through psql, pgbench, and signals. Nothing here knows a crate of ours.

#![allow(clippy::disallowed_methods)]

mod cluster;
mod session;
pub mod stock;
mod wait;

pub use cluster::{Branch, Cluster, Process, Status, alive, signal};
pub use session::{Outcome, Session};
pub use stock::Stock;
pub use wait::{eventually, wait_until};
