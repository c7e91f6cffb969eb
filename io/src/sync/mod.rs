//! Queues and events between the tasks of one core, and the [`doorbell`] by which other threads reach
//! it. All but the doorbell are `Rc`-based and cost no atomic operation of their own.

mod channel;
pub mod doorbell;
mod notify;
mod oneshot;
mod watch;

pub use channel::{Receiver, SendError, Sender, TrySendError, channel};
pub use doorbell::doorbell;
pub use notify::{Notified, Notify};
pub use oneshot::{OneReceiver, OneSender, oneshot};
pub use watch::Watch;

#[cfg(test)]
mod tests;
