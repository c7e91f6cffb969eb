//! Making a branch, with few and with many there, idle and while the parent is written to.

use super::data::{DATABASE, Data};
use super::plan::Budget;
use crate::api::Api;
use crate::device::DurableWrites;
use crate::latency::{Summary, summarise_alone};
use crate::stock::Server;
use crate::{Options, interrupt, progress};
use anyhow::Context;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Clients of the load.
pub const LOAD_CLIENTS: u32 = 4;
/// How long the load runs before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Fewer samples say nothing: they are taken even if it takes longer than the run, but not beyond the whole time.
const SAMPLES_MIN: usize = 10;

#[derive(Serialize)]
pub struct CreateRow {
    /// How many the tenant had.
    pub branches: usize,
    /// Transactions a second of the load on the parent; none if it was idle.
    pub load_tps: Option<f64>,
    pub create: Summary,
    pub delete: Summary,
    /// The raw limit, between them: an append of 4 KiB with fdatasync.
    pub durable_write: Summary,
}

/// One branch after the other at the parent's head, each deleted again, with a durable write after each.
struct Samples<'a> {
    api: &'a Api,
    disk: DurableWrites,
    time: Duration,
    budget: Budget,
}

/// Idle, then under load.
pub fn rows(
    options: &Options,
    api: &Api,
    parent: Server,
    data: Data,
    seconds: u64,
    budget: Budget,
) -> anyhow::Result<Vec<CreateRow>> {
    let branches = api.tenant()?.branches;
    let disk = DurableWrites::create(&options.dir.join("durable.dat"))?;
    let samples = Samples { api, disk, time: Duration::from_secs(seconds), budget };
    progress(&format!("creates with {branches} branches, idle"));
    let idle = samples.take(branches)?;
    progress(&format!("creates with {branches} branches, {LOAD_CLIENTS} clients writing to the parent"));
    let (loaded, tps) = under_load(options, parent, data, seconds, || samples.take(branches))?;
    Ok(vec![idle, CreateRow { load_tps: Some(tps), ..loaded }])
}

impl Samples<'_> {
    fn take(&self, branches: usize) -> anyhow::Result<CreateRow> {
        let begun = Instant::now();
        let [mut creates, mut deletes, mut writes] = [const { Vec::new() }; 3];
        while begun.elapsed() < self.time || (creates.len() < SAMPLES_MIN && !self.budget.is_over()) {
            interrupt::check()?;
            let asked = Instant::now();
            self.api.create("sample", "main")?;
            creates.push(asked.elapsed());
            let asked = Instant::now();
            self.api.delete("sample")?;
            deletes.push(asked.elapsed());
            writes.push(self.disk.write()?);
        }
        let [create, delete, durable_write] = [creates, deletes, writes].map(summarise_alone);
        Ok(CreateRow { branches, load_tps: None, create, delete, durable_write })
    }
}

/// Makes branches until there are `wanted`, or the time is over.
pub fn fill(api: &Api, wanted: usize, budget: Budget) -> anyhow::Result<()> {
    let have = api.tenant()?.branches;
    progress(&format!("up to {wanted} branches"));
    for number in have..wanted {
        interrupt::check()?;
        if budget.is_over() {
            progress(&format!("only {number}: the time is over"));
            break;
        }
        api.create(&format!("fill-{number}"), "main")?;
    }
    Ok(())
}

/// Runs `work` while clients update random rows; their transactions a second too.
fn under_load<T>(
    options: &Options,
    server: Server,
    data: Data,
    seconds: u64,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, f64)> {
    let script = options.dir.join("update.sql");
    let text = format!("\\set id random(1, {})\nupdate numbers set n = n + 1 where id = :id;\n", data.rows);
    std::fs::write(&script, text).with_context(|| format!("writing {}", script.display()))?;
    let script = script.to_str().context("--dir is no text")?;
    let load = Options { seconds: seconds + WARM_UP.as_secs() + 1, ..options.clone() };
    let server = server.of(DATABASE);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| server.pgbench(&load, LOAD_CLIENTS, &["-f", script]));
        std::thread::sleep(WARM_UP);
        let done = work();
        let tps = load.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))?;
        Ok((done?, tps?))
    })
}
