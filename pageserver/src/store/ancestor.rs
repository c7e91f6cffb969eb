//! The store a timeline came off, and the way down through all of them.

use super::{Store, StoreError};
use ironpage_layout::Lsn;

impl Store {
    /// Gives the store of the timeline that the manifest names as ancestor; once, and before anything is read.
    pub fn set_ancestor(&self, ancestor: Store) {
        let named = self.inner.timeline.ancestor.map(|ancestor| ancestor.timeline);
        assert_eq!(Some(ancestor.inner.timeline.timeline), named, "the ancestor is the one the manifest names");
        let set = self.inner.ancestor.set(ancestor);
        assert!(set.is_ok(), "the ancestor is given once");
    }

    /// The store that reads go on in, and up to which LSN; `None` where the timeline was imported.
    pub(super) fn below(&self) -> Result<Option<(&Store, Lsn)>, StoreError> {
        let timeline = &self.inner.timeline;
        let Some(named) = timeline.ancestor else { return Ok(None) };
        let missing = StoreError::NoAncestor { timeline: timeline.timeline, ancestor: named.timeline };
        let ancestor = self.inner.ancestor.get().ok_or(missing)?;
        let last = ancestor.last_record_lsn();
        if last < named.lsn {
            let (timeline, ancestor) = (timeline.timeline, named.timeline);
            return Err(StoreError::AncestorBehind { timeline, ancestor, last, needed: named.lsn });
        }
        Ok(Some((ancestor, named.lsn)))
    }

    /// What the timeline all this one's history begins in is readable from.
    pub fn first_readable_lsn(&self) -> Lsn {
        let mut store = self;
        while let Some(ancestor) = store.inner.ancestor.get() {
            store = ancestor;
        }
        store.inner.timeline.readable_lsn
    }

    /// The store whose versions at `lsn` are its own: this one, or the nearest ancestor that is not left before `lsn`.
    pub(super) fn owner_of(&self, lsn: Lsn) -> &Store {
        let mut owner = self;
        while let (Some(named), Some(ancestor)) = (owner.inner.timeline.ancestor, owner.inner.ancestor.get())
            && lsn < named.lsn
        {
            owner = ancestor;
        }
        owner
    }
}
