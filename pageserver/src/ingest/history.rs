//! The history marks that ingest leaves behind (see `ironpage_layout::history`), and pg_control beside them.

use super::{Head, IngestError, Sink};
use ironpage_layout::history::{History, NO_COMMIT, bucket_of, bucket_start};
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::{Key, Lsn, Value};
use std::borrow::Cow;

/// From 1970 to 2000 in seconds: (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY (datatype/timestamp.h).
const EPOCH_SECONDS: i64 = 946_684_800;

impl Head {
    /// The history as of `last_record_lsn`.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Puts what makes `last_record_lsn` a place where a head may be loaded from: pg_control and the history.
    pub fn put_mark(&self, sink: &mut impl Sink) -> Result<(), IngestError> {
        put_mark(self.last_record_lsn, self.control()?, &self.history, sink);
        Ok(())
    }

    /// Ends an import: its start is the first place a head may be loaded from.
    pub fn finish_import(&mut self, sink: &mut impl Sink) -> Result<(), IngestError> {
        let checkpoint = self.control()?.checkpoint_copy.time.get();
        // Whole seconds, cut off: what the import holds may be up to the next one.
        let after = checkpoint.saturating_add(1).saturating_sub(EPOCH_SECONDS).saturating_mul(1_000_000);
        self.history = History {
            commit_time: NO_COMMIT,
            commit_time_max: after,
            before: self.prev_record_lsn,
            prev_record_lsn: self.prev_record_lsn,
        };
        self.put_mark(sink)
    }

    /// A record that ends at `end` is about to be taken: buckets it passes over get the history as it was before.
    pub(super) fn pass_buckets(&self, end: Lsn, sink: &mut impl Sink) {
        for passed in bucket_of(self.last_record_lsn) + 1..bucket_of(end) {
            put_history(Key::history(passed), bucket_start(passed), &self.history, sink);
        }
    }

    /// The record from `start` to `end` was taken, which is a commit if it says when. `last_record_lsn` is still that before.
    pub(super) fn advance_history(
        &mut self,
        start: Lsn,
        end: Lsn,
        commit_time: Option<i64>,
        sink: &mut impl Sink,
    ) -> Result<(), IngestError> {
        let (before, last_bucket, bucket) = (self.last_record_lsn, bucket_of(self.last_record_lsn), bucket_of(end));
        self.history.before = before;
        self.history.prev_record_lsn = start;
        if let Some(time) = commit_time {
            self.history.commit_time = time;
            self.history.commit_time_max = self.history.commit_time_max.max(time);
        }
        if bucket != last_bucket {
            put_mark(end, self.control()?, &self.history, sink);
        } else if commit_time.is_some() {
            put_history(Key::history(bucket), end, &self.history, sink);
        }
        Ok(())
    }
}

/// Puts pg_control and the history as of `lsn`, a record end.
pub fn put_mark(lsn: Lsn, control: &ControlFile, history: &History, sink: &mut impl Sink) {
    sink.put(Key::control(), lsn, Value::Blob(Cow::Borrowed(&control.to_bytes())));
    put_history(Key::history(bucket_of(lsn)), lsn, history, sink);
}

fn put_history(key: Key, lsn: Lsn, history: &History, sink: &mut impl Sink) {
    sink.put(key, lsn, Value::Blob(Cow::Borrowed(&history.encode())));
}
