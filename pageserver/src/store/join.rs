//! Several futures at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Polls all until all are done; results in the order of the futures, or the first error, with the rest dropped.
pub async fn try_join_all<T, E>(futures: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>) -> Result<Vec<T>, E> {
    let mut pending: Vec<(usize, Pin<Box<_>>)> = futures.into_iter().map(Box::pin).enumerate().collect();
    let mut results: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut error = None;
        pending.retain_mut(|(number, future)| match future.as_mut().poll(cx) {
            Poll::Ready(Ok(result)) => {
                results[*number] = Some(result);
                false
            }
            Poll::Ready(Err(failed)) => {
                error = Some(failed);
                false
            }
            Poll::Pending => true,
        });
        match error {
            Some(error) => Poll::Ready(Err(error)),
            None if pending.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await?;
    Ok(results.into_iter().flatten().collect())
}
