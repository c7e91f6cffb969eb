//! What a file remembers of its failures and of writes nobody waits for any more.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::driver::Handle;
use crate::error::IoError;
use crate::sync::Notify;

/// An open file, shared by its users and by the operations in flight on it.
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) path: Arc<Path>,
    pub(super) direct: bool,
    pub(super) dsync: bool,
    poison: RefCell<Option<Arc<IoError>>>,
    /// Ranges of abandoned writes that the kernel still works on.
    fences: RefCell<Vec<Range<u64>>>,
    syncing: Cell<bool>,
    /// A fence was lifted or a sync ended.
    changed: Notify,
}

impl Shared {
    pub(super) fn new(handle: Handle, path: Arc<Path>, direct: bool, dsync: bool) -> Self {
        Self {
            handle,
            path,
            direct,
            dsync,
            poison: RefCell::default(),
            fences: RefCell::default(),
            syncing: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// After a failed write or sync nobody knows what the device holds; the kernel reports a failed
    /// write-back once and then forgets it, so trying again would report success for lost data.
    pub(super) fn poison(&self, reason: &IoError) {
        self.poison.borrow_mut().get_or_insert_with(|| Arc::new(reason.clone()));
    }

    pub(super) fn check(&self, operation: &'static str) -> Result<(), IoError> {
        match &*self.poison.borrow() {
            None => Ok(()),
            Some(reason) => Err(IoError::Poisoned { operation, path: self.path.clone(), reason: reason.clone() }),
        }
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poison.borrow().is_some()
    }

    pub(super) fn fence(&self, range: Range<u64>) {
        self.fences.borrow_mut().push(range);
    }

    pub(super) fn lift_fence(&self, range: &Range<u64>) {
        let mut fences = self.fences.borrow_mut();
        if let Some(index) = fences.iter().position(|fence| fence == range) {
            fences.swap_remove(index);
        }
        drop(fences);
        self.changed.notify_all();
    }

    /// Waits until no abandoned write touches `range`.
    pub(super) async fn wait_for_fences(&self, range: Range<u64>) {
        let overlaps = |fence: &Range<u64>| fence.start < range.end && range.start < fence.end;
        loop {
            let changed = self.changed.notified();
            if !self.fences.borrow().iter().any(overlaps) {
                return;
            }
            changed.await;
        }
    }

    /// Waits for this caller's turn to sync. One at a time: of two that overlap the kernel tells only
    /// one about a failed write-back, and the other would acknowledge what is lost.
    pub(super) async fn begin_sync(self: &std::rc::Rc<Self>) -> SyncTurn {
        loop {
            let changed = self.changed.notified();
            if !self.syncing.replace(true) {
                return SyncTurn(self.clone());
            }
            changed.await;
        }
    }
}

/// Held by the operation, so that an abandoned sync keeps its turn until the kernel is done.
pub(super) struct SyncTurn(std::rc::Rc<Shared>);

impl Drop for SyncTurn {
    fn drop(&mut self) {
        self.0.syncing.set(false);
        self.0.changed.notify_all();
    }
}
