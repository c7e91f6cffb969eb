//! Tenants: owners of branches that share nothing. Each begins with a branch main from the template.

use crate::api::{Reach, Tenant};
use crate::cluster::{Cluster, MAIN, branch_in_words, check_name};
use crate::endpoint;
use crate::error::{Error, Result};
use crate::follow;
use crate::output::{self, Format};
use crate::place::tenant_name;
use crate::programs::Programs;
use crate::progress;
use crate::template::Template;
use crate::user::Owner;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Verb {
    /// Make a tenant, with an empty database cluster on its branch main and a system identifier of its own
    Create {
        name: String,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// All tenants
    List {
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Delete a tenant
    Delete {
        name: String,
        /// With all its branches
        #[arg(long)]
        recursive: bool,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
}

pub fn run(dir: &std::path::Path, verb: &Verb) -> Result<()> {
    match verb {
        Verb::Create { name, json } => {
            let (cluster, _lock) = Cluster::locked(dir)?;
            create(&cluster, name, Format::of(*json))
        }
        Verb::List { json } => list(&Cluster::open(dir)?, Format::of(*json)),
        Verb::Delete { name, recursive, json } => {
            let (mut cluster, _lock) = Cluster::locked(dir)?;
            let name = &tenant_name(&cluster, name)?;
            delete(&mut cluster, name, Reach::of(*recursive), Format::of(*json))
        }
    }
}

fn create(cluster: &Cluster, name: &str, format: Format) -> Result<()> {
    check_name(name)?;
    let api = cluster.api();
    let tenant = match api.find_tenant(name)? {
        None => api.create_tenant(name, None)?,
        // An earlier create may have been cut short.
        Some(tenant) if !is_complete(&tenant) => tenant,
        Some(_) => return Err(Error::Refused(format!("there is a tenant '{name}' already; `ironpage tenant list` shows all"))),
    };
    let template = Template::of(cluster, &Programs::find()?, &Owner::of_postgres()?)?;
    complete(cluster, &tenant, template.with_new_system_id()?)?;
    let (tenant, main) = (api.tenant(name)?, api.branch(name, MAIN)?);
    output::answer(format, &tenant, || {
        format!(
            "tenant '{name}' with branch main at {}, system identifier {}\n\
             `ironpage --tenant {name} endpoint start NAME` starts a Postgres on it",
            main.start_lsn, main.system_id
        )
    })
}

/// Makes branch main of a tenant that has no branch. The first start of an endpoint brings it to the safekeepers.
pub fn complete(cluster: &Cluster, tenant: &Tenant, template: Template) -> Result<()> {
    progress::line(&format!("{}: importing the template", branch_in_words(&tenant.name, MAIN)));
    template.import_main(&cluster.pageserver(), tenant.id)
}

/// Whether the tenant has what can be worked with; one whose creation was cut short has no branch.
pub fn is_complete(tenant: &Tenant) -> bool {
    tenant.branches > 0
}

fn list(cluster: &Cluster, format: Format) -> Result<()> {
    let tenants = cluster.api().tenants()?;
    output::answer(format, &tenants, || {
        let mut text = format!("{:<20} {:<32} {:>8} STATE", "NAME", "ID", "BRANCHES");
        for tenant in &tenants {
            text += &format!("\n{:<20} {} {:>8} {}", tenant.name, tenant.id, tenant.branches, tenant.state);
        }
        text
    })
}

fn delete(cluster: &mut Cluster, name: &str, reach: Reach, format: Format) -> Result<()> {
    if name == MAIN {
        return Err(Error::Refused("tenant main is the cluster's own: `ironpage destroy` ends both".into()));
    }
    let running = cluster.settings.endpoints.iter().find(|endpoint| endpoint.tenant == name && endpoint::runs(cluster, endpoint));
    if let Some(endpoint) = running {
        return Err(Error::EndpointRuns { endpoint: endpoint.name.clone(), on: branch_in_words(name, &endpoint.branch) });
    }
    follow::check_stopped(cluster, name)?;
    let api = cluster.api();
    let branches = api.branches(name)?;
    if reach == Reach::Alone && !branches.is_empty() {
        let names: Vec<_> = branches.iter().map(|branch| format!("'{}'", branch.name)).collect();
        return Err(Error::Refused(format!(
            "tenant '{name}' has branches: {}. `--recursive` deletes them too, with all that is in them",
            names.join(", ")
        )));
    }
    api.delete_tenant(name, reach)?;
    follow::forget(cluster, name)?;
    cluster.forget_endpoints(|endpoint| endpoint.tenant == name)?;
    output::answer(format, &serde_json::json!({ "deleted": name }), || format!("tenant '{name}' is gone, with all its branches"))
}
