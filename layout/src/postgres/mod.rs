//! What Postgres 15 writes: WAL, pg_control, pages, SLRUs. Reading never panics, whatever the bytes.

pub mod bytes;
pub mod rmgr;
pub mod wal;
