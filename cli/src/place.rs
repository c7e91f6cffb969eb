//! Where the names of a tenant and of a branch lead.

use crate::api::Branch;
use crate::client::Identity;
use crate::cluster::{Cluster, MAIN};
use crate::error::Result;
use ironpage_layout::TenantId;

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
