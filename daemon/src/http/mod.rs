//! HTTP/1.1 for administration, on the core like everything else.
//!
//! A connection carries one request. What it may cost is bounded: bytes of the head and the body, seconds for
//! each phase, connections, requests under way. A request that has begun goes on when its client hangs up: what
//! it changes is changed wholly or not at all, and a repeat finds out which.

mod message;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use hyper::Method;
pub use message::{Request, Response};
pub use server::{Handler, Limits, serve};
