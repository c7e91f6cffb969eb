//! A value that changes, and tasks that wait for the change.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::notify::Notify;

/// The newest value of something, with a version that counts its changes. A clone is the same value.
pub struct Watch<T> {
    shared: Rc<Shared<T>>,
}

struct Shared<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    changed: Notify,
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Clone> Watch<T> {
    /// The first value has version 0.
    pub fn new(value: T) -> Self {
        Self { shared: Rc::new(Shared { value: RefCell::new(value), version: Cell::new(0), changed: Notify::new() }) }
    }

    pub fn get(&self) -> T {
        self.shared.value.borrow().clone()
    }

    pub fn version(&self) -> u64 {
        self.shared.version.get()
    }

    /// Replaces the value and wakes those who wait; returns the new version.
    pub fn set(&self, value: T) -> u64 {
        let old = self.shared.value.replace(value);
        drop(old);
        let version = self.shared.version.get() + 1;
        self.shared.version.set(version);
        self.shared.changed.notify_all();
        version
    }

    /// As [`set`](Self::set) if the value differs.
    pub fn set_if_changed(&self, value: T) -> bool
    where
        T: PartialEq,
    {
        let differs = *self.shared.value.borrow() != value;
        if differs {
            self.set(value);
        }
        differs
    }

    /// Waits until the version is above `seen`; returns it and its value. Versions in between are skipped.
    pub async fn changed(&self, seen: u64) -> (u64, T) {
        loop {
            let changed = self.shared.changed.notified();
            if self.version() > seen {
                return (self.version(), self.get());
            }
            changed.await;
        }
    }

    /// Waits until the value satisfies `condition`; returns it.
    pub async fn wait_for(&self, mut condition: impl FnMut(&T) -> bool) -> T {
        loop {
            let changed = self.shared.changed.notified();
            let value = self.get();
            if condition(&value) {
                return value;
            }
            changed.await;
        }
    }
}
