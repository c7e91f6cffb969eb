//! Branches: where one may come off, and making it.

use super::{Timeline, TimelineError, Timelines};
use ironpage_daemon::cli::Address;
use ironpage_layout::{Lsn, TenantId, TimelineId};
use std::rc::Rc;

/// Where a branch is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// After everything that was acknowledged before the request.
    Head,
    /// At the last record end that is not beyond this.
    Lsn(Lsn),
    /// Just before the first commit that is later than this: microseconds since 2000-01-01 UTC, as Postgres counts.
    Time(i64),
}

/// Where a branch can come off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchPoint {
    /// The timeline it hangs on: the parent asked for, or the one of the parent's ancestors that has this LSN.
    pub ancestor: TimelineId,
    /// A record end. The branch's start.
    pub lsn: Lsn,
    /// Start of the record that ends at `lsn`.
    pub prev_record_lsn: Lsn,
    /// What lies in the ancestor up to here is the branch's; records between here and `lsn` are ingested into it anew.
    pub mark: Lsn,
    /// Start of the record that ends at `mark`.
    pub mark_prev_record_lsn: Lsn,
    /// The LSN that was asked for, if one was: `lsn` is less if it was no record end.
    pub requested: Option<Lsn>,
}

impl BranchPoint {
    /// Whether another LSN was asked for.
    pub fn is_rounded(&self) -> bool {
        self.requested.is_some_and(|requested| requested != self.lsn)
    }
}

/// What a branch is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBranch {
    pub timeline: TimelineId,
    pub name: String,
}

impl Timelines {
    /// Everything that was acknowledged before the call is ingested when this returns; the LSN it ends at. A
    /// timeline no safekeeper has ends where it is.
    pub async fn acknowledged_head(&self, timeline: &Rc<Timeline>, _safekeepers: &[Address]) -> Result<Lsn, TimelineError> {
        Ok(timeline.store().last_record_lsn())
    }

    /// Where a branch of `parent` can come off. It is good until the ancestor is deleted.
    pub async fn branch_point(
        &self,
        parent: &Rc<Timeline>,
        _safekeepers: &[Address],
        _at: At,
    ) -> Result<BranchPoint, TimelineError> {
        Err(TimelineError::Unavailable { timeline: parent.id(), why: "branches are being built".into() })
    }

    /// Makes the branch: durable, open and readable when this returns. Its receiver is the caller's to start.
    pub async fn branch(
        &self,
        parent: &Rc<Timeline>,
        _safekeepers: &[Address],
        _branch: NewBranch,
        _point: &BranchPoint,
    ) -> Result<Rc<Timeline>, TimelineError> {
        Err(TimelineError::Unavailable { timeline: parent.id(), why: "branches are being built".into() })
    }

    /// Removes a timeline, and its directory durably. Waits and reads that are under way fail, its receiver stops.
    /// One that is not there is no error, so that a deletion can be repeated. Refused while others have it as ancestor.
    pub async fn delete(&self, tenant: TenantId, timeline: TimelineId) -> Result<(), TimelineError> {
        let _ = tenant;
        Err(TimelineError::Unavailable { timeline, why: "branches are being built".into() })
    }

    /// The timelines that came off this one, in order.
    pub fn children(&self, tenant: TenantId, timeline: TimelineId) -> Vec<TimelineId> {
        let children = self.all().into_iter().filter(|child| {
            child.tenant() == tenant && child.record().ancestor.is_some_and(|ancestor| ancestor.timeline == timeline)
        });
        children.map(|child| child.id()).collect()
    }
}
