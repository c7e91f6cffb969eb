//! What Postgres 15 writes: WAL, pg_control, pages, SLRUs. Reading never panics, whatever the bytes.

pub mod bytes;
pub mod checksum;
pub mod control;
pub mod page;
pub mod rmgr;
pub mod slru;
pub mod wal;
pub mod xact;
