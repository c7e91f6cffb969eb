//! Tenants and branches: the metadata's records and the timelines that go with them, changed in step.
//!
//! The journal goes first: a branch is journalled before anything of it is on disk, and called active once all of
//! it is; it is journalled as being deleted before anything of it goes. So whatever a crash leaves half is known
//! at the next start, which removes what nobody was told of and ends what was begun to be deleted.

mod change;
mod create;
mod delete;
mod error;
mod expiry;
mod history;
mod import;
mod replace;
mod safekeepers;
mod tenants;
#[cfg(test)]
mod tests;

pub use change::{Change, Expiry};
pub use create::{CreateBranch, Created};
pub use delete::Deletion;
pub use error::{BranchError, Refusal};
pub use history::to_postgres_us;
pub use import::{Admission, ImportRequest};
pub use replace::{Children, Restored};

use crate::metadata::{BranchKind, BranchRecord, BranchState, Journal, MetadataError, Record, State, TenantRecord};
use crate::receiver;
use crate::timeline::{Known, Timeline, Timelines, TimelinesConfig};
use crate::worker::Worker;
use ironpage_daemon::cli::Address;
use ironpage_daemon::warn;
use ironpage_io::sync::Notify;
use ironpage_io::time::wall_clock;
use ironpage_layout::{TenantId, TimelineId};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

/// The branches of a pageserver. A handle; clones are the same.
#[derive(Clone)]
pub struct Branches {
    shared: Rc<Shared>,
}

struct Shared {
    journal: Journal,
    timelines: Timelines,
    safekeepers: Vec<Address>,
    dir: PathBuf,
    /// Branches whose removal is under way.
    removing: RefCell<BTreeSet<(TenantId, TimelineId)>>,
    /// A branch or tenant is gone.
    removed: Notify,
}

impl Branches {
    /// Opens the metadata and the timelines it names. Nothing is ingested before [`Branches::start`].
    pub async fn open(config: TimelinesConfig, worker: Worker, safekeepers: Vec<Address>) -> Result<Branches, BranchError> {
        let dir = config.dir.clone();
        let journal = Journal::open(&dir).await?;
        let state = journal.state();
        let names = |wanted: bool| {
            let of = state.branches().filter(|branch| (branch.state == BranchState::Active) == wanted);
            of.map(|branch| (branch.tenant, branch.timeline)).collect()
        };
        let timelines = Timelines::open(config, worker, Known::These { keep: names(true), remove: names(false) }).await?;
        for branch in state.branches().filter(|branch| branch.state == BranchState::Active) {
            if timelines.get(branch.tenant, branch.timeline).is_none() {
                let path: PathBuf = dir.join(branch.tenant.to_string()).join(branch.timeline.to_string());
                return Err(BranchError::Missing { name: branch.name.clone(), path });
            }
        }
        let (removing, removed) = (RefCell::default(), Notify::new());
        let shared = Shared { journal, timelines, safekeepers, dir, removing, removed };
        let branches = Branches { shared: Rc::new(shared) };
        branches.roll_back(&state).await?;
        branches.remove_dirs_of_gone_tenants().await?;
        Ok(branches)
    }

    /// Nobody was told of a branch that was being made: it is as if it had never been.
    async fn roll_back(&self, state: &State) -> Result<(), BranchError> {
        let creating: Vec<_> = state.branches().filter(|branch| branch.state == BranchState::Creating).collect();
        for branch in &creating {
            warn!("branch '{}' ({}) was being made when the process ended; it is undone", branch.name, branch.timeline);
        }
        let gone: Vec<_> = creating.iter().map(|branch| Record::BranchGone(branch.tenant, branch.timeline)).collect();
        self.shared.journal.commit(&gone).await?;
        Ok(())
    }

    /// Feeds the branches, goes on with deletions, and lets branches expire.
    pub fn start(&self) {
        for timeline in self.shared.timelines.all() {
            self.start_receiver(timeline);
        }
        self.remove_deleting();
        drop(ironpage_io::spawn(self.clone().expire()));
    }

    fn start_receiver(&self, timeline: Rc<Timeline>) {
        let state = self.state();
        let record = state.branch(timeline.tenant(), timeline.id());
        // A snapshot stands still.
        if record.is_some_and(|record| record.kind == BranchKind::Snapshot) {
            return;
        }
        drop(ironpage_io::spawn(receiver::run(timeline, self.shared.safekeepers.clone())));
    }

    pub fn timelines(&self) -> &Timelines {
        &self.shared.timelines
    }

    pub fn state(&self) -> Rc<State> {
        self.shared.journal.state()
    }

    /// Why no metadata can be changed any more; `None` while it can.
    pub fn failure(&self) -> Option<MetadataError> {
        self.shared.journal.failure()
    }

    /// The tenant of that name, or else of that id.
    pub fn tenant(&self, name_or_id: &str) -> Result<Rc<TenantRecord>, BranchError> {
        find_tenant(&self.state(), name_or_id)
    }

    /// The branch of that name that is not being deleted, or else of that id.
    pub fn branch(&self, tenant: &str, name_or_id: &str) -> Result<Rc<BranchRecord>, BranchError> {
        find_branch(&self.state(), tenant, name_or_id)
    }

    /// The timeline of an active branch.
    pub fn timeline(&self, branch: &BranchRecord) -> Result<Rc<Timeline>, BranchError> {
        let found = self.shared.timelines.get(branch.tenant, branch.timeline);
        found.filter(|_| branch.state == BranchState::Active).ok_or_else(|| BranchError::not_active(branch))
    }
}

fn find_tenant(state: &State, name_or_id: &str) -> Result<Rc<TenantRecord>, BranchError> {
    let by_id = || name_or_id.parse::<TenantId>().ok().and_then(|id| state.tenant(id));
    let found = state.tenant_named(name_or_id).or_else(by_id);
    found.cloned().ok_or_else(|| BranchError::NoTenant { name: shown(name_or_id) })
}

fn find_branch(state: &State, tenant: &str, name_or_id: &str) -> Result<Rc<BranchRecord>, BranchError> {
    let tenant = find_tenant(state, tenant)?;
    let by_id = || name_or_id.parse::<TimelineId>().ok().and_then(|id| state.branch(tenant.id, id));
    let found = state.branch_named(tenant.id, name_or_id).or_else(by_id);
    found.cloned().ok_or_else(|| BranchError::NoBranch { tenant: tenant.name.clone(), name: shown(name_or_id) })
}

/// What somebody sent, fit for a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
    if text.chars().count() > 64 {
        shown.push('…');
    }
    shown
}

/// Microseconds since 1970 UTC.
fn now_us() -> i64 {
    wall_clock().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn random_id() -> Result<[u8; 16], BranchError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| BranchError::Random { why: error.to_string() })?;
    Ok(id)
}
