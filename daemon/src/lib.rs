//! What both daemons share: log lines, framed connections, HTTP, addresses, start-up errors.

pub mod cli;
pub mod exit;
pub mod frames;
pub mod http;
pub mod lock;
pub mod log;
