//! Notices that a running endpoint's branch is gone, or that its name leads to another timeline by now: then its Postgres
//! can neither read nor commit, or what it commits is in a branch of another name.

use super::creation;
use crate::cluster::{Cluster, Endpoint};
use crate::error::Error;
use crate::place::Place;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often the pageserver is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// So many answers in a row must say that the name has moved: between two questions branches may change their names.
const MOVED_ANSWERS: u32 = 2;

/// Asks until dropped, or until the answer is final.
pub struct Vigil {
    pointless: Arc<OnceLock<&'static str>>,
    #[expect(dead_code, reason = "its drop ends the thread")]
    running: Sender<()>,
}

impl Vigil {
    pub fn start(cluster: &Cluster, endpoint: &Endpoint, place: &Place) -> Vigil {
        let (running, stopped) = channel::<()>();
        let pointless = Arc::new(OnceLock::new());
        let (cluster, name, place, told) = (cluster.clone(), endpoint.name.clone(), place.clone(), Arc::clone(&pointless));
        std::thread::spawn(move || {
            let mut moved = 0;
            while stopped.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // A pageserver that is away says nothing about the branch.
                if matches!(creation::present(&cluster, &place), Err(Error::BranchGone(_))) {
                    let _ = told.set("its branch is gone");
                    return;
                }
                moved = if has_moved(&cluster, &name, &place) { moved + 1 } else { 0 };
                if moved == MOVED_ANSWERS {
                    let _ = told.set("its branch was reset or restored: the name has another timeline");
                    return;
                }
            }
        });
        Vigil { pointless, running }
    }

    /// Why there is no point in going on with this Postgres.
    pub fn pointless(&self) -> Option<&'static str> {
        self.pointless.get().copied()
    }
}

/// Whether the name of the endpoint's branch, which may have changed, leads to another timeline than it runs on.
fn has_moved(cluster: &Cluster, endpoint: &str, place: &Place) -> bool {
    let now = Cluster::open(&cluster.dir).and_then(|cluster| {
        let endpoint = cluster.endpoint(endpoint)?;
        Place::find(&cluster, &endpoint.tenant, &endpoint.branch)
    });
    now.is_ok_and(|now| now.branch.id != place.branch.id)
}
