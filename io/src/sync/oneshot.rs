//! One value from one task to another.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

enum State<T> {
    Empty(Option<Waker>),
    Sent(T),
    /// Either side is gone.
    Closed,
}

pub struct OneSender<T>(Rc<RefCell<State<T>>>);

/// Resolves to the value, or None if the sender was dropped without sending.
#[must_use = "a future does nothing unless awaited"]
pub struct OneReceiver<T>(Rc<RefCell<State<T>>>);

/// A channel for a single value.
pub fn oneshot<T>() -> (OneSender<T>, OneReceiver<T>) {
    let state = Rc::new(RefCell::new(State::Empty(None)));
    (OneSender(state.clone()), OneReceiver(state))
}

impl<T> OneSender<T> {
    /// Gives the value back if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.0.borrow_mut();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Empty(waker) => {
                *state = State::Sent(value);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
                Ok(())
            }
            _ => Err(value),
        }
    }

    /// The receiver is gone: nobody wants the value.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0.borrow(), State::Closed)
    }
}

impl<T> Drop for OneSender<T> {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        if let State::Empty(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Closed;
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Future for OneReceiver<T> {
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.borrow_mut();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Empty(_) => {
                *state = State::Empty(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Sent(value) => Poll::Ready(Some(value)),
            State::Closed => Poll::Ready(None),
        }
    }
}

impl<T> Drop for OneReceiver<T> {
    fn drop(&mut self) {
        let old = self.0.replace(State::Closed);
        drop(old);
    }
}
