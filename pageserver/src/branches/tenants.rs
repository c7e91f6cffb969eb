//! Tenants.

use super::{BranchError, Branches, now_us, random_id};
use crate::metadata::{Record, State, TenantRecord, TenantState};
use ironpage_layout::TenantId;

impl Branches {
    /// Makes a tenant. With the id of one that has this name already it succeeds again.
    pub async fn create_tenant(&self, name: &str, id: Option<TenantId>) -> Result<TenantRecord, BranchError> {
        let id = match id {
            Some(id) => id,
            None => TenantId(random_id()?),
        };
        let tenant = TenantRecord { id, name: name.to_string(), state: TenantState::Active, created_at_us: now_us() };
        let make = |state: &State| match state.tenant(id) {
            Some(there) if there.name == name && there.state == TenantState::Active => Ok((Vec::new(), (**there).clone())),
            Some(there) => {
                let why = format!("tenant {id} is there already; its name is '{}'", there.name);
                Err(BranchError::Conflict { why })
            }
            None => Ok((vec![Record::Tenant(tenant.clone())], tenant)),
        };
        self.shared.journal.change(make).await.map(|(_, tenant)| tenant)
    }
}
