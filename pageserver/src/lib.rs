//! The daemon that serves any page at any LSN.
//!
//! `receiver` reads committed WAL from the safekeepers into a `timeline`, whose `ingest` splits it into
//! versioned keys of a `store` (`memory` layers in front of `layers` on disk). `service` answers computes and
//! the command line; `reconstruct` makes a page of what the store has of it, with the redo `worker`, a stock
//! Postgres in a sandbox. One core, one ring: nothing is locked.

pub mod api;
pub mod branches;
pub mod daemon;
pub mod fault;
pub mod ingest;
pub mod layers;
pub mod memory;
pub mod metadata;
mod race;
pub mod receiver;
pub mod reconstruct;
pub mod service;
pub mod store;
pub mod timeline;
pub mod worker;
