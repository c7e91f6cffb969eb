//! Every byte layout of Ironpage, and nothing else: no I/O, no clock, no async.
//!
//! `postgres` reads what Postgres writes (pages, WAL, pg_control), `key` and `value` name and encode
//! what a pageserver stores, `layer` is its file format, `metadata` the journal of tenants and branches, `wire` the
//! frames between the processes.

pub mod crc;
pub mod history;
pub mod id;
pub mod key;
pub mod layer;
pub mod lsn;
pub mod metadata;
pub mod postgres;
pub mod rel;
pub mod value;
pub mod wire;

pub use id::{NodeId, Slot, TenantId, Term, TimelineId};
pub use key::{Key, KeyKind};
pub use lsn::Lsn;
pub use rel::{BlockNumber, Fork, Oid, RelTag};
pub use value::Value;
