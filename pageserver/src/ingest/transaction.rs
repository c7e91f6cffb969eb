//! Ends of transactions, prepared ones, pg_xact and pg_commit_ts (access/transam/xact.c, clog.c, commit_ts.c).

use super::control::advance_newest_commit_ts;
use super::record::Step;
use super::{IngestError, Sink};
use ironpage_layout::key::SlruKind;
use ironpage_layout::postgres::rmgr::{clog as clog_info, commit_ts as commit_ts_info, xact};
use ironpage_layout::postgres::slru::{clog, commit_ts, is_normal_xid, xid_precedes};
use ironpage_layout::postgres::xact::{Completion, CompletionKind, HasInfo, Prepare};
use ironpage_layout::{Key, Value};
use std::borrow::Cow;
use zerocopy::little_endian::U32;

impl<S: Sink> Step<'_, S> {
    /// `info` is all of xl_info: it has a flag besides the operation.
    pub fn transaction(&mut self, info: u8) -> Result<(), IngestError> {
        let has_info = HasInfo::of(info);
        match info & xact::OP_MASK {
            xact::COMMIT => self.complete(CompletionKind::Commit, has_info, Prepared::No),
            xact::ABORT => self.complete(CompletionKind::Abort, has_info, Prepared::No),
            xact::COMMIT_PREPARED => self.complete(CompletionKind::Commit, has_info, Prepared::Yes),
            xact::ABORT_PREPARED => self.complete(CompletionKind::Abort, has_info, Prepared::Yes),
            xact::PREPARE => self.prepare(),
            // For hot standbys and logical decoding.
            xact::ASSIGNMENT | xact::INVALIDATIONS => Ok(()),
            _ => Err(self.unknown()),
        }
    }

    fn complete(&mut self, kind: CompletionKind, has_info: HasInfo, prepared: Prepared) -> Result<(), IngestError> {
        let completion = Completion::read(kind, has_info, self.record.main_data).ok_or_else(|| self.short())?;
        let xid = match prepared {
            Prepared::No => self.record.xid,
            Prepared::Yes => completion.twophase_xid,
        };
        if !is_normal_xid(xid) || completion.subxids.iter().any(|subxid| !is_normal_xid(*subxid)) {
            return Err(self.malformed("it ends a transaction that has no number"));
        }
        let xids: Vec<u32> = std::iter::once(xid).chain(completion.subxids.iter().copied()).collect();
        for xid in &xids {
            self.advance_xid(*xid)?;
        }
        let status = if kind == CompletionKind::Commit { clog::COMMITTED } else { clog::ABORTED };
        self.by_page(SlruKind::Clog, &xids, clog::page_of, |xids| Value::Clog { status, xids: Cow::Owned(xids) });
        if kind == CompletionKind::Commit {
            self.commit_time = Some(completion.time);
            self.track_commit_time(&completion, &xids)?;
        }
        if let Some((remote, _)) = completion.origin {
            self.advance_origin(self.record.origin, remote, false);
        }
        for rel in completion.dropped {
            self.head.relations.drop_relation(rel, self.end, self.sink);
        }
        if prepared == Prepared::Yes {
            self.head.two_phase.remove(&xid);
            self.sink.put(Key::two_phase(xid), self.end, Value::Tombstone);
        }
        Ok(())
    }

    /// TransactionTreeSetCommitTsData, while commit timestamps are tracked.
    fn track_commit_time(&mut self, completion: &Completion, xids: &[u32]) -> Result<(), IngestError> {
        let control = self.control()?;
        if control.track_commit_timestamp == 0 {
            return Ok(());
        }
        if let Some(newest) = xids.last() {
            advance_newest_commit_ts(&mut control.checkpoint_copy, *newest);
        }
        let time = completion.origin.map_or(completion.time, |(_, time)| time);
        let origin = self.record.origin;
        let value = |xids| Value::CommitTs { time, origin, xids: Cow::Owned(xids) };
        self.by_page(SlruKind::CommitTs, xids, commit_ts::page_of, value);
        Ok(())
    }

    /// Puts one value for each SLRU page that `xids` lie on.
    fn by_page(&mut self, slru: SlruKind, xids: &[u32], page_of: fn(u32) -> u32, value: impl Fn(Vec<u32>) -> Value<'static>) {
        let mut sorted: Vec<(u32, u32)> = xids.iter().map(|xid| (page_of(*xid), *xid)).collect();
        sorted.sort_by_key(|(page, _)| *page);
        for group in sorted.chunk_by(|a, b| a.0 == b.0) {
            let xids = group.iter().map(|(_, xid)| *xid).collect();
            if let Some((page, _)) = group.first() {
                self.head.slrus.change(slru, *page, self.end, value(xids), self.sink);
            }
        }
    }

    fn prepare(&mut self) -> Result<(), IngestError> {
        let prepare = Prepare::read(self.record.main_data).ok_or_else(|| self.malformed("it is no state of a transaction"))?;
        self.advance_xid(prepare.xid)?;
        for subxid in &prepare.subxids {
            self.advance_xid(*subxid)?;
        }
        self.head.two_phase.insert(prepare.xid);
        self.sink.put(Key::two_phase(prepare.xid), self.end, Value::Blob(Cow::Borrowed(self.record.main_data)));
        Ok(())
    }

    pub fn clog(&mut self, info: u8) -> Result<(), IngestError> {
        let mut data = self.main_data();
        let page = data.u32().ok_or_else(|| self.short())?;
        match info {
            clog_info::ZEROPAGE => self.head.slrus.zero(SlruKind::Clog, page, self.end, self.sink),
            clog_info::TRUNCATE => {
                let mut fields = || Some((data.u32()?, data.u32()?));
                let (oldest, database) = fields().ok_or_else(|| self.short())?;
                let end = self.end;
                let checkpoint = &mut self.control()?.checkpoint_copy;
                let newest_page = clog::page_of(checkpoint.next_xid.get() as u32);
                // vac_truncate_clog sets both limits; a checkpoint would tell only later.
                if xid_precedes(checkpoint.oldest_xid.get(), oldest) {
                    checkpoint.oldest_xid = U32::new(oldest);
                    checkpoint.oldest_xid_database = U32::new(database);
                }
                // SimpleLruTruncate refuses to remove its newest page.
                if !clog::page_precedes(newest_page, page) {
                    self.head.slrus.remove(SlruKind::Clog, end, self.sink, |at| clog::is_truncated(at, page));
                }
            }
            _ => return Err(self.unknown()),
        }
        Ok(())
    }

    pub fn commit_ts(&mut self, info: u8) -> Result<(), IngestError> {
        let mut data = self.main_data();
        let page = data.u32().ok_or_else(|| self.short())?;
        match info {
            commit_ts_info::ZEROPAGE => self.head.slrus.zero(SlruKind::CommitTs, page, self.end, self.sink),
            commit_ts_info::TRUNCATE => {
                let oldest = data.u32().ok_or_else(|| self.short())?;
                let end = self.end;
                let checkpoint = &mut self.control()?.checkpoint_copy;
                // AdvanceOldestCommitTsXid.
                let known = checkpoint.oldest_commit_ts_xid.get();
                if known != 0 && xid_precedes(known, oldest) {
                    checkpoint.oldest_commit_ts_xid = U32::new(oldest);
                }
                self.head.slrus.remove(SlruKind::CommitTs, end, self.sink, |at| commit_ts::is_truncated(at, page));
            }
            _ => return Err(self.unknown()),
        }
        Ok(())
    }

    /// Commit timestamps begin or cease to be tracked (CommitTsParameterChange).
    pub fn track_commit_timestamps(&mut self, on: bool) -> Result<(), IngestError> {
        let control = self.control()?;
        let was_on = control.track_commit_timestamp != 0;
        control.track_commit_timestamp = u8::from(on);
        let checkpoint = &mut control.checkpoint_copy;
        let next_xid = checkpoint.next_xid.get() as u32;
        if on && !was_on {
            if checkpoint.oldest_commit_ts_xid.get() == 0 {
                checkpoint.oldest_commit_ts_xid = U32::new(next_xid);
                checkpoint.newest_commit_ts_xid = U32::new(next_xid);
            }
            let page = commit_ts::page_of(next_xid);
            if !self.head.slrus.of(SlruKind::CommitTs).contains(&page) {
                self.head.slrus.zero(SlruKind::CommitTs, page, self.end, self.sink);
            }
        } else if was_on && !on {
            checkpoint.oldest_commit_ts_xid = U32::ZERO;
            checkpoint.newest_commit_ts_xid = U32::ZERO;
            self.head.slrus.remove(SlruKind::CommitTs, self.end, self.sink, |_| true);
        }
        Ok(())
    }
}

/// Whether a record ends a prepared transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prepared {
    Yes,
    No,
}
