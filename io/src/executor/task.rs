//! Tasks of a core: their futures, and the wakers that make them ready.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use super::core::Core;
use super::remote::Remote;

/// Slot of the main future, which lives on the stack of `run`.
pub(crate) const MAIN: u32 = u32::MAX;

/// The thread-safe part of a task. It may outlive the task and the core.
pub(crate) struct Wake {
    pub(crate) slot: u32,
    /// In a ready queue; set by whoever puts it there.
    pub(crate) queued: AtomicBool,
    pub(crate) remote: Arc<Remote>,
}

impl std::task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        // Always a read-modify-write, as is the one before a poll: if it finds the task queued, the poll
        // to come reads our mark, and with it sees all this thread wrote before. A plain load could be
        // done before those writes, and the event be lost.
        if !self.queued.swap(true, Ordering::AcqRel) {
            match Core::try_current() {
                Some(core) if core.owns(&self.remote) => core.make_ready(self),
                _ => {
                    let remote = self.remote.clone();
                    remote.push(self);
                }
            }
        }
    }
}

pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) enum Polling {
    /// The task is over or was never this one.
    Gone,
    Task(TaskFuture, Waker),
}

struct Task {
    wake: Arc<Wake>,
    waker: Waker,
    /// Absent while it is being polled.
    future: Option<TaskFuture>,
    aborted: bool,
}

/// The tasks of a core. No method drops a future: that could call back into the core.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: Vec<Option<Task>>,
    free: Vec<u32>,
}

impl Tasks {
    pub(crate) fn insert(&mut self, future: TaskFuture, remote: &Arc<Remote>) -> Arc<Wake> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let wake = Arc::new(Wake { slot, queued: AtomicBool::new(true), remote: remote.clone() });
        let waker = Waker::from(wake.clone());
        self.slots[slot as usize] = Some(Task { wake: wake.clone(), waker, future: Some(future), aborted: false });
        wake
    }

    fn get(&mut self, wake: &Arc<Wake>) -> Option<&mut Task> {
        let task = self.slots.get_mut(wake.slot as usize)?.as_mut()?;
        Arc::ptr_eq(&task.wake, wake).then_some(task)
    }

    /// Takes the future out to poll it.
    pub(crate) fn begin(&mut self, wake: &Arc<Wake>) -> Polling {
        match self.get(wake) {
            Some(task) => match task.future.take() {
                Some(future) => Polling::Task(future, task.waker.clone()),
                None => Polling::Gone,
            },
            None => Polling::Gone,
        }
    }

    /// Puts a future back that is still pending; returns it if it was aborted meanwhile.
    pub(crate) fn pending(&mut self, wake: &Arc<Wake>, future: TaskFuture) -> Option<TaskFuture> {
        match self.get(wake) {
            Some(task) if !task.aborted => {
                task.future = Some(future);
                None
            }
            _ => {
                self.remove(wake);
                Some(future)
            }
        }
    }

    pub(crate) fn finished(&mut self, wake: &Arc<Wake>) {
        self.remove(wake);
    }

    /// Ends a task; the caller drops the future. One that is being polled is marked instead.
    pub(crate) fn abort(&mut self, wake: &Arc<Wake>) -> Option<TaskFuture> {
        let task = self.get(wake)?;
        match task.future.take() {
            Some(future) => {
                self.remove(wake);
                Some(future)
            }
            None => {
                task.aborted = true;
                None
            }
        }
    }

    fn remove(&mut self, wake: &Arc<Wake>) {
        if self.get(wake).is_some() {
            self.slots[wake.slot as usize] = None;
            self.free.push(wake.slot);
        }
    }

    pub(crate) fn take_all(&mut self) -> Vec<TaskFuture> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().filter_map(|task| task.future).collect()
    }
}
