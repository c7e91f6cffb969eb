//! Bytes of a delta: a kind, then fields, little-endian and packed.
//!
//! ```text
//! | kind: 7 bits, initialises: 1 bit | fields of that kind ... |
//! ```
//!
//! The LSN and the block number stand in the key of whoever stores the delta and are not repeated.

use crate::error::RedoError;

/// In the first byte: the page before does not matter.
const INITIALISES: u8 = 0x80;

/// What a delta does. The number is its first byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    Image = 1,
    HeapInsert = 2,
    HeapMultiInsert = 3,
    HeapDelete = 4,
    HeapUpdateOld = 5,
    HeapUpdate = 6,
    HeapLock = 7,
    HeapLockUpdated = 8,
    HeapConfirm = 9,
    HeapInplace = 10,
    HeapPrune = 11,
    HeapVacuum = 12,
    HeapFreeze = 13,
    HeapVisible = 14,
    IndexInsert = 20,
    BtreeInsertPosting = 21,
    BtreeClearIncompleteSplit = 22,
    BtreeMeta = 23,
    BtreePage = 24,
    BtreeSplitLeft = 25,
    BtreeSibling = 26,
    BtreeDedup = 27,
    BtreeDelete = 28,
    BtreeHalfDeadParent = 29,
    BtreeDeletedPage = 30,
    HashPage = 40,
    HashOpaque = 41,
    HashBitmap = 42,
    HashBit = 43,
    HashMove = 44,
    HashDelete = 45,
    HashMeta = 46,
    HashMetaBitmap = 47,
    HashMetaTuples = 48,
    HashMetaOverflow = 49,
    HashMetaFirstFree = 50,
    HashMetaSplit = 51,
    Sequence = 60,
}

impl Kind {
    pub const ALL: [Kind; 38] = [
        Kind::Image,
        Kind::HeapInsert,
        Kind::HeapMultiInsert,
        Kind::HeapDelete,
        Kind::HeapUpdateOld,
        Kind::HeapUpdate,
        Kind::HeapLock,
        Kind::HeapLockUpdated,
        Kind::HeapConfirm,
        Kind::HeapInplace,
        Kind::HeapPrune,
        Kind::HeapVacuum,
        Kind::HeapFreeze,
        Kind::HeapVisible,
        Kind::IndexInsert,
        Kind::BtreeInsertPosting,
        Kind::BtreeClearIncompleteSplit,
        Kind::BtreeMeta,
        Kind::BtreePage,
        Kind::BtreeSplitLeft,
        Kind::BtreeSibling,
        Kind::BtreeDedup,
        Kind::BtreeDelete,
        Kind::BtreeHalfDeadParent,
        Kind::BtreeDeletedPage,
        Kind::HashPage,
        Kind::HashOpaque,
        Kind::HashBitmap,
        Kind::HashBit,
        Kind::HashMove,
        Kind::HashDelete,
        Kind::HashMeta,
        Kind::HashMetaBitmap,
        Kind::HashMetaTuples,
        Kind::HashMetaOverflow,
        Kind::HashMetaFirstFree,
        Kind::HashMetaSplit,
        Kind::Sequence,
    ];

    /// Kinds by number; a table instead of a search, since every read of a delta asks.
    const BY_NUMBER: [Option<Kind>; 128] = {
        let mut table = [None; 128];
        let mut at = 0;
        while at < Kind::ALL.len() {
            table[Kind::ALL[at] as usize] = Some(Kind::ALL[at]);
            at += 1;
        }
        table
    };

    /// The kind of an encoded delta.
    pub fn of(delta: &[u8]) -> Result<Kind, RedoError> {
        let first = *delta.first().ok_or(RedoError::Delta("it is empty"))?;
        let number = first & !INITIALISES;
        Kind::BY_NUMBER[usize::from(number)].ok_or(RedoError::UnknownKind(number))
    }
}

/// Whether the page after this delta does not depend on the page before it.
pub fn initialises(delta: &[u8]) -> bool {
    delta.first().is_some_and(|first| first & INITIALISES != 0)
}

/// Writes one delta behind what is in `out`.
pub struct DeltaWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> DeltaWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>, kind: Kind) -> DeltaWriter<'a> {
        out.push(kind as u8);
        DeltaWriter { out }
    }

    /// One that starts its page anew.
    pub fn initialising(out: &'a mut Vec<u8>, kind: Kind) -> DeltaWriter<'a> {
        out.push(kind as u8 | INITIALISES);
        DeltaWriter { out }
    }

    /// All fields are written; an encoder's answer.
    pub fn done(self) -> Option<()> {
        Some(())
    }

    pub fn u8(self, value: u8) -> Self {
        self.out.push(value);
        self
    }

    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }
}

/// Reads the fields of a delta.
pub struct Fields<'a> {
    rest: &'a [u8],
}

const SHORT: RedoError = RedoError::Delta("it is shorter than its fields");

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], RedoError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RedoError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, RedoError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, RedoError> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, RedoError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, RedoError> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn offsets(&mut self, count: usize) -> Result<Offsets<'a>, RedoError> {
        self.take(count * 2).map(Offsets)
    }

    /// All that is left, as offsets.
    pub fn rest_offsets(&mut self) -> Result<Offsets<'a>, RedoError> {
        if !self.rest.len().is_multiple_of(2) {
            return Err(RedoError::Delta("its offset numbers are no whole number"));
        }
        self.offsets(self.rest.len() / 2)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), RedoError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RedoError::Delta("it is longer than its fields")) }
    }
}

/// Offset numbers, as they stand in a record and in a delta.
#[derive(Clone, Copy)]
pub struct Offsets<'a>(&'a [u8]);

impl<'a> Offsets<'a> {
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, at: usize) -> Option<u16> {
        let two = self.0.get(at * 2..at * 2 + 2)?;
        Some(u16::from_le_bytes([two[0], two[1]]))
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator + 'a {
        self.0.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_number_and_no_other() {
        for number in 0..=255u8 {
            let known = Kind::ALL.into_iter().find(|kind| *kind as u8 == number & !INITIALISES);
            assert_eq!(Kind::of(&[number]).ok(), known);
            assert_eq!(initialises(&[number]), number >= 0x80);
        }
        assert_eq!(Kind::of(&[]), Err(RedoError::Delta("it is empty")));
    }

    #[test]
    fn fields_come_as_they_went() {
        let mut out = Vec::new();
        DeltaWriter::new(&mut out, Kind::Image).u8(1).u16(2).u32(3).u64(4).bytes(b"ab").u16(7);
        let mut fields = Fields::new(&out[1..]);
        assert_eq!((fields.u8(), fields.u16(), fields.u32(), fields.u64()), (Ok(1), Ok(2), Ok(3), Ok(4)));
        assert_eq!(fields.take(2), Ok(&b"ab"[..]));
        assert!(fields.end().is_err() && !fields.is_empty());
        assert_eq!(fields.rest_offsets().unwrap().iter().collect::<Vec<_>>(), [7]);
        assert!(fields.end().is_ok() && fields.u8() == Err(SHORT));
    }
}
