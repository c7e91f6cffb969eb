//! How fast a branch is made, its first query and its page reads, at several sizes of data.
//!
//! The data is loaded into a stock Postgres; what else copies a database is measured there; its data directory becomes
//! a tenant (`ironpage import`), of which the branches are made.

mod create;
mod data;
mod depth;
mod first_query;
mod peers;
mod plan;
mod table;

use crate::api::Api;
use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::scratch::{Scratch, free_bytes};
use crate::stock::Stock;
use crate::{Options, device, interrupt, progress};
use create::CreateRow;
use depth::GetpageRow;
use first_query::FirstQuery;
use peers::Peers;
use plan::{Budget, Size};
use serde::Serialize;
use std::time::Duration;

/// The tenant that is imported.
const TENANT: &str = "bench";
const RAW_FILE_BYTES: u64 = 1 << 30;

#[derive(clap::Args, Clone)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Data to branch: sizes as 1M or 10G, made smaller if the disk or the time asks for it, which is said.
    #[arg(long, value_delimiter = ',', default_values = ["1M", "10G"], value_name = "SIZE,...")]
    size: Vec<Size>,
    /// The whole measurement ends after about so long: runs are shortened, tables made smaller, fewer branches made.
    #[arg(long, default_value = "45m", value_parser = plan::parse_time, value_name = "90s|30m|2h")]
    time: Duration,
    /// Also measure with so many branches there.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    branches: u32,
}

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    sizes: Vec<SizeReport>,
}

#[derive(Serialize)]
pub struct SizeReport {
    asked: Size,
    /// The table with its index, in bytes.
    used: Size,
    rows: u64,
    /// Of a timed run.
    seconds: u64,
    /// What was not done as asked, and why.
    notes: Vec<String>,
    create: Vec<CreateRow>,
    peers: Peers,
    first_query: FirstQuery,
    getpage: Vec<GetpageRow>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = &arguments.options;
    let _scratch = Scratch::create(&options.dir)?;
    let machine = Machine::read();
    let estimate: Duration = arguments.size.iter().map(|size| plan::estimate(*size, options.seconds)).sum();
    progress(&format!(
        "about {} minutes; data below {}, removed at the end",
        estimate.min(arguments.time).as_secs().div_ceil(60),
        options.dir.display()
    ));
    progress(&format!("a raw file of {}", Size(RAW_FILE_BYTES)));
    device::make_file(&depth::raw_file(options), RAW_FILE_BYTES)?;

    let (whole, mut sizes) = (Budget::of(arguments.time), Vec::new());
    for (number, size) in arguments.size.iter().enumerate() {
        // What is larger may take all the time that those before it left.
        let later: Duration = arguments.size.iter().skip(number + 1).map(|size| plan::estimate(*size, options.seconds)).sum();
        let own = plan::estimate(*size, options.seconds);
        let share = whole.left().mul_f64(own.as_secs_f64() / (own + later).as_secs_f64());
        sizes.push(measure(arguments, *size, Budget::of(share))?);
    }
    interrupt::check()?;
    let report = Report { machine, sizes };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        table::print(&report);
    }
    Ok(())
}

fn measure(arguments: &Arguments, asked: Size, budget: Budget) -> anyhow::Result<SizeReport> {
    let options = &arguments.options;
    let (mut notes, free) = (Vec::new(), free_bytes(&options.dir)?);
    let size = plan::fitting(asked, free)?;
    if size < asked {
        notes.push(format!("smaller than asked for: {} were free on the disk", Size(free)));
    }
    progress(&format!("{size}: loading it into stock Postgres, at most {} s for all of it", budget.left().as_secs()));
    let settings = "max_wal_size = 1GB\nwal_level = minimal\nmax_wal_senders = 0\nmaintenance_work_mem = 256MB";
    let stock = Stock::start(options, "stock", options.port_base + 90, settings, false)?;
    let wanted_rows = data::rows_of(size);
    let data = data::load(options, &stock, size, budget.part(4))?;
    if data.rows < wanted_rows {
        notes.push(format!("only {} of {wanted_rows} rows were loaded: there was no time for more", data.rows));
    }
    let seconds = plan::run_seconds(options.seconds, budget.left());
    let peers = peers::measure(options, &stock, data, seconds, budget)?;

    progress("starting Ironpage, importing the data directory");
    let cluster = Cluster::up(options)?;
    cluster.ironpage(&["endpoint", "stop", "main"])?;
    let source = stock.primary()?.display().to_string();
    cluster.ironpage(&["import", &source, "--tenant", TENANT])?;
    drop(stock);
    let cluster = cluster.with_tenant(TENANT);
    cluster.ironpage(&["endpoint", "start", "bench", "--branch", "main"])?;
    let (api, parent) = (Api::new(&cluster.api_address(), TENANT), cluster.server_of("main")?);

    let seconds = plan::run_seconds(options.seconds, budget.left());
    let mut create = create::rows(options, &api, parent, data, seconds, budget)?;
    let first_query = first_query::measure(options, &cluster, data, Duration::from_secs(seconds), budget)?;
    let getpage = depth::rows(options, &cluster, &api, data, seconds, budget)?;
    let wanted = arguments.branches as usize;
    create::fill(&api, wanted, budget.part(2))?;
    let branches = api.tenant()?.branches;
    if branches < wanted {
        notes.push(format!("only {branches} of {wanted} branches were made: there was no time for more"));
    }
    if budget.is_over() {
        notes.push("the time was over before everything was measured".into());
    }
    create.extend(create::rows(options, &api, parent, data, seconds, budget)?);
    Ok(SizeReport { asked, used: data.bytes, rows: data.rows, seconds, notes, create, peers, first_query, getpage })
}
