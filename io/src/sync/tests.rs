//! Tests of queues and events.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{Notify, SendError, TrySendError, Watch, channel, oneshot};
use crate::time::timeout;
use crate::{Config, run, spawn, yield_now};

#[test]
fn a_full_channel_makes_senders_wait() {
    run(Config::default(), || async {
        let (sender, mut receiver) = channel(2);
        sender.send(1).await.unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        let senders: Vec<_> = (3..6)
            .map(|value| {
                let sender = sender.clone();
                spawn(async move { sender.send(value).await })
            })
            .collect();
        drop(sender);
        yield_now().await;
        assert_eq!(receiver.len(), 2);
        let mut got = Vec::new();
        while let Some(value) = receiver.recv().await {
            got.push(value);
        }
        assert_eq!(got, [1, 2, 3, 4, 5]);
        for sender in senders {
            sender.await.unwrap().unwrap();
        }
    })
    .unwrap();
}

#[test]
fn a_channel_without_receiver_gives_values_back() {
    run(Config::default(), || async {
        let (sender, receiver) = channel(1);
        sender.send(1).await.unwrap();
        let waiting = {
            let sender = sender.clone();
            spawn(async move { sender.send(2).await })
        };
        yield_now().await;
        drop(receiver);
        assert_eq!(waiting.await.unwrap(), Err(SendError(2)));
        assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    })
    .unwrap();
}

#[test]
fn a_oneshot_gives_its_value_or_none() {
    run(Config::default(), || async {
        let (sender, receiver) = oneshot();
        let task = spawn(receiver);
        yield_now().await;
        sender.send(1).unwrap();
        assert_eq!(task.await.unwrap(), Some(1));
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(receiver.await, None);
        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(2), Err(2));
    })
    .unwrap();
}

#[test]
fn notify_one_is_kept_and_passed_on() {
    run(Config::default(), || async {
        let notify = Notify::new();
        notify.notify_one();
        notify.notified().await;
        let woken = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..2)
            .map(|number| {
                let (notify, woken) = (notify.clone(), woken.clone());
                spawn(async move {
                    notify.notified().await;
                    woken.borrow_mut().push(number);
                })
            })
            .collect();
        yield_now().await;
        // The first is chosen and aborted before it runs: the second must not miss the event.
        notify.notify_one();
        tasks[0].abort();
        yield_now().await;
        yield_now().await;
        assert_eq!(*woken.borrow(), [1]);
    })
    .unwrap();
}

#[test]
fn notify_all_reaches_those_made_before_and_only_those() {
    run(Config::default(), || async {
        let notify = Notify::new();
        let unpolled = notify.notified();
        notify.notify_all();
        unpolled.await;
        assert!(timeout(Duration::from_millis(1), notify.notified()).await.is_err());
    })
    .unwrap();
}

#[test]
fn a_watch_shows_the_newest_version() {
    run(Config::default(), || async {
        let watch = Watch::new("a");
        let waiting = {
            let watch = watch.clone();
            spawn(async move { watch.changed(0).await })
        };
        let reached = {
            let watch = watch.clone();
            spawn(async move { watch.wait_for(|value| *value == "d").await })
        };
        yield_now().await;
        assert_eq!(watch.set("b"), 1);
        assert_eq!(watch.set("c"), 2);
        assert_eq!(waiting.await.unwrap(), (2, "c"));
        assert!(!watch.set_if_changed("c") && watch.set_if_changed("d"));
        assert_eq!((reached.await.unwrap(), watch.get(), watch.version()), ("d", "d", 3));
    })
    .unwrap();
}
