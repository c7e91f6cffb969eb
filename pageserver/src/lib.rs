//! The daemon that serves any page at any LSN.
pub mod store;
