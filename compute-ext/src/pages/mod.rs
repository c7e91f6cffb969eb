//! The page protocol, seen from a backend: requests into bytes, bytes into replies. `ffi` is its face to C, which owns
//! the socket and the waiting.

pub mod codec;
pub mod ffi;
