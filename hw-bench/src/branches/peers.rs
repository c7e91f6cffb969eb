//! What else copies a database: stock Postgres, which copies every byte, and cp.

use super::data::{self, DATABASE, Data};
use super::plan::Budget;
use crate::latency::{Random, Summary, summarise_alone};
use crate::stock::Stock;
use crate::{Options, command, progress};
use anyhow::Context;
use serde::Serialize;
use std::process::Command;
use std::time::{Duration, Instant};

const SAMPLES_MAX: usize = 20;

/// Nothing is in these if the time was over.
#[derive(Serialize)]
pub struct Peers {
    /// CREATE DATABASE ... TEMPLATE as it is by default: through WAL.
    pub create_database: Summary,
    /// The same with STRATEGY = FILE_COPY.
    pub create_database_file_copy: Summary,
    /// From CREATE DATABASE (by file copy) to the answer of the first query in it.
    pub first_query: Summary,
    /// cp of the data directory of a stopped server, and syncfs.
    pub copy: Summary,
}

/// Measured on stock Postgres, which is stopped then: its data directory is clean.
pub fn measure(options: &Options, stock: &Stock, data: Data, seconds: u64, budget: Budget) -> anyhow::Result<Peers> {
    let create = |strategy: &str| format!("create database copy template {DATABASE} strategy {strategy}");
    let time = Duration::from_secs(seconds);
    let mut random = Random::new(5);

    progress("stock Postgres: CREATE DATABASE ... TEMPLATE");
    let through_wal = samples(time, budget, || {
        let begun = Instant::now();
        stock.server.sql(options, &create("wal_log"))?;
        let took = begun.elapsed();
        drop_copy(options, stock)?;
        Ok(took)
    })?;
    let mut first = Vec::new();
    let file_copy = samples(time, budget, || {
        let begun = Instant::now();
        stock.server.sql(options, &create("file_copy"))?;
        let took = begun.elapsed();
        stock.server.of("copy").sql(options, &data::one_row(data, &mut random))?;
        first.push(begun.elapsed());
        drop_copy(options, stock)?;
        Ok(took)
    })?;
    stock.stop_primary()?;

    progress("a plain copy of the data directory");
    let copy = options.dir.join("copy");
    let copies = samples(time, budget, || {
        let begun = Instant::now();
        command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(stock.primary()?).arg(&copy))?;
        command::run(Command::new("sync").arg("-f").arg(&copy))?;
        let took = begun.elapsed();
        std::fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))?;
        Ok(took)
    })?;
    Ok(Peers {
        create_database: summarise_alone(through_wal),
        create_database_file_copy: summarise_alone(file_copy),
        first_query: summarise_alone(first),
        copy: summarise_alone(copies),
    })
}

fn drop_copy(options: &Options, stock: &Stock) -> anyhow::Result<()> {
    stock.server.sql(options, "drop database copy").map(drop)
}

/// One sample, and more while there is time; none if the whole time is over.
fn samples(
    time: Duration,
    budget: Budget,
    mut sample: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Vec<Duration>> {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while !budget.is_over() && samples.len() < SAMPLES_MAX && (samples.is_empty() || begun.elapsed() < time) {
        samples.push(sample()?);
    }
    Ok(samples)
}
