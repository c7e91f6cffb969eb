//! Tests of tasks, timers and the ends of cores, on the real ring.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::fs::{File, Options};
use crate::sync::{Notify, doorbell, oneshot};
use crate::time::{self, sleep, timeout};
use crate::{Aborted, Config, Error, IoBuf, random, run, spawn, yield_now};

#[test]
fn tasks_run_in_turns_and_give_their_results() {
    let order = Rc::new(RefCell::new(Vec::new()));
    let output = run(Config::default(), || async {
        let task = |name: &'static str| {
            let order = order.clone();
            async move {
                for step in 0..2 {
                    order.borrow_mut().push((name, step));
                    yield_now().await;
                }
                name.len()
            }
        };
        let (first, second) = (spawn(task("a")), spawn(task("bb")));
        (first.await, second.await)
    });
    assert_eq!(output.unwrap(), (Ok(1), Ok(2)));
    assert_eq!(*order.borrow(), [("a", 0), ("bb", 0), ("a", 1), ("bb", 1)]);
}

#[test]
fn a_thread_runs_one_core() {
    let nested = run(Config::default(), || async { run(Config::default(), || async {}) }).unwrap();
    assert!(matches!(nested, Err(Error::Nested)));
    run(Config::default(), || async {}).unwrap();
}

#[test]
fn an_aborted_task_drops_its_future() {
    struct SetOnDrop(Rc<Cell<bool>>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    run(Config::default(), || async {
        let dropped = Rc::new(Cell::new(false));
        let guard = SetOnDrop(dropped.clone());
        let handle = spawn(async move {
            let _guard = guard;
            sleep(Duration::from_secs(1000)).await;
        });
        yield_now().await;
        assert!(!dropped.get() && !handle.is_finished());
        handle.abort();
        assert!(dropped.get());
        assert_eq!(handle.await, Err(Aborted));
        // A task that aborts itself ends at its next await.
        let (sender, receiver) = oneshot();
        let notify = Notify::new();
        let waiting = notify.clone();
        let handle = Rc::new(RefCell::new(None::<crate::JoinHandle<()>>));
        let inner = handle.clone();
        *handle.borrow_mut() = Some(spawn(async move {
            let _sender = sender;
            waiting.notified().await;
            inner.borrow().as_ref().unwrap().abort();
            yield_now().await;
            unreachable!("the task was aborted");
        }));
        notify.notify_one();
        assert_eq!(receiver.await, None::<()>);
    })
    .unwrap();
}

#[test]
fn a_detached_task_runs_on_and_ends_with_the_core() {
    let alive = Rc::new(());
    run(Config::default(), || async {
        let (sender, receiver) = oneshot();
        drop(spawn(async move { sender.send(7) }));
        assert_eq!(receiver.await, Some(7));
        let held = alive.clone();
        drop(spawn(async move {
            sleep(Duration::from_secs(1000)).await;
            drop(held);
        }));
        yield_now().await;
        assert_eq!(Rc::strong_count(&alive), 2);
    })
    .unwrap();
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn timers_fire_in_order_and_timeouts_elapse() {
    run(Config::default(), || async {
        let begin = time::now();
        let order = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = [30u64, 10, 20]
            .into_iter()
            .map(|millis| {
                let order = order.clone();
                spawn(async move {
                    sleep(Duration::from_millis(millis)).await;
                    order.borrow_mut().push(millis);
                })
            })
            .collect();
        for handle in handles {
            handle.await.unwrap();
        }
        assert_eq!(*order.borrow(), [10, 20, 30]);
        assert!(begin.elapsed() >= Duration::from_millis(30));
        let short = Duration::from_millis(1);
        assert_eq!(timeout(short, sleep(Duration::from_secs(1000))).await, Err(time::Elapsed(short)));
        assert_eq!(timeout(Duration::from_secs(1000), async { 5 }).await, Ok(5));
    })
    .unwrap();
}

#[test]
fn other_threads_reach_the_core_by_doorbell() {
    run(Config::default(), || async {
        let (sender, mut receiver) = doorbell::<u64>(4);
        const EACH: u64 = 2000;
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for value in 1..=EACH {
                        while sender.try_send(value).is_err() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let (mut count, mut sum) = (0, 0);
        while let Some(value) = receiver.recv().await {
            (count, sum) = (count + 1, sum + value);
        }
        assert_eq!((count, sum), (2 * EACH, EACH * (EACH + 1)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    })
    .unwrap();
}

#[test]
fn a_seed_fixes_the_random_numbers() {
    let draw = |seed| run(Config { seed, ..Config::default() }, || async { (random(), random()) }).unwrap();
    assert_eq!(draw(Some(1)), draw(Some(1)));
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(draw(None), draw(None));
}

#[test]
fn a_panic_in_a_task_unwinds_through_run_and_ends_the_core() {
    let alive = Rc::new(());
    let held = alive.clone();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(Config::default(), || async {
            drop(spawn(async move {
                let _held = held;
                sleep(Duration::from_secs(1000)).await;
            }));
            spawn(async { panic!("a wrong sum") }).await
        })
    }));
    assert!(result.is_err());
    assert_eq!(Rc::strong_count(&alive), 1);
    run(Config::default(), || async {}).unwrap();
}

#[test]
fn a_task_that_panics_when_dropped_does_not_keep_the_core_from_ending() {
    struct PanicOnDrop;
    impl Drop for PanicOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let path = std::env::temp_dir().join(format!("ironpage-io-{}-panic", std::process::id()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(Config::default(), || async {
            let options = Options { read: true, write: true, create: true, ..Options::default() };
            let file = File::open(&path, options).await.unwrap();
            drop(spawn(async move { file.write_all_at(IoBuf::zeroed(1 << 20), 0).await.0.unwrap() }));
            drop(spawn(async {
                let _guard = PanicOnDrop;
                std::future::pending::<()>().await;
            }));
            yield_now().await;
        })
    }));
    assert!(result.is_err());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    std::fs::remove_file(&path).unwrap();
    run(Config::default(), || async {}).unwrap();
}

#[test]
fn a_wake_after_the_end_of_a_core_does_nothing() {
    let (waker, remote) = run(Config::default(), || async {
        let (sender, receiver) = oneshot();
        let mut sender = Some(sender);
        drop(spawn(std::future::poll_fn(move |cx| {
            if let Some(sender) = sender.take() {
                let _ = sender.send(cx.waker().clone());
            }
            std::task::Poll::<()>::Pending
        })));
        (receiver.await.unwrap(), std::rc::Rc::downgrade(&super::Core::current()))
    })
    .unwrap();
    assert!(remote.upgrade().is_none());
    waker.wake_by_ref();
    std::thread::spawn(move || waker.wake()).join().unwrap();
}

#[test]
fn two_cores_wake_each_other() {
    const ROUNDS: u32 = 3000;
    let (to_first, mut from_second) = doorbell::<u32>(1);
    let (to_second, mut from_first) = doorbell::<u32>(1);
    let second = std::thread::spawn(move || {
        run(Config::default(), || async move {
            while let Some(value) = from_first.recv().await {
                to_first.try_send(value).unwrap();
            }
        })
        .unwrap();
    });
    run(Config::default(), || async move {
        for round in 0..ROUNDS {
            to_second.try_send(round).unwrap();
            assert_eq!(from_second.recv().await, Some(round));
        }
    })
    .unwrap();
    second.join().unwrap();
}
