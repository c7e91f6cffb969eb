//! An Ironpage cluster for measuring, steered through the command line as a user would.

use crate::Options;
use crate::stock::{Server, run};
use anyhow::Context;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

pub struct Cluster {
    ironpage: PathBuf,
    dir: PathBuf,
    pub port: u16,
}

impl Cluster {
    /// `ironpage up --detach`.
    pub fn up(options: &Options) -> anyhow::Result<Cluster> {
        let ironpage = options.bin_dir.join("ironpage");
        let cluster = Cluster { ironpage, dir: options.dir.join("ironpage"), port: options.port_base };
        cluster.ironpage(&["up", "--detach", "--port-base", &options.port_base.to_string()])?;
        Ok(cluster)
    }

    pub fn ironpage(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(Command::new(&self.ironpage).arg("--dir").arg(&self.dir).args(arguments))
    }

    pub fn server(&self) -> Server {
        Server { port: self.port }
    }

    /// `listen` of the first process of this kind.
    pub fn address(&self, kind: &str) -> anyhow::Result<String> {
        let status: Value = serde_json::from_str(&self.ironpage(&["status", "--json"])?).context("parsing the status")?;
        let processes = status["processes"].as_array().context("status has no processes")?;
        let process = processes.iter().find(|process| process["kind"] == kind);
        let listen = process.and_then(|process| process["listen"][0].as_str());
        Ok(listen.with_context(|| format!("status shows no {kind}"))?.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.ironpage(&["destroy"]) {
            eprintln!("ironpage-bench: cleaning up: {error:#}");
        }
    }
}
