//! The data: one table, loaded into a stock Postgres, whose data directory then becomes a tenant.

use super::plan::{Budget, Size};
use crate::latency::Random;
use crate::stock::Stock;
use crate::{Options, command, interrupt, progress};
use anyhow::Context;
use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

/// The database with the table `numbers`.
pub const DATABASE: &str = "bench";
/// A page has eight rows, and room for one to be updated in place.
const BYTES_PER_ROW: u64 = 1024;
const FILLER_WORDS: usize = 50;
/// So many rows between two looks at the time.
const ROWS_PER_LOOK: u64 = 4096;

/// What was loaded.
#[derive(Clone, Copy)]
pub struct Data {
    pub rows: u64,
    /// The table with its index.
    pub bytes: Size,
}

/// Rows of a table of that size.
pub fn rows_of(size: Size) -> u64 {
    size.0 / BYTES_PER_ROW
}

/// Loads until `size`, or until the time is over: fewer rows then, at least enough to go on with.
pub fn load(options: &Options, stock: &Stock, size: Size, budget: Budget) -> anyhow::Result<Data> {
    stock.server.sql(options, &format!("create database {DATABASE}"))?;
    let server = stock.server.of(DATABASE);
    let mut psql = server.client(&options.postgres_bindir.join("psql"));
    psql.args(["-d", DATABASE, "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    let wanted = rows_of(size);
    let (rows, _) = command::feed(&mut psql, |input| {
        // Frozen rows of a table that the same transaction made need neither WAL nor a vacuum.
        writeln!(
            input,
            "begin; create table numbers (id int, n int not null, filler text not null) with (fillfactor = 90, \
             autovacuum_enabled = off); copy numbers from stdin with (freeze);"
        )?;
        let rows = write_rows(input, wanted, budget)?;
        writeln!(input, "\\.")?;
        writeln!(input, "alter table numbers add primary key (id); commit; analyze numbers; checkpoint;")?;
        Ok(rows)
    })?;
    let bytes = server.sql(options, "select pg_total_relation_size('numbers')")?;
    Ok(Data { rows, bytes: Size(bytes.parse().context("the table's size")?) })
}

fn write_rows(input: &mut dyn Write, wanted: u64, budget: Budget) -> anyhow::Result<u64> {
    let (mut random, mut row, mut said) = (Random::new(11), String::new(), Instant::now());
    for id in 1..=wanted {
        if id % ROWS_PER_LOOK == 0 {
            interrupt::check()?;
            if budget.is_over() {
                return Ok(id - 1);
            }
            if said.elapsed() > Duration::from_secs(15) {
                progress(&format!("loaded {} of {}", Size(id * BYTES_PER_ROW), Size(wanted * BYTES_PER_ROW)));
                said = Instant::now();
            }
        }
        row.clear();
        write!(row, "{id}\t0\t")?;
        for _ in 0..FILLER_WORDS {
            write!(row, "{:016x}", random.below(u64::MAX))?;
        }
        row.push('\n');
        input.write_all(row.as_bytes())?;
    }
    Ok(wanted)
}

/// A query that answers with one row and needs a page of the index and of the table.
pub fn one_row(data: Data, random: &mut Random) -> String {
    format!("select n from numbers where id = {}", 1 + random.below(data.rows))
}

/// Commits so many updates of rows all over the table.
pub fn updates(data: Data, count: u64, random: &mut Random) -> String {
    let ids: Vec<String> = (0..count).map(|_| (1 + random.below(data.rows)).to_string()).collect();
    format!("update numbers set n = n + 1 where id in ({})", ids.join(","))
}
