//! Page reads on branches of branches: each level has written rows of its own, the rest lies in those below.

use super::data::{self, DATABASE, Data};
use super::plan::Budget;
use crate::api::Api;
use crate::cluster::Cluster;
use crate::getpage::{self, Target};
use crate::latency::{Random, Summary};
use crate::stock::Server;
use crate::{Options, device, progress};
use anyhow::Context;
use ironpage_layout::RelTag;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// The parent itself, a branch of it, and one at the end of ten.
const DEPTHS: [usize; 3] = [0, 1, 10];
const CLIENTS: [usize; 2] = [1, 64];
/// Rows that each level changes.
const UPDATES: u64 = 500;

#[derive(Serialize)]
pub struct GetpageRow {
    pub depth: usize,
    pub clients: usize,
    pub getpage: Summary,
    pub raw_device: Summary,
    pub ratio: f64,
}

/// Makes the chain, then reads at several of its levels, with reads of the raw device beside.
pub fn rows(
    options: &Options,
    cluster: &Cluster,
    api: &Api,
    data: Data,
    seconds: u64,
    budget: Budget,
) -> anyhow::Result<Vec<GetpageRow>> {
    let names = chain(options, cluster, data, budget)?;
    let (rel, blocks) = table(options, cluster.server_of("main")?.of(DATABASE))?;
    let address = cluster.address("pageserver")?;
    let tenant = api.tenant()?.id.parse()?;
    let (raw, time) = (raw_file(options), Duration::from_secs(seconds));
    let mut rows = Vec::new();
    for clients in CLIENTS {
        progress(&format!("the raw device with {clients} clients"));
        let raw_device = device::random_reads(&raw, clients, time)?;
        for depth in DEPTHS {
            let Some(name) = names.get(depth) else { continue };
            if budget.is_over() {
                break;
            }
            progress(&format!("getpage at depth {depth} with {clients} clients"));
            let branch = api.branch(name)?;
            let lsn = branch.last_record_lsn.with_context(|| format!("branch '{name}' is not open"))?.parse()?;
            let target = Target { tenant, timeline: branch.id.parse()?, lsn, rel, blocks };
            let getpage = getpage::random_reads(&address, target, clients, time)?;
            let ratio = getpage.per_second / raw_device.per_second;
            rows.push(GetpageRow { depth, clients, getpage, raw_device, ratio });
        }
    }
    Ok(rows)
}

pub fn raw_file(options: &Options) -> std::path::PathBuf {
    Path::new(&options.dir).join("raw.dat")
}

/// Names of the levels, the parent first; fewer if the time is over. Every level ends with commits of its own.
fn chain(options: &Options, cluster: &Cluster, data: Data, budget: Budget) -> anyhow::Result<Vec<String>> {
    let deepest = DEPTHS.into_iter().max().unwrap_or(0);
    progress(&format!("{deepest} branches of branches, {UPDATES} updates on each"));
    let mut names = vec!["main".to_string()];
    let mut random = Random::new(17);
    for depth in 1..=deepest {
        if budget.is_over() {
            progress(&format!("only {}: the time is over", depth - 1));
            break;
        }
        let (name, from) = (format!("depth-{depth}"), names.last().context("no parent")?.clone());
        cluster.ironpage(&["branch", "create", &name, "--from", &from])?;
        cluster.ironpage(&["endpoint", "start", &name, "--branch", &name])?;
        cluster.server_of(&name)?.of(DATABASE).sql(options, &data::updates(data, UPDATES, &mut random))?;
        cluster.ironpage(&["endpoint", "stop", &name])?;
        names.push(name);
    }
    Ok(names)
}

fn table(options: &Options, server: Server) -> anyhow::Result<(RelTag, u32)> {
    let sql = "select c.relfilenode || ' ' || d.oid || ' ' || pg_relation_size(c.oid) / 8192 \
               from pg_class c, pg_database d where c.relname = 'numbers' and d.datname = current_database()";
    let row = server.sql(options, sql)?;
    let numbers: Vec<u32> = row.split(' ').map(|field| field.parse()).collect::<Result<_, _>>().context("relation numbers")?;
    let [relation, database, blocks] = numbers[..] else { anyhow::bail!("unexpected row '{row}'") };
    Ok((RelTag { tablespace: 1663, database, relation }, blocks))
}
