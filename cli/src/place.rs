//! Where the names of a tenant and of a branch lead.

use crate::api::{ApiCode, Branch};
use crate::client::Identity;
use crate::cluster::{Cluster, MAIN};
use crate::error::{Error, Result};
use ironpage_layout::{TenantId, TimelineId};

/// A branch that exists, with all that its timeline is known by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub tenant: TenantId,
    pub branch: Branch,
}

impl Place {
    pub fn find(cluster: &Cluster, tenant: &str, branch: &str) -> Result<Place> {
        let api = cluster.api();
        let id = if tenant == MAIN { cluster.settings.tenant } else { api.tenant(tenant)?.id };
        Ok(Place { tenant: id, branch: api.branch(tenant, branch)? })
    }

    /// As daemons and the extension know the timeline.
    pub fn identity(&self) -> Identity {
        Identity {
            tenant: self.tenant,
            timeline: self.branch.id,
            system_id: self.branch.system_id,
            postgres_version: self.branch.postgres_version,
        }
    }
}

/// The tenant's name, if its id was given: endpoints and followers know it by its name alone, and whoever asks by id whether
/// one of them runs must not be told that none does. Any other text as it is.
pub fn tenant_name(cluster: &Cluster, tenant: &str) -> Result<String> {
    match tenant.parse::<TenantId>() {
        Ok(_) => or_as_given(cluster.api().tenant(tenant).map(|found| found.name), tenant),
        Err(_) => Ok(tenant.to_string()),
    }
}

/// The same of a branch.
pub fn branch_name(cluster: &Cluster, tenant: &str, branch: &str) -> Result<String> {
    match branch.parse::<TimelineId>() {
        Ok(_) => or_as_given(cluster.api().branch(tenant, branch).map(|found| found.name), branch),
        Err(_) => Ok(branch.to_string()),
    }
}

fn or_as_given(name: Result<String>, given: &str) -> Result<String> {
    match name {
        Err(Error::Api { code: ApiCode::NotFound, .. }) => Ok(given.to_string()),
        found => found,
    }
}
