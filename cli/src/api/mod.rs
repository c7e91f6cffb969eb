//! The pageserver's HTTP API: tenants and branches, the metadata of a cluster.
//!
//! Blocking, one request a connection, every wait has an end. What the pageserver refuses comes back as
//! [`Error::Api`] with its code; what is no answer at all names the pageserver, the request and the way out.

pub mod text;
mod types;

pub use types::{
    ApiCode, At, Branch, BranchState, Created, Kind, LsnOfTime, Member, NewBranch, Reset, Restored, Tenant, TimeOfLsn,
};

use crate::client::Peer;
use crate::error::{Error, Result};
use ironpage_layout::{Lsn, TenantId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use types::{Branches, Failure, Tenants};

/// How long a connect may take: it is this machine.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take. A create waits for WAL to be ingested and flushed, a delete for files to go.
const ANSWER: Duration = Duration::from_secs(120);
/// Longest answer that is read: some 100,000 branches.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How much of an answer that is not ours an error shows.
const SHOWN_MAX: usize = 200;

/// A client of one pageserver.
pub struct Api {
    peer: Peer,
    agent: ureq::Agent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// What else goes when a branch or a tenant does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Nothing: what has children, or branches, is refused.
    Alone,
    /// Its children, and theirs; its branches.
    Recursive,
}

impl Reach {
    pub fn of(recursive: bool) -> Reach {
        if recursive { Reach::Recursive } else { Reach::Alone }
    }

    fn query(self) -> &'static str {
        match self {
            Reach::Alone => "",
            Reach::Recursive => "?recursive=true",
        }
    }
}

impl Api {
    /// A client of the pageserver whose HTTP listens at the peer's address. Nothing is sent yet.
    pub fn new(peer: Peer) -> Api {
        Api::with_patience(peer, ANSWER)
    }

    pub fn with_patience(peer: Peer, answer: Duration) -> Api {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT.min(answer)))
            .timeout_global(Some(answer))
            // The body of a refusal says why.
            .http_status_as_error(false)
            // Whatever proxy the environment names is not for this machine's own ports.
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections(0)
            .build();
        Api { peer, agent: config.into() }
    }

    /// Whether it answers.
    pub fn ping(&self) -> Result<()> {
        self.tell(Method::Get, "/v1/status", None)
    }

    pub fn tenants(&self) -> Result<Vec<Tenant>> {
        self.ask(Method::Get, "/v1/tenants", None).map(|Tenants { tenants }| tenants)
    }

    /// By name, or by its id as 32 hexadecimal digits.
    pub fn tenant(&self, tenant: &str) -> Result<Tenant> {
        self.ask(Method::Get, &tenant_path(tenant), None)
    }

    /// `None` if there is none of that name.
    pub fn find_tenant(&self, tenant: &str) -> Result<Option<Tenant>> {
        found(self.tenant(tenant))
    }

    pub fn create_tenant(&self, name: &str, id: Option<TenantId>) -> Result<Tenant> {
        let mut body = json!({ "name": name });
        if let Some(id) = id {
            body["id"] = Value::String(id.to_string());
        }
        self.ask(Method::Post, "/v1/tenants", Some(body))
    }

    pub fn delete_tenant(&self, tenant: &str, reach: Reach) -> Result<()> {
        self.tell(Method::Delete, &format!("{}{}", tenant_path(tenant), reach.query()), None)
    }

    /// Those that are there: not what is being made or removed.
    pub fn branches(&self, tenant: &str) -> Result<Vec<Branch>> {
        let Branches { mut branches } = self.ask(Method::Get, &format!("{}/branches", tenant_path(tenant)), None)?;
        branches.retain(|branch| branch.state == BranchState::Active);
        Ok(branches)
    }

    /// By name, or by its id as 32 hexadecimal digits.
    pub fn branch(&self, tenant: &str, branch: &str) -> Result<Branch> {
        self.ask(Method::Get, &branch_path(tenant, branch), None)
    }

    /// `None` if there is no branch of that name, or no such tenant.
    pub fn find_branch(&self, tenant: &str, branch: &str) -> Result<Option<Branch>> {
        found(self.branch(tenant, branch))
    }

    /// The branch is durable when this returns.
    pub fn create_branch(&self, tenant: &str, new: &NewBranch) -> Result<Created> {
        self.ask(Method::Post, &format!("{}/branches", tenant_path(tenant)), Some(to_json(new)?))
    }

    pub fn rename_branch(&self, tenant: &str, branch: &str, name: &str) -> Result<Branch> {
        self.ask(Method::Patch, &branch_path(tenant, branch), Some(json!({ "name": name })))
    }

    /// The branch goes away by itself so many seconds from now; never with `None`.
    pub fn set_ttl(&self, tenant: &str, branch: &str, seconds: Option<u64>) -> Result<Branch> {
        self.ask(Method::Patch, &branch_path(tenant, branch), Some(json!({ "ttl_seconds": seconds })))
    }

    pub fn delete_branch(&self, tenant: &str, branch: &str, reach: Reach) -> Result<()> {
        self.tell(Method::Delete, &format!("{}{}", branch_path(tenant, branch), reach.query()), None)
    }

    /// A new timeline from the parent's present head takes the branch's name.
    pub fn reset_branch(&self, tenant: &str, branch: &str, reach: Reach) -> Result<Branch> {
        let body = json!({ "recursive": reach == Reach::Recursive });
        let reset: Reset = self.ask(Method::Post, &format!("{}/reset", branch_path(tenant, branch)), Some(body))?;
        Ok(reset.branch)
    }

    /// A new timeline from the branch at `at` takes its name; the old one stays as a backup.
    pub fn restore_branch(&self, tenant: &str, branch: &str, at: At) -> Result<Restored> {
        self.ask(Method::Post, &format!("{}/restore", branch_path(tenant, branch)), Some(to_json(&at)?))
    }

    /// Remembers durably that these safekeepers have the branch's timeline: they are never made to begin it again.
    pub fn add_safekeepers(&self, tenant: &str, branch: &str, members: &[Member]) -> Result<()> {
        self.tell(Method::Put, &format!("{}/safekeepers", branch_path(tenant, branch)), Some(json!({ "members": members })))
    }

    /// Just before the first commit after that time, in microseconds since 1970.
    pub fn lsn_of_time(&self, tenant: &str, branch: &str, timestamp_us: i64) -> Result<LsnOfTime> {
        self.ask(Method::Get, &format!("{}/lsn?timestamp_us={timestamp_us}", branch_path(tenant, branch)), None)
    }

    /// The time of the last commit at or before `lsn`.
    pub fn time_of_lsn(&self, tenant: &str, branch: &str, lsn: Lsn) -> Result<TimeOfLsn> {
        self.ask(Method::Get, &format!("{}/timestamp?lsn={lsn}", branch_path(tenant, branch)), None)
    }

    fn tell(&self, method: Method, path: &str, body: Option<Value>) -> Result<()> {
        self.send(method, path, body).map(drop)
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T> {
        let text = self.send(method, path, body)?;
        serde_json::from_str(&text).map_err(|error| self.strange(method, path, &format!("{error} in {}", shown(&text))))
    }

    /// The body of a success.
    fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<String> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let url = format!("http://{}{path}", self.peer.address);
        let request = ureq::http::Request::builder().method(method.word()).uri(url).header("content-type", "application/json");
        let request = request.body(body).map_err(|error| self.no_answer(method, path, &error.into()))?;
        let mut response = self.agent.run(request).map_err(|error| self.no_answer(method, path, &error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let text = text.map_err(|error| self.no_answer(method, path, &error))?;
        if status.is_success() {
            return Ok(text);
        }
        match serde_json::from_str::<Failure>(&text) {
            Ok(Failure { error }) => Err(Error::Api { peer: self.peer.name.clone(), code: error.code, message: error.message }),
            Err(_) => Err(self.strange(method, path, &format!("status {} with {}", status.as_u16(), shown(&text)))),
        }
    }

    fn no_answer(&self, method: Method, path: &str, error: &ureq::Error) -> Error {
        Error::ApiUnreachable {
            peer: self.peer.name.clone(),
            address: self.peer.address,
            request: format!("{} {path}", method.word()),
            why: match error {
                ureq::Error::Timeout(_) => "no answer in time".into(),
                ureq::Error::Io(source) => source.to_string(),
                other => other.to_string(),
            },
        }
    }

    fn strange(&self, method: Method, path: &str, why: &str) -> Error {
        let (peer, address) = (self.peer.name.clone(), self.peer.address);
        Error::ApiStrange { peer, address, request: format!("{} {path}", method.word()), why: why.into() }
    }
}

fn tenant_path(tenant: &str) -> String {
    format!("/v1/tenants/{}", escaped(tenant))
}

fn branch_path(tenant: &str, branch: &str) -> String {
    format!("{}/branches/{}", tenant_path(tenant), escaped(branch))
}

/// A name as part of a path. Names that exist need no escapes; others must reach the pageserver as what they are.
fn escaped(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => path.push(char::from(byte)),
            _ => path += &format!("%{byte:02X}"),
        }
    }
    path
}

fn to_json<T: serde::Serialize>(body: &T) -> Result<Value> {
    serde_json::to_value(body).map_err(|error| Error::Refused(format!("a request cannot be written as JSON: {error}")))
}

fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(Error::Api { code: ApiCode::NotFound, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// The beginning of an answer, on one line.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if start.is_empty() { "nothing".into() } else { format!("'{start}'") }
}

#[cfg(test)]
mod tests;
