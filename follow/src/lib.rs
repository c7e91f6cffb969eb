//! Follow mode: a stock Postgres elsewhere, the source, is copied by a base backup and followed by its WAL.
//!
//! ```text
//! source ── BASE_BACKUP ──> backup/ ──────> pageserver     once, as of the backup's redo position S
//! source ── WAL from S on, from a slot ──> stream ──> log ──> leader ──> safekeepers ──> pageserver
//!        <── flushed up to commit_lsn ────────────────────────┘
//! ```
//!
//! The follower is the proposer of its timeline: what a quorum has of the WAL is committed, and only that is
//! confirmed to the source, whose slot keeps the rest. It can be killed at any time.
// It blocks, and nothing simulates it: it is no daemon of the storage.
#![allow(clippy::disallowed_methods)]

pub mod backup;
pub mod client;
pub mod config;
pub mod error;
pub mod follower;
pub mod import;
pub mod leader;
pub mod log;
pub mod metadata;
pub mod pq;
pub mod progress;
pub mod source;
pub mod state;
pub mod stream;
pub mod wal;

pub use error::{Error, Result};
