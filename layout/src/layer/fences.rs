//! The first key of each index block.

use super::LayerError;
use crate::crc::crc32c;
use crate::key::KEY_SIZE;

/// Tells which index block would hold a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fences {
    keys: Vec<[u8; KEY_SIZE]>,
}

impl Fences {
    /// `bytes` are the whole section, `crc` what the header says of it.
    pub fn decode(bytes: &[u8], offset: u64, crc: u32) -> Result<Fences, LayerError> {
        let found = crc32c(bytes);
        if found != crc {
            return Err(LayerError::BadCrc { what: "fences", offset, expected: crc, found });
        }
        let (keys, rest) = bytes.as_chunks::<KEY_SIZE>();
        let sorted = keys.is_sorted_by(|a, b| a < b);
        if keys.is_empty() || !rest.is_empty() || !sorted {
            return Err(LayerError::Malformed { what: "fences", offset, why: "none, cut short, or out of order" });
        }
        Ok(Fences { keys: keys.to_vec() })
    }

    /// Number of the only index block that may hold `key`; `None` if `key` is before the first.
    pub fn block_of(&self, key: &[u8; KEY_SIZE]) -> Option<u32> {
        self.keys.partition_point(|fence| fence <= key).checked_sub(1).map(|block| block as u32)
    }

    /// Numbers of the index blocks that may hold keys from `first` to `last` inclusive.
    pub fn blocks_of(&self, first: &[u8; KEY_SIZE], last: &[u8; KEY_SIZE]) -> std::ops::Range<u32> {
        let start = self.block_of(first).unwrap_or(0);
        start..self.block_of(last).map_or(start, |block| block + 1)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a layer has keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn first(&self) -> Option<&[u8; KEY_SIZE]> {
        self.keys.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_block() {
        let key = |n: u8| [n; KEY_SIZE];
        let bytes = [key(2), key(5), key(9)].concat();
        let fences = Fences::decode(&bytes, 0, crc32c(&bytes)).unwrap();
        let found: Vec<_> = [1, 2, 4, 5, 200].map(|n| fences.block_of(&key(n))).into();
        assert_eq!(found, [None, Some(0), Some(0), Some(1), Some(2)]);
        assert_eq!(fences.blocks_of(&key(0), &key(1)), 0..0);
        assert_eq!(fences.blocks_of(&key(0), &key(5)), 0..2);
        assert_eq!(fences.blocks_of(&key(6), &key(7)), 1..2);
    }
}
