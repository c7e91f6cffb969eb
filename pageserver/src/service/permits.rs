//! A bound on what is under way at once.

use ironpage_io::sync::Notify;
use std::cell::Cell;
use std::rc::Rc;

/// So many permits; who wants one waits until there is one.
#[derive(Clone)]
pub struct Permits {
    shared: Rc<Shared>,
}

struct Shared {
    free: Cell<usize>,
    freed: Notify,
}

/// Given back when dropped.
pub struct Permit {
    shared: Rc<Shared>,
}

impl Permits {
    pub fn new(count: usize) -> Permits {
        Permits { shared: Rc::new(Shared { free: Cell::new(count), freed: Notify::new() }) }
    }

    pub async fn take(&self) -> Permit {
        loop {
            let freed = self.shared.freed.notified();
            if self.shared.free.get() > 0 {
                self.shared.free.set(self.shared.free.get() - 1);
                return Permit { shared: self.shared.clone() };
            }
            freed.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.free.set(self.shared.free.get() + 1);
        self.shared.freed.notify_all();
    }
}
