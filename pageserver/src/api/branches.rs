//! `/v1/tenants/{tenant}/branches`.

use super::error::ApiError;
use super::types::{
    AddSafekeepers, Branch, BranchCreated, BranchList, BranchReset, BranchRestored, NewBranch, PatchBranch, ResetBranch,
    RestoreBranch,
};
use super::{Call, deleted, input};
use crate::branches::{Change, Children, CreateBranch, Created, Expiry, Restored, to_postgres_us};
use crate::metadata::{BranchKind, BranchRecord};
use crate::timeline::At;
use ironpage_daemon::http::Response;
use ironpage_layout::lsn::ParseLsnError;
use ironpage_layout::{Lsn, NodeId};

impl Call<'_> {
    pub(super) fn branches(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let branches = self.service.branches();
        let (tenant, state) = (branches.tenant(self.name(0))?, branches.state());
        let list =
            state.branches_of(tenant.id).map(|branch| Branch::of(branch, &state, branches.timeline(branch).ok())).collect();
        Ok(Response::json(200, &BranchList { branches: list }))
    }

    pub(super) fn branch(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let branch = self.service.branches().branch(self.name(0), self.name(1))?;
        Ok(Response::json(200, &self.shown(&branch)))
    }

    pub(super) async fn patch_branch(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let PatchBranch { name, ttl_seconds } = input::body(self.body)?;
        let expiry = ttl_seconds.map(Expiry::of).transpose()?;
        let change = Change { name, expiry };
        let branch = self.service.branches().change(self.name(0), self.name(1), change).await?;
        Ok(Response::json(200, &self.shown(&branch)))
    }

    pub(super) async fn add_safekeepers(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let AddSafekeepers { members } = input::body(self.body)?;
        let members: Vec<NodeId> = members.into_iter().map(NodeId).collect();
        let branch = self.service.branches().add_safekeepers(self.name(0), self.name(1), &members).await?;
        Ok(Response::json(200, &self.shown(&branch)))
    }

    pub(super) async fn create_branch(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let new: NewBranch = input::body(self.body)?;
        let request = CreateBranch {
            at: at(new.at_lsn.as_deref(), new.at_timestamp_us)?.unwrap_or(At::Head),
            expiry: Expiry::of(new.ttl_seconds)?,
            kind: match new.kind.as_deref() {
                None | Some("branch") => BranchKind::Branch,
                Some("snapshot") => BranchKind::Snapshot,
                Some(_) => return Err(ApiError::BadRequest("kind is 'branch' or 'snapshot'".into())),
            },
            name: new.name,
            from: new.from,
        };
        let Created { branch, point } = self.service.branches().create(self.name(0), request).await?;
        let requested_lsn = point.requested.map(|lsn| lsn.to_string());
        let (lsn, rounded) = (point.lsn.to_string(), point.is_rounded());
        Ok(Response::json(201, &BranchCreated { branch: self.shown(&branch), requested_lsn, lsn, rounded }))
    }

    pub(super) async fn delete_branch(&self) -> Result<Response, ApiError> {
        let children = self.children()?;
        Ok(deleted(self.service.branches().delete(self.name(0), self.name(1), children).await?))
    }

    pub(super) async fn reset_branch(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let ResetBranch { recursive } = input::body_or_default(self.body)?;
        let branch = self.service.branches().reset(self.name(0), self.name(1), Children::of(recursive)).await?;
        Ok(Response::json(200, &BranchReset { branch: self.shown(&branch) }))
    }

    pub(super) async fn restore_branch(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let RestoreBranch { at_lsn, at_timestamp_us } = input::body(self.body)?;
        let missing = || ApiError::BadRequest("give at_lsn or at_timestamp_us".into());
        let at = at(at_lsn.as_deref(), at_timestamp_us)?.ok_or_else(missing)?;
        let Restored { branch, backup, point } = self.service.branches().restore(self.name(0), self.name(1), at).await?;
        let requested_lsn = point.requested.map(|lsn| lsn.to_string());
        let (lsn, rounded) = (point.lsn.to_string(), point.is_rounded());
        let (branch, backup) = (self.shown(&branch), self.shown(&backup));
        Ok(Response::json(200, &BranchRestored { branch, backup, requested_lsn, lsn, rounded }))
    }

    pub(super) fn shown(&self, branch: &BranchRecord) -> Branch {
        let branches = self.service.branches();
        Branch::of(branch, &branches.state(), branches.timeline(branch).ok())
    }
}

/// Where a branch is to come off, as a body says it.
fn at(lsn: Option<&str>, timestamp_us: Option<i64>) -> Result<Option<At>, ApiError> {
    match (lsn, timestamp_us) {
        (None, None) => Ok(None),
        (Some(lsn), None) => {
            let lsn: Lsn = lsn.parse().map_err(|error: ParseLsnError| ApiError::BadRequest(format!("at_lsn: {error}")))?;
            Ok(Some(At::Lsn(lsn)))
        }
        (None, Some(timestamp_us)) => Ok(Some(At::Time(to_postgres_us(timestamp_us)?))),
        (Some(_), Some(_)) => Err(ApiError::BadRequest("at_lsn and at_timestamp_us: give one of them".into())),
    }
}
