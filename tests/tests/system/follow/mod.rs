//! Follow mode: a stock server elsewhere, its copy here, and what goes wrong between them.

mod branches;
mod failures;
mod refusals;

use ironpage_tests::stock::{Stock, must};
use ironpage_tests::{Cluster, eventually};
use serde::Deserialize;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// One follower in `status --json`.
#[derive(Deserialize, Clone, Debug)]
struct Follower {
    tenant: String,
    pid: Option<i32>,
    state: String,
    message: String,
    slot: String,
    committed_lsn: String,
    lag_bytes: u64,
}

#[derive(Deserialize)]
struct Status {
    followers: Vec<Follower>,
}

/// A stock server that can be followed, with pgbench's tables.
fn source(name: &str, initdb: &[&str]) -> Stock {
    let dir = Stock::scratch(name);
    let stock = Stock::init(&dir.join("data"), initdb);
    let mut settings = std::fs::OpenOptions::new().append(true).open(stock.dir.join("postgresql.conf")).unwrap();
    settings.write_all(b"max_prepared_transactions = 20\nfsync = off\nautovacuum_naptime = 1s\nmax_wal_size = 64MB\n").unwrap();
    stock.start();
    must(stock.client("pgbench").args(["-i", "-q", "-s", "2", "postgres"]));
    stock
}

/// pgbench on the source until dropped.
struct Load(Child);

impl Load {
    fn on(stock: &Stock, clients: &str) -> Load {
        let mut command = stock.client("pgbench");
        command.args(["-n", "-c", clients, "-T", "600", "postgres"]).stdout(Stdio::null()).stderr(Stdio::null());
        Load(command.spawn().expect("starting pgbench"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn follower(cluster: &Cluster, tenant: &str) -> Follower {
    let text = cluster.must(&["status", "--json"]);
    let status: Status = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let found = status.followers.into_iter().find(|follower| follower.tenant == tenant);
    found.unwrap_or_else(|| panic!("no follower of {tenant} in {text}"))
}

fn number(lsn: &str) -> u64 {
    let half = |text: &str| u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("'{lsn}' is no LSN"));
    lsn.split_once('/').map_or(0, |(high, low)| half(high) << 32 | half(low))
}

/// Waits until all that the source has written by now is committed here; where that ends.
fn wait_level(cluster: &Cluster, stock: &Stock, tenant: &str) -> String {
    // A record behind all others, flushed.
    stock.sql("select pg_switch_wal()");
    stock.sql("create table if not exists flushed(at timestamptz)");
    stock.sql("insert into flushed values (now())");
    let end = stock.sql("select pg_current_wal_flush_lsn()");
    eventually(&format!("the follower has come to {end}"), LONG, || {
        let follower = follower(cluster, tenant);
        assert_ne!(follower.state, "refused", "{}", follower.message);
        (number(&follower.committed_lsn) >= number(&end)).then_some(())
    });
    end
}

fn wait_state(cluster: &Cluster, tenant: &str, state: &str) -> Follower {
    eventually(&format!("the follower is {state}"), LONG, || {
        let follower = follower(cluster, tenant);
        (follower.state == state).then_some(follower)
    })
}

/// Makes a branch of the followed tenant and starts an endpoint of the same name on it.
fn branch(cluster: &Cluster, name: &str, at: Option<&str>) {
    let mut arguments = vec!["--tenant", "prod", "branch", "create", name, "--from", "main"];
    arguments.extend(at.iter().flat_map(|at| ["--at", at]));
    cluster.must(&arguments);
    cluster.must(&["--tenant", "prod", "endpoint", "start", name, "--branch", name]);
}
