//! WAL for the simulation: records of a length byte and a body that no two leaders write alike.

use super::random::Random;
use ironpage_layout::{Lsn, Term};

/// Where the timeline starts.
pub const START: Lsn = Lsn(16);

/// A run of WAL from `START` or from a term's start on.
#[derive(Clone, Debug)]
pub struct Wal {
    pub base: Lsn,
    pub bytes: Vec<u8>,
}

impl Wal {
    pub fn new(base: Lsn) -> Wal {
        Wal { base, bytes: Vec::new() }
    }

    pub fn end(&self) -> Lsn {
        self.base + self.bytes.len() as u64
    }

    /// `from` and `to` must lie within.
    pub fn range(&self, from: Lsn, to: Lsn) -> &[u8] {
        &self.bytes[from.since(self.base) as usize..to.since(self.base) as usize]
    }

    pub fn cut(&mut self, to: Lsn) {
        self.bytes.truncate(to.since(self.base) as usize);
    }

    pub fn push_record(&mut self, term: Term, random: &mut Random) {
        let length = random.between(2, 60) as usize;
        self.bytes.push(length as u8);
        self.bytes.push(term.0 as u8);
        self.bytes.extend((2..length).map(|_| random.next() as u8));
    }

    /// End of the last whole record at or before `end`. `base` must be a record's start.
    pub fn record_end(&self, end: Lsn) -> Lsn {
        let bytes = self.range(self.base, end);
        let mut at = 0;
        while let Some(length) = bytes.get(at).map(|byte| *byte as usize) {
            if at + length > bytes.len() {
                break;
            }
            at += length;
        }
        self.base + at as u64
    }
}
