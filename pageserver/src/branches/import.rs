//! Root branches, which come from outside.

use super::{BranchError, Branches, now_us};
use crate::fault;
use crate::metadata::{BranchKind, BranchRecord, BranchState, Record, State};
use crate::timeline::Timeline;
use ironpage_daemon::warn;
use ironpage_layout::Lsn;
use ironpage_layout::wire::admin::{KIND_BRANCH, KIND_FOLLOW, TimelineCreate};
use std::rc::Rc;

/// What an import says of the branch it is to make.
pub type ImportRequest = TimelineCreate;

/// What becomes of an import.
#[derive(Debug)]
pub enum Admission {
    /// It may begin; give it to [`Branches::finish_import`] or [`Branches::abandon_import`].
    Begin(Box<BranchRecord>),
    /// The branch is there already.
    There,
}

impl Branches {
    /// Journals that the branch is being made, so that nothing of it stays if the process ends before it is.
    pub async fn admit_import(&self, request: &ImportRequest) -> Result<Admission, BranchError> {
        let kind = match request.kind {
            KIND_BRANCH => BranchKind::Branch,
            KIND_FOLLOW => BranchKind::Follow,
            other => return Err(BranchError::BadRequest { why: format!("{other} is no kind of branch that can be imported") }),
        };
        let branch = BranchRecord {
            tenant: request.tenant,
            timeline: request.timeline,
            name: request.name.clone(),
            kind,
            state: BranchState::Creating,
            parent: None,
            start_lsn: request.start_lsn,
            readable_lsn: request.readable_lsn.max(request.start_lsn),
            prev_record_lsn: request.prev_record_lsn,
            system_id: request.system_id,
            postgres_version: request.postgres_version,
            created_at_us: now_us(),
            expires_at_us: None,
            safekeepers: Vec::new(),
        };
        let make = |state: &State| {
            if let Some(there) = state.branch(branch.tenant, branch.timeline) {
                return match there.state {
                    BranchState::Active => Ok((Vec::new(), Admission::There)),
                    _ => Err(BranchError::not_active(there)),
                };
            }
            let records = vec![Record::Branch(branch.clone())];
            Ok((records, Admission::Begin(Box::new(branch))))
        };
        let (_, admission) = self.shared.journal.change(make).await?;
        fault::point("import-journalled");
        Ok(admission)
    }

    /// All of the timeline is on disk: it is a branch from now on. `readable_lsn` is what the end of the import said.
    pub async fn finish_import(
        &self,
        branch: BranchRecord,
        timeline: Rc<Timeline>,
        readable_lsn: Lsn,
    ) -> Result<(), BranchError> {
        fault::point("import-made");
        let readable_lsn = branch.readable_lsn.max(readable_lsn).max(timeline.record().readable_lsn);
        let active = BranchRecord { state: BranchState::Active, readable_lsn, ..branch };
        self.shared.journal.commit(&[Record::Branch(active)]).await?;
        fault::point("import-active");
        self.start_receiver(timeline);
        Ok(())
    }

    /// The import will not end, and nothing of it is on disk any more.
    pub async fn abandon_import(&self, branch: &BranchRecord) {
        let gone = Record::BranchGone(branch.tenant, branch.timeline);
        if let Err(error) = self.shared.journal.commit(&[gone]).await {
            warn!("branch '{}': its import was given up, which cannot be journalled: {error}", branch.name);
        }
    }
}
