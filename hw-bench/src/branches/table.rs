//! The result for people.

use super::create::LOAD_CLIENTS;
use super::{Report, SizeReport};
use crate::latency::Summary;

pub fn print(report: &Report) {
    println!("{}", report.machine);
    report.sizes.iter().for_each(print_size);
}

fn print_size(report: &SizeReport) {
    println!("\n{} asked for, {} used ({} rows); runs of {} s", report.asked, report.used, report.rows, report.seconds);
    report.notes.iter().for_each(|note| println!("{note}"));

    println!(
        "\nbranch at the head, over HTTP; load: {LOAD_CLIENTS} clients updating single rows of the parent;\nfsync: the raw limit, a 4 KiB append with fdatasync between the creates"
    );
    println!(
        "{:>9} {:>10} {:>8} {:>9} {:>9} {:>10} {:>10} {:>11} {:>11} {:>9}",
        "branches", "load tps", "creates", "p50 ms", "p99 ms", "delete p50", "delete p99", "fsync p50", "fsync p99", "in fsyncs"
    );
    for row in &report.create {
        let load = row.load_tps.map_or("idle".to_string(), |tps| format!("{tps:.0}"));
        let (create, delete, write) = (&row.create, &row.delete, &row.durable_write);
        println!(
            "{:>9} {load:>10} {:>8} {:>9} {:>9} {:>10} {:>10} {:>11} {:>11} {:>9.1}",
            row.branches,
            create.operations,
            ms(create, create.p50_us),
            ms(create, create.p99_us),
            ms(delete, delete.p50_us),
            ms(delete, delete.p99_us),
            ms(write, write.p50_us),
            ms(write, write.p99_us),
            create.p50_us / write.p50_us.max(1e-3)
        );
    }

    let peers = &report.peers;
    println!("\n{:<52} {:>8} {:>10} {:>10}", "beside it, same disk", "samples", "p50 ms", "p99 ms");
    line("stock: CREATE DATABASE ... TEMPLATE", &peers.create_database);
    line("stock: the same, STRATEGY = FILE_COPY", &peers.create_database_file_copy);
    line("cp -a --reflink=auto of the data directory, syncfs", &peers.copy);
    if let (Some(row), true) = (report.create.first(), peers.create_database.operations > 0) {
        let times = peers.create_database.p50_us / row.create.p50_us.max(1e-3);
        println!("a create with {} branches, idle, is {times:.1} times as fast as CREATE DATABASE", row.branches);
    }

    println!("\n{:<52} {:>8} {:>10} {:>10}", "first query on a new branch, by commands", "samples", "p50 ms", "p99 ms");
    let first = &report.first_query;
    line("ironpage branch create", &first.create);
    line("ironpage endpoint start", &first.start);
    line("psql, one row through the index", &first.query);
    line("together", &first.total);
    line("stock: CREATE DATABASE by file copy, then psql", &peers.first_query);

    println!("\ngetpage of uniform random blocks as of the branch's head, one page a request; raw: 8 KiB O_DIRECT preads");
    println!(
        "{:>6} {:>8} {:>11} {:>9} {:>9} {:>12} {:>9} {:>9} {:>8}",
        "depth", "clients", "getpage/s", "p50 us", "p99 us", "raw reads/s", "p50 us", "p99 us", "ratio"
    );
    for row in &report.getpage {
        let (ours, raw) = (row.getpage, row.raw_device);
        println!(
            "{:>6} {:>8} {:>11.0} {:>9.0} {:>9.0} {:>12.0} {:>9.0} {:>9.0} {:>8.2}",
            row.depth, row.clients, ours.per_second, ours.p50_us, ours.p99_us, raw.per_second, raw.p50_us, raw.p99_us, row.ratio
        );
    }
}

fn line(what: &str, summary: &Summary) {
    let (p50, p99) = (ms(summary, summary.p50_us), ms(summary, summary.p99_us));
    println!("{what:<52} {:>8} {p50:>10} {p99:>10}", summary.operations);
}

/// Microseconds as milliseconds; `-` if nothing was measured.
fn ms(of: &Summary, us: f64) -> String {
    match of.operations {
        0 => "-".into(),
        _ if us < 10_000.0 => format!("{:.2}", us / 1e3),
        _ => format!("{:.1}", us / 1e3),
    }
}
