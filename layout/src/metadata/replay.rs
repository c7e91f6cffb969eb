//! Reading a journal: its batches, what a power loss left of the last one, and the present they make.

use super::MetadataError;
use super::batch::{BATCH_HEAD_SIZE, Batch, BatchHead, FILE_HEAD_SIZE, FileHead};
use super::record::{BranchRecord, Record, TenantRecord};
use crate::id::{TenantId, TimelineId};
use std::collections::BTreeMap;

/// What a device writes wholly or not at all.
const SECTOR: usize = 512;

/// The end of a journal whose last write never finished, so that nobody was told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn {
    /// What lies before is whole.
    pub offset: u64,
    /// What is to be cut off.
    pub bytes: u64,
}

/// The batches of a journal, in order.
#[derive(Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    at: usize,
    next_sequence: u64,
    torn: Option<Torn>,
}

impl<'a> Batches<'a> {
    /// `bytes` are the whole file.
    pub fn new(bytes: &'a [u8]) -> Result<Batches<'a>, MetadataError> {
        let head = FileHead::decode(bytes)?;
        Ok(Batches { bytes, at: FILE_HEAD_SIZE, next_sequence: head.first_sequence, torn: None })
    }

    /// The next batch; `None` at the end, be it torn or not.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, MetadataError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() || self.torn.is_some() {
            return Ok(None);
        }
        let offset = self.at as u64;
        let damaged = |why: String| MetadataError::Damaged { offset, why };
        let Some(head) = BatchHead::decode(rest) else {
            return self.tail(rest, BATCH_HEAD_SIZE, "a batch's head cannot be read");
        };
        if head.sequence != self.next_sequence {
            return Err(damaged(format!("batch {} where {} is due", head.sequence, self.next_sequence)));
        }
        let length = BATCH_HEAD_SIZE + head.length;
        let Some(body) = rest.get(BATCH_HEAD_SIZE..length).filter(|body| head.is_of(body)) else {
            return self.tail(rest, length, "the CRC of a batch is wrong");
        };
        let records = head.records(body, offset + BATCH_HEAD_SIZE as u64)?;
        self.at += length;
        self.next_sequence += 1;
        Ok(Some(Batch { offset, sequence: head.sequence, records }))
    }

    /// Tells the rest of a write that never ended from damage to one that did. A write that did not end left
    /// the file short, or a sector or its end as it was, which is zeros, and nothing follows it. `length` is what the batch
    /// should have, as far as is known.
    fn tail(&mut self, rest: &[u8], length: usize, why: &str) -> Result<Option<Batch>, MetadataError> {
        let offset = self.at as u64;
        let later = (1..rest.len())
            .find(|at| rest.get(*at..).and_then(BatchHead::decode).is_some_and(|head| head.sequence > self.next_sequence));
        if let Some(later) = later {
            let why = format!("{why}, and another batch follows at offset {}", offset + later as u64);
            return Err(MetadataError::Damaged { offset, why });
        }
        if rest.len() >= length && !has_unwritten(rest, self.at) {
            return Err(MetadataError::Damaged { offset, why: format!("{why}, although all of it was written") });
        }
        self.torn = Some(Torn { offset, bytes: rest.len() as u64 });
        Ok(None)
    }

    /// Where the whole batches end.
    pub fn end(&self) -> u64 {
        self.at as u64
    }

    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// What follows the last whole batch, once [`Batches::next_batch`] has given `None`.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }
}

/// Whether part of a sector is as it was before anything was written to it, zeros: all of what `bytes`, from `offset`
/// of the file on, have of it, or its end, for a write that went out in pieces, or the first byte of all, which is
/// that of a batch's magic.
fn has_unwritten(bytes: &[u8], offset: usize) -> bool {
    if bytes.first() == Some(&0) {
        return true;
    }
    let (first, rest) = bytes.split_at((SECTOR - offset % SECTOR).min(bytes.len()));
    let mut parts = std::iter::once(first).chain(rest.chunks(SECTOR)).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        if part.iter().all(|byte| *byte == 0) || !is_last && part.last() == Some(&0) {
            return true;
        }
    }
    false
}

/// The present: all tenants and branches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalogue {
    pub tenants: BTreeMap<TenantId, TenantRecord>,
    pub branches: BTreeMap<(TenantId, TimelineId), BranchRecord>,
}

impl Catalogue {
    /// Takes a change. Whether it makes sense is its writer's business.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Tenant(tenant) => {
                self.tenants.insert(tenant.id, tenant.clone());
            }
            Record::TenantGone(id) => {
                self.tenants.remove(id);
            }
            Record::Branch(branch) => {
                self.branches.insert((branch.tenant, branch.timeline), branch.clone());
            }
            Record::BranchGone(tenant, timeline) => {
                self.branches.remove(&(*tenant, *timeline));
            }
        }
    }
}

/// A journal that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journal {
    pub catalogue: Catalogue,
    /// Where the next batch goes, and its sequence.
    pub end: u64,
    pub next_sequence: u64,
    pub torn: Option<Torn>,
}

/// Reads a whole journal; for whoever only wants to know. `bytes` are the file.
pub fn read(bytes: &[u8]) -> Result<Journal, MetadataError> {
    let mut batches = Batches::new(bytes)?;
    let mut catalogue = Catalogue::default();
    while let Some(batch) = batches.next_batch()? {
        batch.records.iter().for_each(|record| catalogue.apply(record));
    }
    Ok(Journal { catalogue, end: batches.end(), next_sequence: batches.next_sequence(), torn: batches.torn() })
}
