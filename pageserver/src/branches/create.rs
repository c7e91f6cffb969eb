//! New branches off others.

use super::{BranchError, Branches, Expiry, find_branch, find_tenant, now_us, random_id};
use crate::fault;
use crate::metadata::{BranchKind, BranchRecord, BranchState, MetadataError, Record, State, is_name};
use crate::timeline::{At, BranchPoint, NewBranch, Timeline};
use ironpage_daemon::{info, warn};
use ironpage_layout::TimelineId;
use std::rc::Rc;

/// What a branch is to be.
#[derive(Clone, Debug)]
pub struct CreateBranch {
    pub name: String,
    /// Name or id of the branch it comes off.
    pub from: String,
    pub at: At,
    pub expiry: Expiry,
    pub kind: BranchKind,
}

/// A branch that was made.
#[derive(Clone, Debug)]
pub struct Created {
    pub branch: Rc<BranchRecord>,
    pub point: BranchPoint,
}

/// A timeline that is whole on disk, and journalled as being made.
pub(super) struct Made {
    pub timeline: Rc<Timeline>,
    /// As journalled.
    pub record: BranchRecord,
    pub point: BranchPoint,
}

/// Where the crash tests end the process.
pub(super) struct Steps {
    pub journalled: fn(),
    pub made: fn(),
}

impl Branches {
    /// Makes a branch. It is durable, and open for reads, when this returns.
    pub async fn create(&self, tenant: &str, request: CreateBranch) -> Result<Created, BranchError> {
        let state = self.state();
        let tenant = find_tenant(&state, tenant)?;
        let parent = find_branch(&state, &tenant.name, &request.from)?;
        if !is_name(&request.name) {
            return Err(crate::metadata::Invalid::Name { name: super::shown(&request.name) }.into());
        }
        if state.branch_named(tenant.id, &request.name).is_some() {
            return Err(BranchError::Exists { tenant: tenant.name.clone(), name: request.name });
        }
        let steps =
            Steps { journalled: || fault::point("branch-create-journalled"), made: || fault::point("branch-create-made") };
        let made = self.make(&parent, request.name, request.kind, request.at, &steps).await?;
        let timeline = made.timeline.clone();
        let active = BranchRecord {
            expires_at_us: request.expiry.0,
            readable_lsn: timeline.record().readable_lsn,
            state: BranchState::Active,
            ..made.record.clone()
        };
        let result = self.shared.journal.commit(&[Record::Branch(active.clone())]).await;
        if let Err(error) = result {
            return Err(self.unmade(&made.record, error.into()).await);
        }
        fault::point("branch-create-active");
        self.start_receiver(timeline);
        info!("branch '{}' ({}) comes off '{}' at {}", active.name, active.timeline, parent.name, active.start_lsn);
        Ok(Created { branch: Rc::new(active), point: made.point })
    }

    /// Journals a branch as being made, and makes its timeline. Give it to the journal as active, or to
    /// [`Branches::unmade`].
    pub(super) async fn make(
        &self,
        from: &BranchRecord,
        name: String,
        kind: BranchKind,
        at: At,
        steps: &Steps,
    ) -> Result<Made, BranchError> {
        let parent = self.timeline(from)?;
        let (timelines, safekeepers) = (&self.shared.timelines, &self.shared.safekeepers);
        let point = timelines.branch_point(&parent, safekeepers, at).await?;
        let record = BranchRecord {
            tenant: from.tenant,
            timeline: TimelineId(random_id()?),
            name,
            kind,
            state: BranchState::Creating,
            parent: Some(point.ancestor),
            start_lsn: point.lsn,
            readable_lsn: from.readable_lsn,
            prev_record_lsn: point.prev_record_lsn,
            system_id: from.system_id,
            postgres_version: from.postgres_version,
            created_at_us: now_us(),
            expires_at_us: None,
            safekeepers: Vec::new(),
        };
        // From here on the parent cannot be deleted: it has a child.
        self.shared.journal.commit(&[Record::Branch(record.clone())]).await?;
        (steps.journalled)();
        let new = NewBranch { timeline: record.timeline, name: record.name.clone() };
        match timelines.branch(&parent, safekeepers, new, &point).await {
            Ok(timeline) => {
                (steps.made)();
                Ok(Made { timeline, record, point })
            }
            Err(error) => Err(self.unmade(&record, error.into()).await),
        }
    }

    /// Removes what is there of a branch that nobody was told of and that cannot be because of `error`, which is given back.
    /// What cannot be removed now is at the next start.
    pub(super) async fn unmade(&self, record: &BranchRecord, error: BranchError) -> BranchError {
        if !matches!(error, BranchError::Metadata(MetadataError::Poisoned { .. })) {
            self.unmake(record).await;
        }
        // Else the journal may say on disk that the branch is active. Then the next start needs all of it.
        error
    }

    async fn unmake(&self, record: &BranchRecord) {
        let undo = async {
            self.shared.timelines.delete(record.tenant, record.timeline).await?;
            self.shared.journal.commit(&[Record::BranchGone(record.tenant, record.timeline)]).await?;
            Ok::<(), BranchError>(())
        };
        if let Err(error) = undo.await {
            warn!(
                "branch '{}' ({}) was not made, and the next start removes what is left of it: {error}",
                record.name, record.timeline
            );
        }
    }
}

/// The branch that has that name, if it is still the one that was seen before.
pub(super) fn unchanged(state: &State, seen: &BranchRecord) -> Result<Rc<BranchRecord>, BranchError> {
    match state.branch(seen.tenant, seen.timeline) {
        Some(now) if now.name == seen.name && now.state == BranchState::Active => Ok(now.clone()),
        _ => Err(BranchError::Conflict { why: format!("branch '{}' was renamed, replaced or deleted meanwhile", seen.name) }),
    }
}
