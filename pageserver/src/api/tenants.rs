//! `/v1/tenants`.

use super::error::ApiError;
use super::types::{NewTenant, Tenant, Tenants};
use super::{Call, deleted, input};
use ironpage_daemon::http::Response;

impl Call<'_> {
    pub(super) fn tenants(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let state = self.service.branches().state();
        let tenants = state.tenants().map(|tenant| Tenant::of(tenant, &state)).collect();
        Ok(Response::json(200, &Tenants { tenants }))
    }

    pub(super) async fn create_tenant(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let NewTenant { name, id } = input::body(self.body)?;
        let id = id.map(|id| id.parse()).transpose();
        let id = id.map_err(|error: ironpage_layout::id::ParseIdError| ApiError::BadRequest(error.to_string()))?;
        let branches = self.service.branches();
        let tenant = branches.create_tenant(&name, id).await?;
        Ok(Response::json(201, &Tenant::of(&tenant, &branches.state())))
    }

    pub(super) fn tenant(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let branches = self.service.branches();
        let tenant = branches.tenant(self.name(0))?;
        Ok(Response::json(200, &Tenant::of(&tenant, &branches.state())))
    }

    pub(super) async fn delete_tenant(&self) -> Result<Response, ApiError> {
        let children = self.children()?;
        Ok(deleted(self.service.branches().delete_tenant(self.name(0), children).await?))
    }
}
