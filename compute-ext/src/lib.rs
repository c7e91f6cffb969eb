//! The Rust half of the Postgres extension: cache map, pins, page client, proposer.
