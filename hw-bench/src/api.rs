//! A small client of the pageserver's HTTP API: one request a connection, as the command line does it.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(120);

pub struct Api {
    branches: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
pub struct Branch {
    pub id: String,
    pub last_record_lsn: Option<String>,
}

#[derive(Deserialize)]
struct Created {
    branch: Branch,
}

#[derive(Deserialize)]
pub struct Tenant {
    pub id: String,
    pub branches: usize,
}

impl Api {
    /// Of one tenant's branches.
    pub fn new(address: &str, tenant: &str) -> Api {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            .proxy(None)
            .max_idle_connections(0)
            .build();
        Api { branches: format!("http://{address}/v1/tenants/{tenant}/branches"), agent: config.into() }
    }

    pub fn tenant(&self) -> anyhow::Result<Tenant> {
        self.ask("GET", self.branches.trim_end_matches("/branches"), None)
    }

    pub fn branch(&self, name: &str) -> anyhow::Result<Branch> {
        self.ask("GET", &format!("{}/{name}", self.branches), None)
    }

    /// A branch at the present head of `from`, durable when this returns.
    pub fn create(&self, name: &str, from: &str) -> anyhow::Result<Branch> {
        let body = json!({ "name": name, "from": from });
        self.ask("POST", &self.branches, Some(body)).map(|Created { branch }| branch)
    }

    pub fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.send("DELETE", &format!("{}/{name}", self.branches), None).map(drop)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, url: &str, body: Option<Value>) -> anyhow::Result<T> {
        let text = self.send(method, url, body)?;
        serde_json::from_str(&text).with_context(|| format!("the answer to {method} {url}: {text}"))
    }

    fn send(&self, method: &str, url: &str, body: Option<Value>) -> anyhow::Result<String> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        let mut response = self.agent.run(request.body(body)?).with_context(|| format!("{method} {url}"))?;
        let (status, text) = (response.status(), response.body_mut().read_to_string()?);
        if !status.is_success() {
            bail!("{method} {url} was answered {status}: {text}");
        }
        Ok(text)
    }
}
