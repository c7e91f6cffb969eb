//! Timers of a core, by deadline.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::time::Instant;

/// Deadline, and a number that tells apart timers of one deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TimerKey(Instant, u64);

#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<TimerKey, Waker>,
    next: u64,
}

impl Timers {
    /// Sets a timer, or renews the waker of the one set before.
    pub(crate) fn set(&mut self, before: Option<TimerKey>, deadline: Instant, waker: &Waker) -> (TimerKey, Option<Waker>) {
        if let Some(key) = before
            && let Some(old) = self.waiting.get_mut(&key)
        {
            let replaced = (!old.will_wake(waker)).then(|| std::mem::replace(old, waker.clone()));
            return (key, replaced);
        }
        let key = TimerKey(deadline, self.next);
        self.next += 1;
        self.waiting.insert(key, waker.clone());
        (key, None)
    }

    pub(crate) fn clear(&mut self, key: TimerKey) -> Option<Waker> {
        self.waiting.remove(&key)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(key, _)| key.0)
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(crate) fn take_all(&mut self) -> BTreeMap<TimerKey, Waker> {
        std::mem::take(&mut self.waiting)
    }
}
