//! How long redo takes, by record type: `speed SEGMENT...`, WAL segments of one server in order.
//!
//! Pages start from their images or from records that make them anew, so the WAL should be written with
//! full_page_writes on and begin behind a checkpoint; records of pages not seen yet are left out. All deltas are made
//! first, then applied in order while the clock runs, so that pages come and go in the caches as they do in a
//! pageserver that redoes one after the other.

#![allow(clippy::disallowed_methods)]

use ironpage_layout::Lsn;
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use ironpage_layout::postgres::wal::{DecodedRecord, Next, Verify, WalStream};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_redo::{Encoded, HintBits, Kind, POSTGRES_15, Place};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// One delta to apply.
struct Step {
    page: usize,
    place: Place,
    from: usize,
    to: usize,
    name: (&'static str, &'static str),
    record_bytes: usize,
}

#[derive(Default)]
struct Sum {
    deltas: u64,
    delta_bytes: u64,
    record_bytes: u64,
    encode: Duration,
    apply: Duration,
}

fn main() {
    let segments: Vec<_> = std::env::args().skip(1).collect();
    let Some(first) = segments.first() else { panic!("speed SEGMENT...: WAL segment files in order") };
    let start = Lsn(segment_number(first) * WAL_SEGMENT_SIZE);
    let mut stream = WalStream::new(start, Verify::Crc);
    for (number, path) in segments.iter().enumerate() {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        stream.feed(start + number as u64 * WAL_SEGMENT_SIZE, &bytes).unwrap();
    }

    let clock = clock_cost();
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    let (mut pages, mut places) = (Vec::<[u8; PAGE_SIZE]>::new(), HashMap::new());
    let (mut deltas, mut steps) = (Vec::new(), Vec::new());
    let (mut records, mut left_out, mut decode) = (0u64, 0u64, Duration::ZERO);
    while let Ok(Next::Record(record)) = stream.next_record() {
        let begin = Instant::now();
        let decoded = DecodedRecord::decode(record.bytes).unwrap();
        decode += begin.elapsed().saturating_sub(clock);
        records += 1;
        for block in &decoded.blocks {
            let from = deltas.len();
            let begin = Instant::now();
            let encoded = ironpage_redo::encode(&POSTGRES_15, HintBits::Logged, &decoded, block, &mut deltas);
            let took = begin.elapsed().saturating_sub(clock);
            let key = (block.rel, block.fork, block.block);
            if encoded != Ok(Encoded::Native) || (!ironpage_redo::initialises(&deltas[from..]) && !places.contains_key(&key)) {
                deltas.truncate(from);
                left_out += 1;
                continue;
            }
            let page = *places.entry(key).or_insert_with(|| {
                pages.push([0; PAGE_SIZE]);
                pages.len() - 1
            });
            let known = POSTGRES_15.record_type(decoded.rmgr().unwrap(), decoded.rmgr_info());
            let image = Kind::of(&deltas[from..]) == Ok(Kind::Image);
            let name = (decoded.rmgr().unwrap().name(), if image { "page image" } else { known.unwrap().name });
            sums.entry(name).or_default().encode += took;
            let place = Place { block: block.block, end_lsn: record.end };
            steps.push(Step { page, place, from, to: deltas.len(), name, record_bytes: record.bytes.len() });
        }
    }

    for step in &steps {
        let (page, delta) = (&mut pages[step.page], &deltas[step.from..step.to]);
        let begin = Instant::now();
        let done = ironpage_redo::apply(page, step.place, delta);
        let took = begin.elapsed().saturating_sub(clock);
        done.unwrap_or_else(|error| panic!("{:?} at {}: {error}", step.name, step.place.end_lsn));
        let sum = sums.entry(step.name).or_default();
        sum.deltas += 1;
        sum.delta_bytes += delta.len() as u64;
        sum.record_bytes += step.record_bytes as u64;
        sum.apply += took;
    }
    let whole = whole_run(pages.len(), &steps, &deltas);

    println!("{records} records, {} deltas of {} pages, {left_out} block references left out", steps.len(), pages.len());
    println!("{:<12} {:<20} {:>9} {:>10} {:>10} {:>9} {:>9}", "", "", "deltas", "B/record", "B/delta", "ns encode", "ns apply");
    for ((rmgr, name), sum) in &sums {
        let each = |value: f64| value / sum.deltas.max(1) as f64;
        println!(
            "{rmgr:<12} {name:<20} {:>9} {:>10.0} {:>10.0} {:>9.0} {:>9.0}",
            sum.deltas,
            each(sum.record_bytes as f64),
            each(sum.delta_bytes as f64),
            each(sum.encode.as_nanos() as f64),
            each(sum.apply.as_nanos() as f64)
        );
    }
    let total = |of: fn(&Sum) -> Duration| sums.values().map(of).sum::<Duration>().as_nanos() as f64;
    println!("all: decode {:.0} ns a record", decode.as_nanos() as f64 / records.max(1) as f64);
    println!("all: encode {:.0} ns a delta, apply {:.0} ns a delta", total(|sum| sum.encode) / steps.len() as f64, whole);
}

/// Nanoseconds a delta of a run over all of them, with one look at the clock.
fn whole_run(pages: usize, steps: &[Step], deltas: &[u8]) -> f64 {
    let mut pages = vec![[0; PAGE_SIZE]; pages];
    let begin = Instant::now();
    for step in steps {
        ironpage_redo::apply(&mut pages[step.page], step.place, &deltas[step.from..step.to]).unwrap();
    }
    begin.elapsed().as_nanos() as f64 / steps.len().max(1) as f64
}

/// What two looks at the clock cost.
fn clock_cost() -> Duration {
    let mut costs: Vec<_> = (0..10_001).map(|_| Instant::now().elapsed()).collect();
    costs.sort();
    costs[costs.len() / 2]
}

/// The number of a segment from its file name: timeline, log and segment, eight digits each.
fn segment_number(path: &str) -> u64 {
    let name = path.rsplit('/').next().unwrap_or_default();
    let part = |at: usize| name.get(at..at + 8).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let (Some(log), Some(segment)) = (part(8), part(16)) else { panic!("{path} is not named like a WAL segment") };
    log * (1 << 32) / WAL_SEGMENT_SIZE + segment
}
