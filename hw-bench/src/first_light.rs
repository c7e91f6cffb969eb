//! The first measurement: does a database on Ironpage hold its own beside stock Postgres?

use crate::cluster::Cluster;
use crate::getpage::{self, Target};
use crate::latency::Summary;
use crate::machine::Machine;
use crate::progress;
use crate::scratch::Scratch;
use crate::stock::{Server, Stock};
use crate::{Options, client, device};
use anyhow::Context;
use ironpage_layout::RelTag;
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(clap::Args, Clone)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    /// pgbench scale: 15 MiB each.
    #[arg(long, default_value_t = 20)]
    scale: u32,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    pgbench: Vec<PgbenchRow>,
    start: StartRow,
    getpage: Vec<GetpageRow>,
}

#[derive(Serialize)]
struct PgbenchRow {
    clients: u32,
    ironpage_tps: f64,
    stock_synchronous_standby_tps: f64,
    ratio: f64,
}

#[derive(Serialize)]
struct StartRow {
    ironpage_ms: f64,
    stock_ms: f64,
}

#[derive(Serialize)]
struct GetpageRow {
    clients: usize,
    getpage: Summary,
    raw_device: Summary,
    ratio: f64,
}

const CLIENTS: [u32; 3] = [1, 8, 32];
const STARTS: usize = 5;

/// Both sides one after the other on the same disk, interleaved by client count.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = &arguments.options;
    let _scratch = Scratch::create(&options.dir)?;
    let machine = Machine::read();
    let estimate = options.seconds * (CLIENTS.len() as u64 * 2 + 4) + 120;
    eprintln!("about {} minutes; data below {}, removed at the end", estimate.div_ceil(60), options.dir.display());

    progress("starting stock Postgres with a synchronous standby");
    let settings = "shared_buffers=16MB";
    let stock = Stock::start(options, "stock", options.port_base + 30, settings, true)?;
    stock.server.pgbench_init(options, arguments.scale)?;
    progress("starting Ironpage");
    let cluster = Cluster::up(options)?;
    let ours = cluster.server();
    ours.sql(options, "alter system set shared_buffers = '16MB'")?;
    restart(&cluster)?;
    ours.pgbench_init(options, arguments.scale)?;

    let pgbench = CLIENTS.iter().map(|clients| pgbench_row(options, *clients, ours, stock.server)).collect::<Result<_, _>>()?;
    let start = start_row(options, &cluster, ours, &stock)?;
    let getpage = getpage_rows(options, &cluster, ours)?;
    let report = Report { machine, pgbench, start, getpage };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_table(arguments, &report);
    }
    Ok(())
}

fn pgbench_row(options: &Options, clients: u32, ours: Server, stock: Server) -> anyhow::Result<PgbenchRow> {
    progress(&format!("pgbench with {clients} clients, stock then ours"));
    let stock_synchronous_standby_tps = stock.pgbench(options, clients, &[])?;
    let ironpage_tps = ours.pgbench(options, clients, &[])?;
    let ratio = ironpage_tps / stock_synchronous_standby_tps;
    Ok(PgbenchRow { clients, ironpage_tps, stock_synchronous_standby_tps, ratio })
}

fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.ironpage(&["endpoint", "stop", "main"])?;
    cluster.ironpage(&["endpoint", "start", "main"]).map(drop)
}

/// Medians of several starts after a clean stop, until a first row comes back.
fn start_row(options: &Options, cluster: &Cluster, ours: Server, stock: &Stock) -> anyhow::Result<StartRow> {
    progress("endpoint start to first row");
    let (mut ironpage, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        cluster.ironpage(&["endpoint", "stop", "main"])?;
        let begun = Instant::now();
        cluster.ironpage(&["endpoint", "start", "main"])?;
        ironpage.push(ours.first_row(options, begun)?);
        stock.stop_primary()?;
        plain.push(stock.timed_start(options)?);
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    Ok(StartRow { ironpage_ms: median(ironpage), stock_ms: median(plain) })
}

fn getpage_rows(options: &Options, cluster: &Cluster, ours: Server) -> anyhow::Result<Vec<GetpageRow>> {
    let address = cluster.address("pageserver")?;
    let status = client::status(&address)?;
    let timeline = status.timelines.first().context("the pageserver has no timeline")?;
    let sql = "select c.relfilenode || ' ' || d.oid || ' ' || pg_relation_size(c.oid) / 8192 \
               from pg_class c, pg_database d where c.relname = 'pgbench_accounts' and d.datname = current_database()";
    let row = ours.sql(options, sql)?;
    let numbers: Vec<u32> = row.split(' ').map(|field| field.parse()).collect::<Result<_, _>>().context("relation numbers")?;
    let [relation, database, blocks] = numbers[..] else { anyhow::bail!("unexpected row '{row}'") };
    let rel = RelTag { tablespace: 1663, database, relation };
    let lsn = timeline.last_record_lsn;
    let target = Target { tenant: timeline.tenant, timeline: timeline.timeline, lsn, rel, blocks };

    progress("raw device file");
    let file = options.dir.join("raw.dat");
    device::make_file(&file, 1 << 30)?;
    let time = Duration::from_secs(options.seconds.min(15));
    let mut rows = Vec::new();
    for clients in [1, 64] {
        progress(&format!("getpage with {clients} clients, raw device then ours"));
        let raw_device = device::random_reads(&file, clients, time)?;
        let getpage = getpage::random_reads(&address, target, clients, time)?;
        rows.push(GetpageRow { clients, getpage, raw_device, ratio: getpage.per_second / raw_device.per_second });
    }
    std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    Ok(rows)
}

fn print_table(arguments: &Arguments, report: &Report) {
    println!("{}", report.machine);
    println!(
        "pgbench TPC-B, scale {}, shared_buffers 16 MB, {} s a run; stock has one synchronous standby",
        arguments.scale, arguments.options.seconds
    );
    println!("{:>8} {:>14} {:>14} {:>8}", "clients", "ironpage tps", "stock tps", "ratio");
    for row in &report.pgbench {
        println!("{:>8} {:>14.0} {:>14.0} {:>8.2}", row.clients, row.ironpage_tps, row.stock_synchronous_standby_tps, row.ratio);
    }
    println!(
        "start to first row, median of {STARTS}: ironpage {:.0} ms, stock {:.0} ms",
        report.start.ironpage_ms, report.start.stock_ms
    );
    println!(
        "{:>8} {:>12} {:>9} {:>9} {:>12} {:>9} {:>9} {:>8}",
        "clients", "getpage/s", "p50 us", "p99 us", "raw reads/s", "p50 us", "p99 us", "ratio"
    );
    for row in &report.getpage {
        let (ours, raw) = (row.getpage, row.raw_device);
        println!(
            "{:>8} {:>12.0} {:>9.0} {:>9.0} {:>12.0} {:>9.0} {:>9.0} {:>8.2}",
            row.clients, ours.per_second, ours.p50_us, ours.p99_us, raw.per_second, raw.p50_us, raw.p99_us, row.ratio
        );
    }
}
