//! The HTTP API: tenants, branches, and the way from time to LSN. docs/openapi.json describes it.

mod branches;
mod error;
mod history;
mod input;
mod route;
mod tenants;
#[cfg(test)]
mod tests;
mod types;

pub use route::{ROUTES, Route};

use crate::branches::{Children, Deletion};
use crate::service::Service;
use error::ApiError;
use ironpage_daemon::http::{Handler, Request, Response};
use ironpage_daemon::warn;
use route::{Endpoint, Found};
use std::rc::Rc;

/// The description of the API, as it is served.
pub const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Answers the requests of the HTTP server.
pub fn handler(service: Service) -> Handler {
    Rc::new(move |request| {
        let service = service.clone();
        Box::pin(async move { answer(&service, request).await })
    })
}

async fn answer(service: &Service, request: Request) -> Response {
    let parsed = input::path(&request.path);
    let result = match parsed.and_then(|path| Ok((route::find(&request.method, &path)?, input::Query::parse(&request.query)?))) {
        Ok((Found { endpoint, names }, query)) => {
            let call = Call { service, names: &names, query: &query, body: &request.body };
            call.run(endpoint).await
        }
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| {
        if error.is_ours() {
            warn!("{} {}: {error}", request.method, request.path.escape_debug());
        }
        error.response()
    })
}

/// A request whose path is known.
struct Call<'a> {
    service: &'a Service,
    /// What stands in place of the path's parameters, in order.
    names: &'a [String],
    query: &'a input::Query,
    body: &'a [u8],
}

impl Call<'_> {
    async fn run(&self, endpoint: Endpoint) -> Result<Response, ApiError> {
        match endpoint {
            Endpoint::Status => self.status(),
            Endpoint::OpenApi => {
                self.query.none()?;
                Ok(Response { status: 200, body: OPENAPI.as_bytes().to_vec(), allow: None })
            }
            Endpoint::Tenants => self.tenants(),
            Endpoint::CreateTenant => self.create_tenant().await,
            Endpoint::Tenant => self.tenant(),
            Endpoint::DeleteTenant => self.delete_tenant().await,
            Endpoint::Branches => self.branches(),
            Endpoint::CreateBranch => self.create_branch().await,
            Endpoint::Branch => self.branch(),
            Endpoint::PatchBranch => self.patch_branch().await,
            Endpoint::DeleteBranch => self.delete_branch().await,
            Endpoint::ResetBranch => self.reset_branch().await,
            Endpoint::RestoreBranch => self.restore_branch().await,
            Endpoint::LsnOfTime => self.lsn_of_time().await,
            Endpoint::TimeOfLsn => self.time_of_lsn().await,
            Endpoint::AddSafekeepers => self.add_safekeepers().await,
        }
    }

    fn status(&self) -> Result<Response, ApiError> {
        self.query.none()?;
        let (branches, state) = (self.service.branches(), self.service.branches().state());
        let status = types::Status {
            node: self.service.node().0,
            version: env!("CARGO_PKG_VERSION"),
            tenants: state.tenants().count(),
            branches: state.branches().count(),
            metadata_failure: branches.failure().map(|failure| failure.to_string()),
            counters: self.service.status().counters.into_iter().collect(),
        };
        Ok(Response::json(200, &status))
    }

    /// The parameter of deletions: what happens to children.
    fn children(&self) -> Result<Children, ApiError> {
        self.query.only(&["recursive"])?;
        Ok(Children::of(self.query.flag("recursive")?))
    }

    /// The name at that place of the path. The routes have as many as their endpoints ask for.
    fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }
}

/// 204, or 202 if files are still to go.
fn deleted(deletion: Deletion) -> Response {
    let status = match deletion {
        Deletion::Done => 204,
        Deletion::GoesOn => 202,
    };
    Response { status, body: Vec::new(), allow: None }
}
