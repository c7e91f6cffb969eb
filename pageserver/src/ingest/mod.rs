//! WAL into versioned keys.
//!
//! A [`Head`] is what a timeline looks like at its newest record: sizes, directories, counters. It takes
//! records one by one and puts what each changes into a [`Sink`], under the record's end LSN. Pages get the
//! record itself, or an image; all else gets a value of our own. What is put under one key and LSN is in order.

pub mod apply;
mod control;
mod database;
mod error;
mod head;
mod heap;
mod history;
mod import;
mod multixact;
mod record;
mod relations;
mod slru;
mod storage;
mod transaction;
mod xlog;

#[cfg(test)]
mod tests;

pub use apply::{ApplyError, apply_delta};
pub use database::CopyDatabase;
pub use error::IngestError;
pub use head::{DATABASE_VERSION, Head};
pub use history::put_mark;

use ironpage_layout::{Key, Lsn, Value};

/// Where values go.
pub trait Sink {
    /// Adds a version of `key`. LSNs never go back; values of the same key and LSN apply in the order they come.
    fn put(&mut self, key: Key, lsn: Lsn, value: Value<'_>);
}

impl<F: FnMut(Key, Lsn, Value<'_>)> Sink for F {
    fn put(&mut self, key: Key, lsn: Lsn, value: Value<'_>) {
        self(key, lsn, value)
    }
}

/// What is left for the caller to do before the next record.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum IngestAction {
    None,
    /// Copy what a database had at the record's end: it takes reads, which a [`Head`] does not do.
    CopyDatabase(CopyDatabase),
}
