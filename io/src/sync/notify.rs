//! An event that tasks wait for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes waiting tasks. A clone is the same event.
///
/// [`notify_one`](Self::notify_one) without a waiter is kept as one permit for the next;
/// [`notify_all`](Self::notify_all) reaches every [`Notified`] made before it, polled or not, and keeps
/// nothing. So to wait for a condition: make the `Notified`, check, then await.
#[derive(Clone, Default)]
pub struct Notify {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    permit: bool,
    /// Counts notify_all.
    round: u64,
    next: u64,
    /// Oldest first, each under its number. A waiter is here from its first poll until notified.
    waiters: VecDeque<(u64, Waker)>,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_one(&self) {
        let mut inner = self.inner.borrow_mut();
        let waiter = inner.waiters.pop_front();
        if waiter.is_none() {
            inner.permit = true;
        }
        drop(inner);
        if let Some((_, waker)) = waiter {
            waker.wake();
        }
    }

    pub fn notify_all(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.round += 1;
        let waiters = std::mem::take(&mut inner.waiters);
        drop(inner);
        for (_, waker) in waiters {
            waker.wake();
        }
    }

    pub fn notified(&self) -> Notified {
        Notified { notify: self.clone(), round: self.inner.borrow().round, number: None }
    }
}

/// Resolves when notified; see [`Notify`].
#[must_use = "a future does nothing unless awaited"]
pub struct Notified {
    notify: Notify,
    round: u64,
    /// In the queue under this number.
    number: Option<u64>,
}

impl Future for Notified {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify.clone();
        let mut inner = notify.inner.borrow_mut();
        if inner.round != self.round {
            // If it was queued, notify_all or notify_one removed it.
            self.number = None;
            return Poll::Ready(());
        }
        match self.number {
            None if inner.permit => {
                inner.permit = false;
                Poll::Ready(())
            }
            None => {
                let number = inner.next;
                inner.next += 1;
                inner.waiters.push_back((number, cx.waker().clone()));
                drop(inner);
                self.number = Some(number);
                Poll::Pending
            }
            Some(number) => match inner.waiters.iter_mut().find(|(waiter, _)| *waiter == number) {
                Some((_, waker)) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => {
                    drop(inner);
                    self.number = None;
                    Poll::Ready(())
                }
            },
        }
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut inner = self.notify.inner.borrow_mut();
        match inner.waiters.iter().position(|(waiter, _)| *waiter == number) {
            Some(index) => {
                let waiter = inner.waiters.remove(index);
                drop(inner);
                drop(waiter);
            }
            // Chosen by notify_one but never told: the next in line gets it.
            None if inner.round == self.round => {
                drop(inner);
                self.notify.notify_one();
            }
            None => {}
        }
    }
}
