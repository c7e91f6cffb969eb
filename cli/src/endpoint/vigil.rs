//! Notices that the branch of a running endpoint is gone: then its Postgres can neither read nor commit.

use super::creation;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::place::Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How often the pageserver is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Asks until dropped, or until the answer is final.
pub struct Vigil {
    gone: Arc<AtomicBool>,
    #[expect(dead_code, reason = "its drop ends the thread")]
    running: Sender<()>,
}

impl Vigil {
    pub fn start(cluster: &Cluster, place: &Place) -> Vigil {
        let (running, stopped) = channel::<()>();
        let gone = Arc::new(AtomicBool::new(false));
        let (cluster, place, told) = (cluster.clone(), place.clone(), Arc::clone(&gone));
        std::thread::spawn(move || {
            while stopped.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // A pageserver that is away says nothing about the branch.
                if matches!(creation::present(&cluster, &place), Err(Error::BranchGone(_))) {
                    told.store(true, Ordering::Relaxed);
                    return;
                }
            }
        });
        Vigil { gone, running }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}
