//! How long redo takes, by record type: `speed LSN SEGMENT...`, where a record begins and the WAL segments of one
//! server from there on.
//!
//! Pages start from their images or from records that make them anew, so the WAL should be written with
//! full_page_writes on and begin at a checkpoint's redo location; records of pages not seen yet are left out. All
//! deltas are made first, then applied page by page, as reads of these pages would, while the clock runs.

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
    /// Nanoseconds of each.
    encode: Vec<u32>,
    apply: Vec<u32>,
}

/// The middle one, and the mean, which on a busy machine counts what others did meanwhile.
fn middle_and_mean(times: &mut [u32]) -> (u32, f64) {
    times.sort_unstable();
    let sum: u64 = times.iter().map(|time| u64::from(*time)).sum();
    (times.get(times.len() / 2).copied().unwrap_or(0), sum as f64 / times.len().max(1) as f64)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let start = arguments.next().and_then(|lsn| lsn.parse::<Lsn>().ok());
    let start = start.unwrap_or_else(|| panic!("speed LSN SEGMENT...: the first record, WAL segment files in order"));
    let mut stream = WalStream::new(start, Verify::Crc);
    let mut next = stream.position();
    for path in arguments {
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(segment_number(&path), next.segment(), "{path} is not the segment that has {next}");
        stream.feed(next, &bytes[next.segment_offset() as usize..]).unwrap();
        next = Lsn((next.segment() + 1) * WAL_SEGMENT_SIZE);
    }

    let clock = clock_cost();
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    let (mut pages, mut places) = (Vec::<[u8; PAGE_SIZE]>::new(), HashMap::new());
    let (mut deltas, mut steps) = (Vec::new(), Vec::new());
    let (mut records, mut left_out, mut decode) = (0u64, 0u64, Vec::new());
    while let Ok(Next::Record(record)) = stream.next_record() {
        let begin = Instant::now();
        let decoded = DecodedRecord::decode(record.bytes).unwrap();
        decode.push(begin.elapsed().saturating_sub(clock).as_nanos() as u32);
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
            sums.entry(name).or_default().encode.push(took.as_nanos() as u32);
            let place = Place { block: block.block, end_lsn: record.end };
            steps.push(Step { page, place, from, to: deltas.len(), name, record_bytes: record.bytes.len() });
        }
    }

    steps.sort_by_key(|step| step.page);
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
        sum.apply.push(took.as_nanos() as u32);
    }
    // The best of a few: the least disturbed by others.
    let whole = (0..7).map(|_| whole_run(pages.len(), &steps, &deltas)).fold(f64::INFINITY, f64::min);

    println!("{records} records, {} deltas of {} pages, {left_out} block references left out", steps.len(), pages.len());
    println!("{:<33} {:>9} {:>9} {:>9} {:>15} {:>15}", "", "deltas", "B/record", "B/delta", "ns encode, mean", "ns apply, mean");
    for ((rmgr, name), sum) in &mut sums {
        let each = |bytes: u64| bytes as f64 / sum.deltas.max(1) as f64;
        let ((encode, encode_mean), (apply, apply_mean)) = (middle_and_mean(&mut sum.encode), middle_and_mean(&mut sum.apply));
        let (record, delta) = (each(sum.record_bytes), each(sum.delta_bytes));
        print!("{rmgr:<12} {name:<20} {:>9} {record:>9.0} {delta:>9.0} ", sum.deltas);
        println!("{encode:>7} {encode_mean:>7.0} {apply:>7} {apply_mean:>7.0}");
    }
    let (middle, mean) = middle_and_mean(&mut decode);
    println!(
        "decode {middle} ns a record, {mean:.0} in the mean; apply {whole:.0} ns a delta over all of them, the best of 7 runs"
    );
}

/// Nanoseconds a delta of a run over all of them, with one look at the clock.
fn whole_run(pages: usize, steps: &[Step], deltas: &[u8]) -> f64 {
    let mut pages = vec![[1; PAGE_SIZE]; pages];
    // Written to before the clock runs, or it would count the page faults.
    pages.iter_mut().for_each(|page| page.fill(0));
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
