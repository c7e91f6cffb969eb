//! One record: its checks, its pages, and the part of ingest that knows its resource manager.

use super::control::advance_next_xid;
use super::{Head, IngestAction, IngestError, Sink};
use ironpage_layout::postgres::bytes::Reader;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::rmgr::{Rmgr, is_page_record, replication_origin, standby};
use ironpage_layout::postgres::wal::record::Block;
use ironpage_layout::postgres::wal::{DecodedRecord, Record};
use ironpage_layout::{Fork, Key, Lsn, Value};
use std::borrow::Cow;

/// A record on its way into a head.
pub(super) struct Step<'a, S> {
    pub head: &'a mut Head,
    pub record: &'a DecodedRecord<'a>,
    pub start: Lsn,
    pub end: Lsn,
    pub sink: &'a mut S,
    /// When the record says it committed, if it is a commit.
    pub commit_time: Option<i64>,
}

/// See [`Head::ingest`].
pub(super) fn ingest(head: &mut Head, record: &Record<'_>, sink: &mut impl Sink) -> Result<IngestAction, IngestError> {
    let (start, end) = (record.start, record.end);
    let decoded = DecodedRecord::decode(record.bytes).map_err(|error| IngestError::Decode { lsn: start, error })?;
    let last = head.prev_record_lsn;
    if start < head.last_record_lsn || (last.is_valid() && decoded.prev != last) {
        return Err(IngestError::OutOfOrder { lsn: start, prev: decoded.prev, last });
    }
    head.pass_buckets(end, sink);
    let mut step = Step { head, record: &decoded, start, end, sink, commit_time: None };
    step.advance_xid(decoded.xid)?;
    let action = step.dispatch()?;
    let Step { head, sink, commit_time, .. } = step;
    head.advance_history(start, end, commit_time, sink)?;
    head.last_record_lsn = end;
    head.prev_record_lsn = start;
    Ok(action)
}

impl<'a, S: Sink> Step<'a, S> {
    fn dispatch(&mut self) -> Result<IngestAction, IngestError> {
        let rmgr = self.record.rmgr().ok_or_else(|| self.unknown())?;
        let info = self.record.rmgr_info();
        let has_pages = matches!(rmgr, Rmgr::Xlog) || is_page_record(rmgr, info);
        if !has_pages && !self.record.blocks.is_empty() {
            return Err(self.malformed("records of its kind change no pages, this one does"));
        }
        match rmgr {
            Rmgr::Xlog => self.xlog(info)?,
            Rmgr::Transaction => self.transaction(self.record.info)?,
            Rmgr::Storage => self.storage(info)?,
            Rmgr::Clog => self.clog(info)?,
            Rmgr::Database => return self.database(info),
            Rmgr::Tablespace => self.tablespace(info)?,
            Rmgr::MultiXact => self.multixact(info)?,
            Rmgr::RelMap => self.rel_map(info)?,
            Rmgr::Standby => self.standby(info)?,
            Rmgr::Heap | Rmgr::Heap2 => self.heap(rmgr, info)?,
            Rmgr::Btree | Rmgr::Hash | Rmgr::Gin | Rmgr::Gist | Rmgr::Sequence | Rmgr::Spgist | Rmgr::Brin | Rmgr::Generic => {
                if !is_page_record(rmgr, info) {
                    return Err(self.unknown());
                }
                self.pages()?;
            }
            Rmgr::CommitTs => self.commit_ts(info)?,
            Rmgr::ReplicationOrigin => self.replication_origin(info)?,
            // For logical decoding alone.
            Rmgr::LogicalMessage if info == 0 => {}
            Rmgr::LogicalMessage => return Err(self.unknown()),
        }
        Ok(IngestAction::None)
    }

    /// The record's main data, field by field.
    pub fn main_data(&self) -> Reader<'a> {
        Reader::new(self.record.main_data)
    }

    pub fn unknown(&self) -> IngestError {
        IngestError::UnknownRecord { lsn: self.start, rmgr: self.record.rmid, info: self.record.rmgr_info() }
    }

    pub fn malformed(&self, why: &'static str) -> IngestError {
        IngestError::Malformed { lsn: self.start, rmgr: self.record.rmid, info: self.record.rmgr_info(), why }
    }

    /// The error for main data that ends before its last field.
    pub fn short(&self) -> IngestError {
        self.malformed("its data is shorter than its fields")
    }

    pub fn control(&mut self) -> Result<&mut ControlFile, IngestError> {
        self.head.control.as_mut().ok_or(IngestError::NoControl)
    }

    /// The next transaction comes after `xid`; nothing for permanent xids.
    pub fn advance_xid(&mut self, xid: u32) -> Result<(), IngestError> {
        advance_next_xid(self.control()?, xid);
        Ok(())
    }

    /// Values for all pages the record references.
    pub fn pages(&mut self) -> Result<(), IngestError> {
        let record = self.record;
        record.blocks.iter().try_for_each(|block| self.page(block))
    }

    /// The value for one page the record references: its image, or the record itself.
    pub fn page(&mut self, block: &Block<'_>) -> Result<(), IngestError> {
        let key = Key::page(block.rel, block.fork, block.block);
        let value = match block.applied_image() {
            Some(image) if image.compression.is_none() => {
                let page = DecodedRecord::restore_image(block, self.end);
                let page = page.ok_or_else(|| self.malformed("a page image does not fit a page"))?;
                Value::Image(Cow::Owned(page.to_vec()))
            }
            // Redo decompresses it: the redo worker does not need the page's past for that.
            Some(_) => self.whole_record(Initialises::Yes),
            None if block.will_init => self.whole_record(Initialises::Yes),
            None => {
                self.must_exist(block)?;
                self.whole_record(Initialises::No)
            }
        };
        self.head.relations.cover(block.rel, block.fork, block.block, self.end, self.sink);
        self.sink.put(key, self.end, value);
        Ok(())
    }

    fn whole_record(&self, initialises: Initialises) -> Value<'a> {
        Value::Record { initialises: initialises == Initialises::Yes, bytes: Cow::Borrowed(self.record.bytes) }
    }

    /// Redo of a change needs the page: recovery, too, stops at one beyond the end of its file (log_invalid_page, xlogutils.c).
    fn must_exist(&self, block: &Block<'_>) -> Result<(), IngestError> {
        if block.fork == Fork::Vm {
            return Err(self.malformed("it changes a visibility map in a way nobody knows"));
        }
        let blocks = self.head.relations.blocks(block.rel, block.fork);
        if self.end <= self.head.consistent_from {
            // The drop or truncation follows and takes with it what is stored now; if none does, reads of the page fail.
            return Ok(());
        }
        if blocks.is_some_and(|blocks| block.block.0 < blocks) {
            return Ok(());
        }
        let (rel, fork) = (block.rel, block.fork);
        Err(IngestError::BlockBeyondRelation { lsn: self.start, rel, fork, block: block.block.0, blocks })
    }

    /// Locks, running transactions and invalidations concern hot standbys alone, but for the next xid.
    fn standby(&mut self, info: u8) -> Result<(), IngestError> {
        match info {
            standby::LOCK | standby::INVALIDATIONS => Ok(()),
            standby::RUNNING_XACTS => {
                // xl_running_xacts: xcnt, subxcnt, subxid_overflow and its padding, nextXid.
                let mut data = self.main_data();
                let next_xid = data.take(12).and_then(|_| data.u32()).ok_or_else(|| self.short())?;
                self.advance_xid(next_xid.wrapping_sub(1))
            }
            _ => Err(self.unknown()),
        }
    }

    fn replication_origin(&mut self, info: u8) -> Result<(), IngestError> {
        let mut data = self.main_data();
        match info {
            replication_origin::SET => {
                let mut fields = || Some((Lsn(data.u64()?), data.u16()?, data.u8()?));
                let (remote, origin, force) = fields().ok_or_else(|| self.short())?;
                self.advance_origin(origin, remote, force != 0);
                Ok(())
            }
            replication_origin::DROP => {
                let origin = data.u16().ok_or_else(|| self.short())?;
                if self.head.origins.remove(&origin).is_some() {
                    self.sink.put(Key::replication_origin(origin), self.end, Value::Tombstone);
                }
                Ok(())
            }
            _ => Err(self.unknown()),
        }
    }

    /// replorigin_advance (replication/logical/origin.c): only an explicit set turns an origin back.
    pub fn advance_origin(&mut self, origin: u16, remote: Lsn, force: bool) {
        let known = self.head.origins.get(&origin).map_or(Lsn::INVALID, |lsns| lsns.0);
        if !force && remote <= known {
            return;
        }
        self.head.origins.insert(origin, (remote, self.end));
        let mut blob = remote.0.to_le_bytes().to_vec();
        blob.extend_from_slice(&self.end.0.to_le_bytes());
        self.sink.put(Key::replication_origin(origin), self.end, Value::Blob(Cow::Owned(blob)));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Initialises {
    Yes,
    No,
}
