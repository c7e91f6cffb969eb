//! A bounded queue from many tasks to one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::notify::Notify;

struct Inner<T> {
    queue: VecDeque<T>,
    bound: usize,
    senders: usize,
    receiver: bool,
    receiver_waker: Option<Waker>,
}

struct Shared<T> {
    inner: RefCell<Inner<T>>,
    /// Room became free; one waiter per place.
    room: Notify,
}

/// The receiver is gone; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

impl<T> std::fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the receiving task is gone")
    }
}

impl<T: std::fmt::Debug> std::error::Error for SendError<T> {}

#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> std::fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the receiving task is gone",
        })
    }
}

impl<T: std::fmt::Debug> std::error::Error for TrySendError<T> {}

pub struct Sender<T>(Rc<Shared<T>>);

pub struct Receiver<T>(Rc<Shared<T>>);

/// A queue of at most `bound` values (at least one) between tasks of this core.
pub fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let inner = Inner { queue: VecDeque::new(), bound: bound.max(1), senders: 1, receiver: true, receiver_waker: None };
    let shared = Rc::new(Shared { inner: RefCell::new(inner), room: Notify::new() });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut inner = self.0.inner.borrow_mut();
        if !inner.receiver {
            return Err(TrySendError::Closed(value));
        }
        if inner.queue.len() >= inner.bound {
            return Err(TrySendError::Full(value));
        }
        inner.queue.push_back(value);
        let waker = inner.receiver_waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Waits for room. Dropping the future drops the value unsent.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = value;
        loop {
            let room = self.0.room.notified();
            match self.try_send(value) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(back)) => return Err(SendError(back)),
                Err(TrySendError::Full(back)) => value = back,
            }
            room.await;
        }
    }

    /// The receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.0.inner.borrow().receiver
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.inner.borrow_mut().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.borrow_mut();
        inner.senders -= 1;
        let waker = if inner.senders == 0 { inner.receiver_waker.take() } else { None };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The oldest value; None when all senders are gone and the queue is empty. Nothing is lost if the
    /// future is dropped.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| {
            if let Some(value) = self.try_recv() {
                return Poll::Ready(Some(value));
            }
            let mut inner = self.0.inner.borrow_mut();
            if inner.senders == 0 {
                return Poll::Ready(None);
            }
            inner.receiver_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The oldest value, if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        let value = self.0.inner.borrow_mut().queue.pop_front()?;
        self.0.room.notify_one();
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.0.inner.borrow().queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.borrow_mut();
        inner.receiver = false;
        let queue = std::mem::take(&mut inner.queue);
        let waker = inner.receiver_waker.take();
        drop(inner);
        drop((queue, waker));
        self.0.room.notify_all();
    }
}
