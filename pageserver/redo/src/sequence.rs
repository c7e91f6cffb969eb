//! Sequences (commands/sequence.c): each record has all of the page.

use crate::delta::{DeltaWriter, Fields, Kind};
use crate::encode::{Encoded, Source};
use crate::error::{EncodeError, RedoError};
use crate::page::{Page, Put, put_item, special, write};
use crate::planted;
use ironpage_layout::postgres::page::init;

/// SEQ_MAGIC.
const MAGIC: u32 = 0x1717;

/// seq_redo.
///
/// the tuple
pub fn apply(page: &mut Page, fields: &mut Fields<'_>) -> Result<(), RedoError> {
    let tuple = fields.rest();
    init(page, 4);
    let magic_at = special(page, 4)?;
    write(page, magic_at, &planted::value(Kind::Sequence, MAGIC).to_le_bytes())?;
    let at = put_item(page, tuple.len(), 1, Put::Between)?;
    write(page, at, tuple)
}

/// xl_seq_rec: the relation, then the tuple.
pub fn encode(source: &Source<'_>, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
    let tuple = source.record.main_data.get(12..);
    source.only_block(0, tuple.and_then(|tuple| DeltaWriter::initialising(out, Kind::Sequence).bytes(tuple).done()))
}
