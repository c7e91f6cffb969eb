//! An Ironpage cluster for measuring, steered through the command line as a user would.

use crate::Options;
use crate::command::{clean_up, run};
use crate::stock::Server;
use anyhow::Context;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

pub struct Cluster {
    ironpage: PathBuf,
    dir: PathBuf,
    pub port: u16,
    /// Whose branches are meant.
    tenant: &'static str,
}

impl Cluster {
    /// `ironpage up --detach`.
    pub fn up(options: &Options) -> anyhow::Result<Cluster> {
        let ironpage = options.bin_dir.join("ironpage");
        let cluster = Cluster { ironpage, dir: options.dir.join("ironpage"), port: options.port_base, tenant: "main" };
        cluster.ironpage(&["up", "--detach", "--port-base", &options.port_base.to_string()])?;
        Ok(cluster)
    }

    pub fn ironpage(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ironpage);
        command.arg("--dir").arg(&self.dir).args(["--tenant", self.tenant]).args(arguments);
        command
    }

    pub fn server(&self) -> Server {
        Server { port: self.port, database: "postgres" }
    }

    /// The same cluster: from here on the branches of that tenant are meant.
    pub fn with_tenant(mut self, tenant: &'static str) -> Cluster {
        self.tenant = tenant;
        self
    }

    /// The Postgres that serves a branch.
    pub fn server_of(&self, branch: &str) -> anyhow::Result<Server> {
        let text = self.ironpage(&["connstr", branch])?;
        let port = text.trim().rsplit_once(':').and_then(|(_, end)| end.split('/').next()?.parse().ok());
        Ok(Server { port: port.with_context(|| format!("no port in '{}'", text.trim()))?, database: "postgres" })
    }

    /// Address of the first process of this kind: its frames.
    pub fn address(&self, kind: &str) -> anyhow::Result<String> {
        let status: Value = serde_json::from_str(&self.ironpage(&["status", "--json"])?).context("parsing the status")?;
        let processes = status["processes"].as_array().context("status has no processes")?;
        let process = processes.iter().find(|process| process["kind"] == kind);
        let listen = process.and_then(|process| process["listen"][0].as_str());
        Ok(listen.with_context(|| format!("status shows no {kind}"))?.to_string())
    }

    /// Address of the pageserver's HTTP API: the sixth of a cluster's ports.
    pub fn api_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 5)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = clean_up(&mut self.command(&["destroy"])) {
            eprintln!("ironpage-bench: cleaning up: {error:#}");
        }
    }
}
