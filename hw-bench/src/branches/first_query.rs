//! The first query on a new branch: make it, start a Postgres on it, ask.

use super::data::{self, DATABASE, Data};
use super::plan::Budget;
use crate::cluster::Cluster;
use crate::latency::{Random, Summary, summarise_alone};
use crate::{Options, progress};
use serde::Serialize;
use std::time::{Duration, Instant};

const SAMPLES_MAX: usize = 10;

/// Where the time goes. Each step is a command as a user gives it, the process it takes included.
#[derive(Serialize)]
pub struct FirstQuery {
    pub create: Summary,
    /// `ironpage endpoint start` of a new endpoint: safekeepers begin the timeline, an election, a base backup, a Postgres.
    pub start: Summary,
    /// psql: connect, and one row through the index.
    pub query: Summary,
    pub total: Summary,
}

pub fn measure(options: &Options, cluster: &Cluster, data: Data, time: Duration, budget: Budget) -> anyhow::Result<FirstQuery> {
    progress("first queries on new branches");
    let (begun, mut random) = (Instant::now(), Random::new(3));
    let [mut create, mut start, mut query, mut total] = [const { Vec::new() }; 4];
    while !budget.is_over() && total.len() < SAMPLES_MAX && (total.is_empty() || begun.elapsed() < time) {
        let name = format!("first-{}", total.len());
        let asked = Instant::now();
        cluster.ironpage(&["branch", "create", &name])?;
        create.push(asked.elapsed());
        let starts = Instant::now();
        cluster.ironpage(&["endpoint", "start", &name, "--branch", &name])?;
        start.push(starts.elapsed());
        // Outside the stopwatch: a user knows the port already.
        let known = asked.elapsed();
        let server = cluster.server_of(&name)?.of(DATABASE);
        let queries = Instant::now();
        server.sql(options, &data::one_row(data, &mut random))?;
        query.push(queries.elapsed());
        total.push(known + queries.elapsed());
        cluster.ironpage(&["endpoint", "stop", &name])?;
        cluster.ironpage(&["branch", "delete", &name])?;
    }
    Ok(FirstQuery {
        create: summarise_alone(create),
        start: summarise_alone(start),
        query: summarise_alone(query),
        total: summarise_alone(total),
    })
}
