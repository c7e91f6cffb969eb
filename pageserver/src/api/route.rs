//! Which path is what.

use super::error::ApiError;
use ironpage_daemon::http::Method;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    Status,
    OpenApi,
    Tenants,
    CreateTenant,
    Tenant,
    DeleteTenant,
    Branches,
    CreateBranch,
    Branch,
    PatchBranch,
    DeleteBranch,
    ResetBranch,
    RestoreBranch,
    AddSafekeepers,
    LsnOfTime,
    TimeOfLsn,
}

/// A path with its method; parts in braces are parameters.
#[derive(Clone, Debug)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    endpoint: Endpoint,
}

const fn route(method: Method, path: &'static str, endpoint: Endpoint) -> Route {
    Route { method, path, endpoint }
}

/// All of the API.
pub const ROUTES: &[Route] = &[
    route(Method::GET, "/openapi.json", Endpoint::OpenApi),
    route(Method::GET, "/v1/status", Endpoint::Status),
    route(Method::GET, "/v1/tenants", Endpoint::Tenants),
    route(Method::POST, "/v1/tenants", Endpoint::CreateTenant),
    route(Method::GET, "/v1/tenants/{tenant}", Endpoint::Tenant),
    route(Method::DELETE, "/v1/tenants/{tenant}", Endpoint::DeleteTenant),
    route(Method::GET, "/v1/tenants/{tenant}/branches", Endpoint::Branches),
    route(Method::POST, "/v1/tenants/{tenant}/branches", Endpoint::CreateBranch),
    route(Method::GET, "/v1/tenants/{tenant}/branches/{branch}", Endpoint::Branch),
    route(Method::PATCH, "/v1/tenants/{tenant}/branches/{branch}", Endpoint::PatchBranch),
    route(Method::DELETE, "/v1/tenants/{tenant}/branches/{branch}", Endpoint::DeleteBranch),
    route(Method::POST, "/v1/tenants/{tenant}/branches/{branch}/reset", Endpoint::ResetBranch),
    route(Method::POST, "/v1/tenants/{tenant}/branches/{branch}/restore", Endpoint::RestoreBranch),
    route(Method::PUT, "/v1/tenants/{tenant}/branches/{branch}/safekeepers", Endpoint::AddSafekeepers),
    route(Method::GET, "/v1/tenants/{tenant}/branches/{branch}/lsn", Endpoint::LsnOfTime),
    route(Method::GET, "/v1/tenants/{tenant}/branches/{branch}/timestamp", Endpoint::TimeOfLsn),
];

#[derive(Debug)]
pub struct Found {
    pub endpoint: Endpoint,
    /// What stands in place of the parameters, in order.
    pub names: Vec<String>,
}

/// Finds the route of a request whose path has these parts.
pub fn find(method: &Method, path: &[String]) -> Result<Found, ApiError> {
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(names) = parameters(route.path, path) else { continue };
        if route.method == *method {
            return Ok(Found { endpoint: route.endpoint, names });
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() {
        let shown: String = path.join("/").chars().take(200).collect();
        return Err(ApiError::NoRoute(format!("/{}", shown.escape_debug())));
    }
    Err(ApiError::Method { method: method.to_string(), allow: allowed.join(", ") })
}

/// The parameters of `pattern` as `path` has them; `None` if it is not of that form.
fn parameters(pattern: &str, path: &[String]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut parts = path.iter();
    for wanted in pattern.split('/').skip(1) {
        let part = parts.next()?;
        if wanted.starts_with('{') {
            names.push(part.clone());
        } else if wanted != part {
            return None;
        }
    }
    parts.next().is_none().then_some(names)
}
