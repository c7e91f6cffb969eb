//! WAL that ends anywhere around the boundaries of its pages and segments, and then nothing more happens.
//!
//! Postgres names the place where its next record will begin, which behind a page's last record lies past
//! a header that nobody has written: who waits for WAL up to there waits for ever. So the WAL is made to
//! end at each offset near a boundary; then a page written there is dropped from the cache and read
//! again, or Postgres dies and starts there.

use crate::amount;
use crate::crash::lsn;
use ironpage_tests::{Cluster, Outcome, Session, eventually, wait_until};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

const PAGE: u64 = 8192;
const SEGMENT: u64 = 16 << 20;
/// Header of a WAL page, and of the first one of a segment.
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;
/// A read that takes longer waits for WAL that does not come.
const READ_MAX: Duration = Duration::from_secs(5);
/// Rows of the table, one a block.
const ROWS: u64 = 200;

/// Which of the two boundaries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Around {
    Page,
    Segment,
}

/// What writes the last record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Last {
    /// A message outside of any transaction: nobody waits for its flush.
    Message,
    /// A commit, which the client was told of.
    Commit,
}

/// Bytes of records before `at`, headers of pages left out (XLogRecPtrToBytePos, xlog.c).
fn usable_before(at: u64) -> u64 {
    let in_page = |header: u64| (at % PAGE).saturating_sub(header);
    let per_page = PAGE - SHORT_HEADER;
    let per_segment = SEGMENT / PAGE * per_page - (LONG_HEADER - SHORT_HEADER);
    let pages = at % SEGMENT / PAGE;
    let in_segment = match pages {
        0 => in_page(LONG_HEADER),
        _ => PAGE - LONG_HEADER + (pages - 1) * per_page + in_page(SHORT_HEADER),
    };
    at / SEGMENT * per_segment + in_segment
}

/// Where records can end at all, near a boundary: at it, but not inside or right behind the header there.
fn can_end_at(offset: i64, around: Around) -> bool {
    let header = if around == Around::Page { SHORT_HEADER } else { LONG_HEADER };
    offset <= 0 || offset as u64 > header
}

/// The length of a message whose record is `bytes` long; `None` if there is no such record.
fn message_length(bytes: u64) -> Option<u64> {
    // XLogRecord, the header of its data (short up to 255 bytes), xl_logical_message, and "w" with its zero.
    let (head, message) = (24, 24 + 2);
    let length = bytes.checked_sub(head + 2 + message)?;
    if message + length <= 255 { Some(length) } else { bytes.checked_sub(head + 5 + message) }
}

/// A cluster in which nothing happens on its own, and whose cache keeps next to nothing.
struct Still {
    cluster: Cluster,
    session: Session,
    file: PathBuf,
    /// Row and value of each, by block.
    values: Vec<u64>,
    next: u64,
}

impl Still {
    fn up(name: &str) -> Still {
        let cluster = Cluster::up(name);
        cluster.set_and_restart(&[
            ("autovacuum", "off"),
            ("bgwriter_lru_maxpages", "0"),
            ("checkpoint_timeout", "1d"),
            ("max_wal_size", "64GB"),
            ("shared_buffers", "1MB"),
            ("ironpage.cache_size", "1MB"),
        ]);
        cluster.counter("punches");
        cluster.sql("create extension pg_prewarm");
        cluster.sql("create table t(value bigint, pad text) with (fillfactor = 10)");
        cluster.sql("alter table t alter pad set storage plain");
        cluster.sql(&format!("insert into t select 0, repeat('x', 600) from generate_series(1, {ROWS})"));
        assert_eq!(cluster.sql("select pg_relation_size('t')"), (ROWS * PAGE).to_string(), "a row a block");
        // Room left free by this setting would be a reason to prune, by the mere reading of a page.
        cluster.sql("alter table t reset (fillfactor)");
        let session = cluster.session();
        let mut still = Still { cluster, session, file: PathBuf::new(), values: vec![0; ROWS as usize], next: 0 };
        still.settle();
        still
    }

    /// After a start: a new session, and blocks that displace others from the buffers without any WAL.
    fn settle(&mut self) {
        self.session = self.cluster.session();
        if self.session.must("select to_regclass('filler')").is_empty() {
            self.session.must("create unlogged table filler(pad text)");
            self.session.must("alter table filler alter pad set storage plain");
        }
        self.session.must("insert into filler select repeat('y', 6000) from generate_series(1, 1200)");
        self.session.must(&format!("set statement_timeout = {}", READ_MAX.as_millis()));
        let path = self.session.must("select pg_relation_filepath('t')");
        self.file = self.cluster.process("postgres", "main").data_dir.join(path);
    }

    fn counter(&mut self, name: &str) -> u64 {
        self.session.must(&format!("select value from ironpage_stats() where name = '{name}'")).parse().unwrap()
    }

    fn insert_lsn(&mut self) -> u64 {
        lsn(&self.session.must("select pg_current_wal_insert_lsn()"))
    }

    fn message(&mut self, length: u64) {
        self.session.must(&format!("select pg_logical_emit_message(false, 'w', repeat('m', {length}))"));
    }

    /// Sets a row to what makes WAL of the same length each time: two bytes change (log_heap_update, heapam.c).
    fn update(&mut self, row: u64) -> String {
        self.values[row as usize] += 1000 + row;
        let value = self.values[row as usize];
        format!("update t set value = {value} where {}", in_block(row))
    }

    fn next_row(&mut self) -> u64 {
        self.next += 1;
        self.next % ROWS
    }

    /// Bytes of records that an update and its commit take, away from any boundary.
    fn bytes_of_update(&mut self) -> u64 {
        let measure = |still: &mut Still| {
            let row = still.next_row();
            let sql = still.update(row);
            // Its block is read, and its page pruned if need be, before.
            still.session.must(&format!("select value from t where {}", in_block(row)));
            let before = still.insert_lsn();
            still.session.must(&sql);
            usable_before(still.insert_lsn()) - usable_before(before)
        };
        // The lesser one, should something else have written meanwhile.
        measure(self).min(measure(self))
    }

    /// Changes a row and has the WAL end at `offset` from a boundary. The row's block, and where WAL ends.
    fn end_wal_at(&mut self, around: Around, offset: i64, last: Last) -> (u64, u64) {
        let reserved = match last {
            Last::Message => 0,
            Last::Commit => self.bytes_of_update(),
        };
        let row = self.next_row();
        let update = self.update(row);
        if last == Last::Message {
            self.session.must(&update);
        } else {
            self.session.must(&format!("select value from t where {}", in_block(row)));
        }
        let step = if around == Around::Page { PAGE } else { SEGMENT };
        let now = self.insert_lsn();
        let bytes_to = |end: u64| usable_before(end).checked_sub(usable_before(now) + reserved);
        let ends = (1..).map(|boundaries| (now / step + boundaries) * step).map(|boundary| boundary.wrapping_add_signed(offset));
        let (end, length) =
            ends.take(4).find_map(|end| Some((end, message_length(bytes_to(end)?)?))).expect("a boundary that is far enough");
        self.message(length);
        if last == Last::Commit {
            self.session.must(&update);
        }
        (row, end)
    }

    /// Whether the block is a hole in the local file.
    fn is_dropped(&self, block: u64) -> bool {
        let mut page = [1; PAGE as usize];
        let file = File::open(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        file.read_exact_at(&mut page, block * PAGE).unwrap();
        page.iter().all(|byte| *byte == 0)
    }

    /// The block goes from the buffers to the cache and from there to nowhere, and is read again. Whether WAL
    /// still ends where it did.
    fn drop_and_read(&mut self, what: &str, row: u64, end: u64) -> bool {
        assert_eq!(self.session.must("select pg_prewarm('filler')"), "1200");
        let limit = Duration::from_secs(10);
        eventually(&format!("{what}: the block leaves the cache"), limit, || self.is_dropped(row).then_some(()));
        let fetches = self.counter("fetches");
        let read = self.session.run(&format!("select value from t where {}", in_block(row)), READ_MAX * 2);
        assert_eq!(read, Outcome::Success(self.values[row as usize].to_string()), "{what}");
        assert_eq!(self.counter("fetches"), fetches + 1, "{what}: the read came from the pageserver");
        usable_before(self.insert_lsn()) == usable_before(end)
    }

    /// Kills Postgres once all its WAL is on a quorum. Whether the next start began where that WAL ended.
    fn restart(&mut self, what: &str, end: u64) -> bool {
        let limit = Duration::from_secs(10);
        wait_until(&format!("{what}: all WAL is committed"), limit, || self.counter("commit_lsn") >= end);
        self.cluster.kill(&self.cluster.process("postgres", "main"));
        self.cluster.wait_ready(Duration::from_secs(30));
        self.settle();
        self.check_all();
        self.counter("start_lsn") == end
    }

    fn check_all(&mut self) {
        let wanted = self.values.iter().map(u64::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(self.session.must("select value from t order by ctid"), wanted);
    }
}

/// The newest row of a block, which holds versions of one row only.
fn in_block(block: u64) -> String {
    format!("ctid >= '({block},0)' and ctid < '({},0)'", block + 1)
}

fn offsets(around: Around, step: usize) -> impl Iterator<Item = i64> {
    (-64..=96).step_by(step).filter(move |offset| can_end_at(*offset, around))
}

/// Postgres writes a record of its own every 15 s (LogStandbySnapshot, from bgwriter.c): then once more.
fn undisturbed(what: &str, mut attempt: impl FnMut() -> bool) {
    assert!((0..3).any(|_| attempt()), "{what}: three times something else wrote WAL, or it ended elsewhere");
}

#[test]
fn blocks_are_dropped_and_read_where_wal_ends_around_a_page() {
    let mut still = Still::up("ends-page");
    for round in 0..amount(1, 5) {
        for last in [Last::Message, Last::Commit] {
            for offset in offsets(Around::Page, 8) {
                let what = format!("round {round}, {last:?} {offset} from a page");
                undisturbed(&what, || {
                    let (row, end) = still.end_wal_at(Around::Page, offset, last);
                    still.drop_and_read(&what, row, end)
                });
            }
        }
    }
    still.check_all();
}

#[test]
fn blocks_are_dropped_and_read_where_wal_ends_around_a_segment() {
    let mut still = Still::up("ends-segment");
    for last in [Last::Message, Last::Commit] {
        for offset in offsets(Around::Segment, amount(32, 8)) {
            let what = format!("{last:?} {offset} from a segment");
            undisturbed(&what, || {
                let (row, end) = still.end_wal_at(Around::Segment, offset, last);
                still.drop_and_read(&what, row, end)
            });
        }
    }
    // A switch ends at the boundary too, by a record that is longer than what it says.
    for _ in 0..amount(2, 10) {
        undisturbed("a switch", || {
            let row = still.next_row();
            let update = still.update(row);
            still.session.must(&update);
            still.session.must("select pg_switch_wal()");
            let end = still.insert_lsn() / SEGMENT * SEGMENT;
            still.drop_and_read("a switch", row, end)
        });
    }
    still.check_all();
}

#[test]
fn postgres_starts_where_wal_ends_around_a_page() {
    let mut still = Still::up("starts-page");
    for last in [Last::Message, Last::Commit] {
        for offset in offsets(Around::Page, amount(16, 8)) {
            let what = format!("{last:?} {offset} from a page");
            undisturbed(&what, || {
                let (_, end) = still.end_wal_at(Around::Page, offset, last);
                still.restart(&what, end)
            });
        }
    }
}

#[test]
fn postgres_starts_where_wal_ends_around_a_segment() {
    let mut still = Still::up("starts-segment");
    for offset in offsets(Around::Segment, amount(32, 8)) {
        let what = format!("{offset} from a segment");
        undisturbed(&what, || {
            let (_, end) = still.end_wal_at(Around::Segment, offset, Last::Message);
            still.restart(&what, end)
        });
    }
    undisturbed("a switch", || {
        still.session.must("select pg_switch_wal()");
        let end = still.insert_lsn() / SEGMENT * SEGMENT;
        still.restart("a switch", end)
    });
    // A clean stop writes more before it ends; what it leaves behind must be as good a start.
    for offset in offsets(Around::Page, amount(64, 8)) {
        still.end_wal_at(Around::Page, offset, Last::Message);
        still.cluster.must(&["endpoint", "stop", "main"]);
        still.cluster.must(&["endpoint", "start", "main"]);
        still.settle();
        still.check_all();
    }
}
