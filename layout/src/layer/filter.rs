//! A Bloom filter of a layer's keys: one 64-bit word per key, four bits in it.

use super::LayerError;
use crate::crc::crc32c;
use crate::key::KEY_SIZE;

/// Filter bits per key; about 2 % of the keys a layer lacks pass.
const BITS_PER_KEY: usize = 10;

/// Hash of an encoded key, for the filter and for slots. Part of the format: it never changes.
///
/// CRC-32C, spread over 64 bits by the finaliser of MurmurHash3.
pub fn hash(key: &[u8; KEY_SIZE]) -> u64 {
    let mut h = u64::from(crc32c(key));
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// Says of a key that it is certainly not in the layer, or that it may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    pub fn new(keys: usize) -> Filter {
        Filter { words: vec![0; (keys * BITS_PER_KEY).div_ceil(64).max(1)] }
    }

    fn place(hash: u64, words: usize) -> (usize, u64) {
        let word = ((hash >> 32) * words as u64) >> 32;
        let mask = (0..4).fold(0, |mask, i| mask | 1 << ((hash >> (6 * i)) & 63));
        (word as usize, mask)
    }

    pub fn insert(&mut self, hash: u64) {
        let (word, mask) = Filter::place(hash, self.words.len());
        self.words[word] |= mask;
    }

    pub fn may_hold(&self, hash: u64) -> bool {
        let (word, mask) = Filter::place(hash, self.words.len());
        self.words[word] & mask == mask
    }

    pub fn words(&self) -> usize {
        self.words.len()
    }

    pub fn encode(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `bytes` are the whole section, `crc` what the header says of it.
    pub fn decode(bytes: &[u8], offset: u64, crc: u32) -> Result<Filter, LayerError> {
        let found = crc32c(bytes);
        if found != crc {
            return Err(LayerError::BadCrc { what: "filter", offset, expected: crc, found });
        }
        let (words, rest) = bytes.as_chunks::<8>();
        if words.is_empty() || !rest.is_empty() {
            return Err(LayerError::Malformed { what: "filter", offset, why: "not a whole number of words" });
        }
        Ok(Filter { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn holds_every_key_and_few_others() {
        let hash_of = |block| hash(&Key { block, ..Key::MIN }.encode());
        let mut filter = Filter::new(10_000);
        (0..10_000).for_each(|block| filter.insert(hash_of(block)));
        assert!((0..10_000).all(|block| filter.may_hold(hash_of(block))));
        let wrong = (10_000..110_000).filter(|block| filter.may_hold(hash_of(*block))).count();
        assert!(wrong < 3_000, "{wrong} of 100000");
        let bytes = filter.encode();
        assert_eq!(Filter::decode(&bytes, 0, crc32c(&bytes)), Ok(filter));
    }
}
