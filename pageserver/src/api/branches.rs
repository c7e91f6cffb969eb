//! `/v1/tenants/{tenant}/branches`.

use super::error::ApiError;
use super::types::{AddSafekeepers, Branch, BranchList, PatchBranch};
use super::{Call, input};
use crate::branches::{Change, Expiry};
use crate::metadata::BranchRecord;
use ironpage_daemon::http::Response;
use ironpage_layout::NodeId;

impl Call<'_> {
    pub(super) fn branches(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let branches = self.service.branches();
        let (tenant, state) = (branches.tenant(self.name(0))?, branches.state());
        let list = state.branches_of(tenant.id).map(|branch| Branch::of(branch, &state, branches)).collect();
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
        let expiry = ttl_seconds.map(|ttl| Expiry::of(ttl)).transpose()?;
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

    pub(super) fn shown(&self, branch: &BranchRecord) -> Branch {
        let branches = self.service.branches();
        Branch::of(branch, &branches.state(), branches)
    }
}
