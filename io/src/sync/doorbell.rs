//! A bounded queue from other threads to a task of a core.
//!
//! The value goes through a lock-free queue; the receiving task's waker rings the core's eventfd only
//! when the core sleeps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crossbeam_queue::ArrayQueue;

use super::channel::TrySendError;

struct Shared<T> {
    queue: ArrayQueue<T>,
    waker: Mutex<Option<Waker>>,
    senders: AtomicUsize,
    receiver: AtomicBool,
}

impl<T> Shared<T> {
    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The side of the other threads.
pub struct Sender<T>(Arc<Shared<T>>);

/// The side of the core. It may be created anywhere and moved to the thread of the core.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A queue of at most `bound` values (at least one) into a core.
pub fn doorbell<T: Send>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(bound.max(1)),
        waker: Mutex::new(None),
        senders: AtomicUsize::new(1),
        receiver: AtomicBool::new(true),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T: Send> Sender<T> {
    /// From any thread, without blocking. A value accepted just as the receiver goes away is dropped.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if !self.0.receiver.load(Ordering::Acquire) {
            return Err(TrySendError::Closed(value));
        }
        self.0.queue.push(value).map_err(TrySendError::Full)?;
        self.0.wake();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake();
        }
    }
}

impl<T: Send> Receiver<T> {
    /// The oldest value; None when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| {
            if let Some(value) = self.0.queue.pop() {
                return Poll::Ready(Some(value));
            }
            *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            // In this order: senders put their last value before they leave, and either we see what
            // they did or they see the waker.
            let gone = self.0.senders.load(Ordering::Acquire) == 0;
            match self.0.queue.pop() {
                Some(value) => Poll::Ready(Some(value)),
                None if gone => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    pub fn try_recv(&mut self) -> Option<T> {
        self.0.queue.pop()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receiver.store(false, Ordering::Release);
        while self.0.queue.pop().is_some() {}
    }
}
