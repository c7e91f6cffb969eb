//! Stream sockets, TCP and unix.
//!
//! Reads and writes belong to the connection, not to the future that waits: a dropped read leaves its
//! bytes for the next one, and a dropped write is completed before the next one, so that a `timeout`
//! around either never loses or tears what goes over the wire.

mod address;
pub(crate) mod half;
mod listener;
mod stream;

pub use listener::Listener;
pub use stream::{Reader, Stream, Writer};

#[cfg(test)]
mod tests;
