//! Waiting for one of two things.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// Which of two futures was done first, with its output.
#[derive(Debug)]
pub enum First<A, B> {
    Left(A),
    Right(B),
}

/// Runs both until one is done; the other is dropped. If both are, the left one counts.
pub async fn race<A, B>(left: impl Future<Output = A>, right: impl Future<Output = B>) -> First<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(output));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}
