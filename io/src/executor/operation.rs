//! The future of one operation, and what it owns.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::Core;
use crate::driver::{Op, Token};

/// How an operation ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// A count, or a negated errno.
    pub(crate) result: i32,
    /// Result of the fdatasync behind an `Op::WriteSync`.
    pub(crate) sync: i32,
    /// The socket held more data after this receive.
    pub(crate) more_ready: bool,
}

/// Owns everything an operation's raw pointers and descriptors refer to. The slab keeps it until the
/// last completion, so none of that may move when the payload does: heap buffers, not arrays.
pub(crate) trait Payload: Any {
    /// The future was dropped while the operation is in flight.
    fn abandoned(&mut self) {}

    /// The operation ended and nobody will look at the outcome.
    fn orphaned(&mut self, _outcome: Outcome) {}
}

/// A submitted operation. Dropping it orphans the operation: the payload is dropped when the kernel
/// is done with it, and what can wait without bound is cancelled.
#[must_use = "a future does nothing unless awaited"]
pub(crate) struct Operation<P: Payload> {
    core: Rc<Core>,
    token: Option<Token>,
    payload: PhantomData<P>,
}

impl<P: Payload> Operation<P> {
    /// Submits `op`, or queues it if too many operations are in flight.
    ///
    /// # Safety
    /// `payload` must own (or share) what the pointers and descriptors in `op` refer to, and keep it
    /// valid and otherwise untouched, as `Driver::submit` asks, for as long as the payload is kept.
    pub(crate) unsafe fn submit(op: Op, payload: P) -> Self {
        let core = Core::current();
        // SAFETY: passed on.
        let token = unsafe { core.submit(op, Box::new(payload)) };
        Self { core, token: Some(token), payload: PhantomData }
    }

    pub(crate) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<(Outcome, P)> {
        let token = self.token.expect("an operation was polled after it completed");
        let Some((payload, outcome)) = self.core.take_outcome(token, cx.waker()) else { return Poll::Pending };
        self.token = None;
        let payload: Box<dyn Any> = payload;
        match payload.downcast::<P>() {
            Ok(payload) => Poll::Ready((outcome, *payload)),
            Err(_) => unreachable!("the token's payload is of the type it was submitted with"),
        }
    }
}

impl<P: Payload + Unpin> Future for Operation<P> {
    type Output = (Outcome, P);
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcome(cx)
    }
}

impl<P: Payload> Unpin for Operation<P> {}

impl<P: Payload> Drop for Operation<P> {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.core.orphan(token);
        }
    }
}
