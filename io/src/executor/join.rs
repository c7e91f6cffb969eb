//! Handles to tasks.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::core::Core;
use super::task::Wake;

/// The task was aborted, or its core ended, before it had a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task was aborted")]
pub struct Aborted;

enum State<T> {
    Running(Option<Waker>),
    Done(T),
    Aborted,
    Taken,
}

/// Awaits the result of a task. Dropping it lets the task run on by itself.
pub struct JoinHandle<T> {
    state: Rc<RefCell<State<T>>>,
    task: Arc<Wake>,
}

impl<T> JoinHandle<T> {
    /// Drops the task's future at its current await; without effect on a finished one. Awaiting the
    /// handle then gives [`Aborted`].
    pub fn abort(&self) {
        if let Some(core) = Core::try_current()
            && core.owns(&self.task.remote)
        {
            core.abort(&self.task);
        }
    }

    pub fn is_finished(&self) -> bool {
        !matches!(*self.state.borrow(), State::Running(_))
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Aborted>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.state.borrow_mut();
        match &mut *state {
            State::Running(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => match std::mem::replace(&mut *state, State::Taken) {
                State::Done(result) => Poll::Ready(Ok(result)),
                State::Aborted => Poll::Ready(Err(Aborted)),
                _ => panic!("a JoinHandle was polled after it gave its result"),
            },
        }
    }
}

/// Lives in the task's future; dropped without a result, it reports the abort.
struct Report<T>(Rc<RefCell<State<T>>>);

impl<T> Report<T> {
    fn set(&self, new: State<T>) {
        let old = self.0.replace(new);
        if let State::Running(Some(waker)) = old {
            waker.wake();
        }
    }
}

impl<T> Drop for Report<T> {
    fn drop(&mut self) {
        if matches!(*self.0.borrow(), State::Running(_)) {
            self.set(State::Aborted);
        }
    }
}

pub(super) fn spawn<F: Future + 'static>(core: &Rc<Core>, future: F) -> JoinHandle<F::Output> {
    let state = Rc::new(RefCell::new(State::Running(None)));
    let report = Report(state.clone());
    let task = core.spawn(Box::pin(async move {
        // The result is set from inside, after the future's own parts are gone.
        let result = future.await;
        report.set(State::Done(result));
    }));
    JoinHandle { state, task }
}
