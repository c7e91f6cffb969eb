//! `branch rename`: its endpoints go with it, running or not.

use crate::cluster::{Cluster, branch_in_words};
use crate::error::Result;
use crate::output::{self, Format};

pub fn rename(cluster: &mut Cluster, tenant: &str, old: &str, new: &str, format: Format) -> Result<()> {
    let api = cluster.api();
    let branch = match api.find_branch(tenant, old)? {
        Some(_) => api.rename_branch(tenant, old, new)?,
        // An earlier rename may have been cut short before the endpoints knew.
        None => match api.find_branch(tenant, new)? {
            Some(branch) if cluster.endpoints_of(tenant, old).next().is_some() => branch,
            _ => api.branch(tenant, old)?,
        },
    };
    cluster.rename_branch(tenant, old, new)?;
    output::answer(format, &branch, || format!("{} is now '{new}'", branch_in_words(tenant, old)))
}
