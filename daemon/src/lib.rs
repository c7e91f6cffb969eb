//! What both daemons share: log lines, framed connections, addresses, start-up errors.

pub mod cli;
pub mod exit;
pub mod frames;
pub mod lock;
pub mod log;
