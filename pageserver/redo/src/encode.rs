//! From a record and one of its block references to the delta of that block.

use crate::error::EncodeError;
use crate::image;
use crate::version::{HintBits, Postgres};
use ironpage_layout::postgres::bytes::Reader;
use ironpage_layout::postgres::wal::DecodedRecord;
use ironpage_layout::postgres::wal::record::Block;

/// Who redoes a block of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoded {
    /// The delta that was appended.
    Native,
    /// Nobody: the record references the page and leaves it as it is.
    Unchanged,
    /// A stock Postgres: the record has to be kept whole.
    Worker,
}

/// A record, and the block reference a delta is made for.
pub(crate) struct Source<'a> {
    pub record: &'a DecodedRecord<'a>,
    pub block: &'a Block<'a>,
    pub hint_bits: HintBits,
}

impl<'a> Source<'a> {
    pub fn info(&self) -> u8 {
        self.record.rmgr_info()
    }

    pub fn main(&self) -> Reader<'a> {
        Reader::new(self.record.main_data)
    }

    /// The outcome for a record whose delta is for block `id` and could be made if its fields are there.
    pub fn only_block(&self, id: u8, encoded: Option<()>) -> Result<Encoded, EncodeError> {
        if self.block.id != id {
            return Err(EncodeError("it references a block that records of its type do not"));
        }
        encoded.map(|()| Encoded::Native).ok_or(EncodeError("its data is shorter than its fields"))
    }
}

/// Appends to `out` the delta that `record` means for the page of `block`, one of its block references.
///
/// Unless the outcome is [`Encoded::Native`], what was appended is worthless and the caller's to cut off.
pub fn encode(
    postgres: &Postgres,
    hint_bits: HintBits,
    record: &DecodedRecord<'_>,
    block: &Block<'_>,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    let Some(rmgr) = record.rmgr() else { return Ok(Encoded::Worker) };
    let source = Source { record, block, hint_bits };
    let known = postgres.record_type(rmgr, record.rmgr_info());
    if let Some(found) = block.applied_image() {
        // Redo of a page that is made anew goes on after the image, in ways of its own.
        if block.will_init {
            return Ok(Encoded::Worker);
        }
        image::encode(&found, out)?;
        // So does hash's redo of a few others.
        return match known {
            Some(_) if rmgr == ironpage_layout::postgres::rmgr::Rmgr::Hash => {
                crate::hash::encode_after_image(&source, out).map(|()| Encoded::Native)
            }
            _ => Ok(Encoded::Native),
        };
    }
    match known {
        Some(known) => {
            let start = out.len();
            let encoded = (known.encode)(&source, out)?;
            let anew = out.get(start..).is_some_and(crate::delta::initialises);
            // Recovery checks the same (XLogReadBufferForRedoExtended), and ingest relies on it.
            if encoded == Encoded::Native && block.will_init && !anew {
                return Err(EncodeError("it says that it starts a page anew, and does not"));
            }
            Ok(encoded)
        }
        None => Ok(Encoded::Worker),
    }
}
