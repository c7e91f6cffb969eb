//! The daemon that serves any page at any LSN.
pub mod ingest;
pub mod layers;
pub mod memory;
mod race;
pub mod store;
pub mod worker;
