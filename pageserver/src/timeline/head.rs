//! The head of a timeline: loaded when somebody needs it, and the places it may be loaded from.

use super::{Timeline, WaitError};
use crate::ingest::{Head, IngestError, put_mark};
use crate::store::{Store, StoreError};
use ironpage_layout::history::{History, bucket_of};
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::{Key, KeyKind, Lsn, Value};
use std::cell::Ref;

/// Why a timeline's head cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// An ancestor has not come, or does not come, to where the timeline came off.
    #[error(transparent)]
    Ancestor(#[from] WaitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stored(#[from] IngestError),
}

/// What the head says of its last whole record, also while a record is being taken and after one failed.
#[derive(Clone, Copy)]
pub struct Whole {
    pub control: ControlFile,
    pub history: History,
}

impl Whole {
    pub fn of(head: &Head) -> Result<Whole, IngestError> {
        Ok(Whole { control: *head.control()?, history: *head.history() })
    }

    /// Puts what a head is loaded from. pg_control changes with most records and is stored only where that may be.
    pub fn put_mark(&self, store: &Store) {
        let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| store.put(key, lsn, &value);
        put_mark(store.last_record_lsn(), &self.control, &self.history, &mut sink);
    }
}

/// The head at `lsn`, where a mark was put. `prev` is the start of the record that ends there.
pub async fn read_head(store: &Store, lsn: Lsn, prev: Lsn) -> Result<Head, HeadError> {
    let mut stored = Vec::new();
    for kind in KeyKind::ALL {
        match kind {
            KeyKind::Page => {}
            KeyKind::Slru => {
                let keys = store.live_keys(Key::kind_range(kind), lsn).await?;
                stored.extend(keys.into_iter().map(|key| (key, Vec::new())));
            }
            KeyKind::History => {
                let key = Key::history(bucket_of(lsn));
                let newest = store.values(key, lsn, Lsn::INVALID).await?.into_iter().next();
                stored.extend(newest.map(|version| (key, version.bytes)));
            }
            _ => {
                let values = store.scan(Key::kind_range(kind), lsn).await?;
                stored.extend(values.into_iter().map(|(key, version)| (key, version.bytes)));
            }
        }
    }
    let mut head = Head::load(lsn, prev, stored)?;
    head.set_consistent_from(store.first_readable_lsn());
    Ok(head)
}

impl Timeline {
    /// The head; `None` until [`Timeline::load_head`].
    pub fn head(&self) -> Option<Ref<'_, Head>> {
        Ref::filter_map(self.head.borrow(), Option::as_ref).ok()
    }

    /// Loads the head if it is not there yet: that of a branch nobody has used costs neither memory nor time. After a
    /// restart it waits until the ancestors are ingested again to where their branches came off; give it up at any time.
    pub async fn load_head(&self) -> Result<(), HeadError> {
        while self.head.borrow().is_none() {
            let moved = self.moved.notified();
            if self.loading.replace(true) {
                moved.await;
                continue;
            }
            let _end = EndOfLoading(self);
            self.ancestors_there().await?;
            let head = read_head(&self.store, self.store.last_record_lsn(), self.store.prev_record_lsn()).await?;
            self.whole.set(Some(Whole::of(&head)?));
            *self.head.borrow_mut() = Some(head);
        }
        Ok(())
    }

    /// Lets go of a head whose mark is in the store: it is loaded again when it is needed.
    pub(super) fn forget_head(&self) {
        self.logical_size_at_start.set(self.logical_size());
        *self.head.borrow_mut() = None;
        self.whole.set(None);
    }

    /// Bytes of all relations at the head; `None` as long as nobody needed the head.
    pub fn logical_size(&self) -> Option<u64> {
        self.head.borrow().as_ref().map_or(self.logical_size_at_start.get(), |head| Some(head.logical_size()))
    }
}

/// Lets others load when this load is over, however it ended.
struct EndOfLoading<'a>(&'a Timeline);

impl Drop for EndOfLoading<'_> {
    fn drop(&mut self) {
        self.0.loading.set(false);
        self.0.moved.notify_all();
    }
}
