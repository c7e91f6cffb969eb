//! One core: its driver, its tasks and the turn they take.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::operation::{Outcome, Payload};
use super::remote::Remote;
use super::slab::{Completed, Slab, Stage};
use super::task::{MAIN, Polling, TaskFuture, Tasks, Wake};
use super::timers::{TimerKey, Timers};
use crate::driver::{Completion, Driver, NO_OFFSET, Names, Op, Token, Wait};
use crate::error::{Errno, Error};
use crate::time::Instant;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// State of a core. Every borrow of a cell ends before anything that could call back: dropping a
/// future or payload, polling, waking.
pub(crate) struct Core {
    driver: RefCell<Box<dyn Driver>>,
    tasks: RefCell<Tasks>,
    ready: RefCell<VecDeque<Arc<Wake>>>,
    timers: RefCell<Timers>,
    operations: RefCell<Slab>,
    /// Operations that wait for room, oldest first. May name removed ones.
    backlog: RefCell<VecDeque<Token>>,
    /// Cancel requests the driver had no room for.
    cancels: RefCell<VecDeque<Token>>,
    completions: RefCell<Vec<Completion>>,
    remote: Arc<Remote>,
    /// Bound of the operations in flight that end by themselves.
    capacity: usize,
}

/// The core of this thread, ended when dropped.
pub(super) struct Entered(Rc<Core>);

impl Core {
    pub(super) fn enter(driver: Box<dyn Driver>) -> Result<Entered, Error> {
        if Self::try_current().is_some() {
            return Err(Error::Nested);
        }
        let remote = Remote::new().map_err(|errno| Error::Ring { step: "eventfd", errno })?;
        let capacity = driver.capacity();
        let core = Rc::new(Core {
            driver: RefCell::new(driver),
            tasks: RefCell::default(),
            ready: RefCell::default(),
            timers: RefCell::default(),
            operations: RefCell::default(),
            backlog: RefCell::default(),
            cancels: RefCell::default(),
            completions: RefCell::default(),
            remote: Arc::new(remote),
            capacity,
        });
        CURRENT.set(Some(core.clone()));
        Ok(Entered(core))
    }

    /// The core of this thread.
    pub(crate) fn current() -> Rc<Core> {
        Self::try_current().expect("this thread runs no core: call it from within ironpage_io::run")
    }

    pub(crate) fn try_current() -> Option<Rc<Core>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    pub(crate) fn owns(&self, remote: &Arc<Remote>) -> bool {
        Arc::ptr_eq(&self.remote, remote)
    }

    pub(crate) fn now(&self) -> Instant {
        self.driver.borrow().now()
    }

    pub(crate) fn wall_clock(&self) -> SystemTime {
        self.driver.borrow().wall_clock()
    }

    pub(crate) fn random(&self) -> u64 {
        self.driver.borrow_mut().random()
    }

    pub(crate) fn names<T>(&self, call: impl FnOnce(&mut dyn Names) -> T) -> T {
        call(self.driver.borrow_mut().names())
    }

    // Tasks.

    pub(super) fn spawn(&self, future: TaskFuture) -> Arc<Wake> {
        let wake = self.tasks.borrow_mut().insert(future, &self.remote);
        self.ready.borrow_mut().push_back(wake.clone());
        wake
    }

    pub(super) fn make_ready(&self, wake: Arc<Wake>) {
        self.ready.borrow_mut().push_back(wake);
    }

    pub(super) fn abort(&self, wake: &Arc<Wake>) {
        let future = self.tasks.borrow_mut().abort(wake);
        drop(future);
    }

    fn run_task(&self, wake: &Arc<Wake>) {
        let Polling::Task(mut future, waker) = self.tasks.borrow_mut().begin(wake) else { return };
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => {
                self.tasks.borrow_mut().finished(wake);
                drop(future);
            }
            Poll::Pending => {
                let aborted = self.tasks.borrow_mut().pending(wake, future);
                drop(aborted);
            }
        }
    }

    // Timers.

    pub(crate) fn set_timer(&self, before: Option<TimerKey>, deadline: Instant, waker: &Waker) -> TimerKey {
        let (key, replaced) = self.timers.borrow_mut().set(before, deadline, waker);
        drop(replaced);
        key
    }

    pub(crate) fn clear_timer(&self, key: TimerKey) {
        let waker = self.timers.borrow_mut().clear(key);
        drop(waker);
    }

    fn fire_timers(&self) {
        let now = self.now();
        loop {
            let due = self.timers.borrow_mut().pop_due(now);
            match due {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    // Operations.

    /// # Safety
    /// As `Operation::submit`.
    pub(super) unsafe fn submit(&self, op: Op, payload: Box<dyn Payload>) -> Token {
        let token = self.operations.borrow_mut().insert(op, payload);
        self.backlog.borrow_mut().push_back(token);
        self.submit_backlog();
        token
    }

    /// Submits what waits, in order, while there is room. False if the driver's queue is full.
    fn submit_backlog(&self) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        let mut operations = self.operations.borrow_mut();
        let mut driver = self.driver.borrow_mut();
        while let Some(&token) = backlog.front() {
            if let Some(op) = operations.get(token).map(|entry| entry.op) {
                // Those that wait for a peer are not counted: they are as many as there are sockets, hold
                // nothing another operation needs, and must not keep the disk idle.
                if !op.is_unbounded() && operations.bounded_in_flight() >= self.capacity {
                    return true;
                }
                // SAFETY: the entry owns what op refers to (contract of Operation::submit) and stays
                // in the slab until its last completion, whatever happens to the future.
                if unsafe { driver.submit(token, &op) }.is_err() {
                    return false;
                }
                operations.mark_in_flight(token);
            }
            backlog.pop_front();
        }
        true
    }

    /// The outcome, once it is there; else remembers the waker.
    pub(super) fn take_outcome(&self, token: Token, waker: &Waker) -> Option<(Box<dyn Payload>, Outcome)> {
        let mut operations = self.operations.borrow_mut();
        let entry = operations.get(token).expect("a token lives as long as its operation");
        if entry.stage == Stage::Done {
            return operations.remove(token).map(|(_, payload, outcome)| (payload, outcome));
        }
        let replaced = match &mut entry.waker {
            Some(old) if old.will_wake(waker) => None,
            old => old.replace(waker.clone()),
        };
        drop(operations);
        drop(replaced);
        None
    }

    /// The future of an operation is gone.
    pub(super) fn orphan(&self, token: Token) {
        let removed = self.operations.borrow_mut().remove(token);
        if let Some((stage, mut payload, outcome)) = removed {
            if stage == Stage::Done {
                payload.orphaned(outcome);
            }
            return;
        }
        let mut operations = self.operations.borrow_mut();
        let Some(entry) = operations.get(token) else { return };
        entry.orphan = true;
        let waker = entry.waker.take();
        // Touches the payload's own state only.
        entry.payload.abandoned();
        let unbounded = entry.op.is_unbounded();
        drop(operations);
        drop(waker);
        if unbounded {
            self.cancel(token);
        }
    }

    fn cancel(&self, token: Token) {
        self.cancels.borrow_mut().push_back(token);
        self.submit_cancels();
    }

    fn submit_cancels(&self) -> bool {
        let mut cancels = self.cancels.borrow_mut();
        let mut driver = self.driver.borrow_mut();
        while let Some(&token) = cancels.front() {
            if driver.cancel(token).is_err() {
                return false;
            }
            cancels.pop_front();
        }
        true
    }

    fn reap(&self) {
        let mut completions = std::mem::take(&mut *self.completions.borrow_mut());
        self.driver.borrow_mut().reap(&mut completions);
        for completion in completions.drain(..) {
            let completed = self.operations.borrow_mut().complete(&completion);
            match completed {
                Completed::Partly | Completed::Wake(None) => {}
                Completed::Wake(Some(waker)) => waker.wake(),
                Completed::Orphan(mut payload, outcome) => payload.orphaned(outcome),
            }
        }
        *self.completions.borrow_mut() = completions;
    }

    // The turn.

    fn turn(&self) -> Result<(), Error> {
        let submitted = self.submit_cancels() && self.submit_backlog();
        let idle = submitted && self.ready.borrow().is_empty() && self.remote.prepare_sleep();
        let wait = match self.timers.borrow().next_deadline() {
            _ if !idle => Wait::Poll,
            Some(deadline) => Wait::Until(deadline),
            None => Wait::Completion,
        };
        let turned = self.driver.borrow_mut().turn(wait);
        if idle {
            self.remote.awake();
        }
        turned.map_err(|errno| Error::Ring { step: "enter", errno })?;
        self.reap();
        self.fire_timers();
        while let Some(task) = self.remote.pop() {
            self.make_ready(task);
        }
        Ok(())
    }

    /// Listens for other threads' wake-ups: the read that blocks the turn until the bell rings.
    async fn listen(remote: Arc<Remote>) {
        loop {
            let count = Box::new(0u64);
            let payload = Bell { count: Box::into_raw(count), _remote: remote.clone() };
            let op = Op::Read { fd: remote.bell(), buf: payload.count.cast(), len: 8, offset: NO_OFFSET };
            // SAFETY: the payload owns the eight bytes and keeps the eventfd open.
            let operation = unsafe { super::Operation::submit(op, payload) };
            let (outcome, _) = operation.await;
            if outcome.result < 0 && !Errno(-outcome.result).is_transient() {
                return;
            }
        }
    }
}

/// Where the kernel puts the count of rings.
struct Bell {
    count: *mut u64,
    _remote: Arc<Remote>,
}

impl Payload for Bell {}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: from Box::into_raw, freed only here.
        drop(unsafe { Box::from_raw(self.count) });
    }
}

impl Entered {
    pub(super) fn run<F: Future>(self, main: impl FnOnce() -> F) -> Result<F::Output, Error> {
        let core = &*self.0;
        core.spawn(Box::pin(Core::listen(core.remote.clone())));
        let mut main = pin!(main());
        let wake = Arc::new(Wake { slot: MAIN, queued: AtomicBool::new(true), remote: core.remote.clone() });
        let waker = Waker::from(wake.clone());
        core.make_ready(wake.clone());
        loop {
            // Tasks made ready from here on run in the next turn, so none can keep completions waiting.
            let ready = core.ready.borrow().len();
            for _ in 0..ready {
                let Some(task) = core.ready.borrow_mut().pop_front() else { break };
                task.queued.swap(false, Ordering::AcqRel);
                if task.slot != MAIN {
                    core.run_task(&task);
                } else if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Ok(output);
                }
            }
            core.turn()?;
        }
    }
}

impl Drop for Entered {
    /// Ends the core: drops the tasks, then waits until the kernel is done with every operation.
    fn drop(&mut self) {
        let core = &self.0;
        // Also if a task panics when it is dropped.
        let _end = End(core);
        // Dropping a task may spawn or submit; what comes of that is dropped in the next round.
        loop {
            let futures = core.tasks.borrow_mut().take_all();
            if futures.is_empty() {
                break;
            }
            drop(futures);
        }
    }
}

/// The last of a core.
struct End<'a>(&'a Core);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ready.borrow_mut().clear();
        drop(self.0.timers.borrow_mut().take_all());
        self.0.drain();
        self.0.remote.close();
        CURRENT.set(None);
    }
}

impl Core {
    /// Cancels what waits for others; operations on files are left to end.
    fn drain(&self) {
        let waiting = self.operations.borrow().unbounded_in_flight();
        self.cancels.borrow_mut().extend(waiting);
        while self.operations.borrow().in_flight() > 0 {
            self.submit_cancels();
            if let Err(errno) = self.driver.borrow_mut().turn(Wait::Completion) {
                // The slab then leaks what the kernel may still use.
                eprintln!("io_uring_enter failed at the end of a core, its buffers are leaked: {errno}");
                return;
            }
            self.reap();
        }
    }
}
