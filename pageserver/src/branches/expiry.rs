//! Branches that go away by themselves.

use super::replace::Children;
use super::{Branches, now_us};
use crate::metadata::{BranchRecord, BranchState};
use ironpage_daemon::{info, warn};
use ironpage_io::time::sleep;
use ironpage_layout::{TenantId, TimelineId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How late a branch may go.
const PERIOD: Duration = Duration::from_secs(1);

fn is_expired(branch: &BranchRecord) -> bool {
    branch.state == BranchState::Active && branch.expires_at_us.is_some_and(|at| at <= now_us())
}

impl Branches {
    /// Deletes branches whose time is over, for ever. One with children stays until these are gone; that is said once.
    pub(super) async fn expire(self) {
        let mut said: BTreeSet<(TenantId, TimelineId)> = BTreeSet::new();
        loop {
            sleep(PERIOD).await;
            let state = self.state();
            said.retain(|(tenant, timeline)| state.branch(*tenant, *timeline).is_some_and(|branch| is_expired(branch)));
            for branch in state.branches().filter(|branch| is_expired(branch)) {
                let (tenant, id) = (branch.tenant.to_string(), branch.timeline.to_string());
                // Its lease may be renewed meanwhile.
                match self.delete_if(&tenant, &id, Children::Refuse, is_expired).await {
                    Ok(_) => info!("branch '{}' ({id}): its time was over", branch.name),
                    Err(error) => {
                        if said.insert((branch.tenant, branch.timeline)) {
                            warn!("branch '{}' ({id}) has expired and stays: {error}", branch.name);
                        }
                    }
                }
            }
        }
    }
}
