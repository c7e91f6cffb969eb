//! The daemon that makes WAL durable by quorum.
