//! Where versions lie in memory: chunks that are only ever appended to, freed together.

use ironpage_layout::Lsn;

/// Chunks grow with the arena between these, so that a small one stays small.
const CHUNK_BYTES_MIN: usize = 16 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// older: 8, lsn: 8, length: 4, before the bytes.
const HEADER_SIZE: usize = 20;

/// Place of a version: chunk number in the upper half, offset in the lower.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(u64);

impl Address {
    pub const NONE: Address = Address(u64::MAX);

    fn chunk(self) -> usize {
        (self.0 >> 32) as usize
    }

    fn offset(self) -> usize {
        self.0 as u32 as usize
    }
}

/// A version as it lies in the arena.
pub struct Version<'a> {
    pub older: Address,
    pub lsn: Lsn,
    pub bytes: &'a [u8],
}

#[derive(Default)]
pub struct Arena {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Arena {
    pub fn push(&mut self, older: Address, lsn: Lsn, bytes: &[u8]) -> Address {
        let needed = HEADER_SIZE + bytes.len();
        let length = u32::try_from(bytes.len()).expect("Postgres's values are below 4 GiB (XLogRecordMaxSize)");
        if self.chunks.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < needed) {
            let capacity = self.bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(needed);
            self.chunks.push(Vec::with_capacity(capacity));
            self.bytes += capacity;
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let address = Address((number as u64) << 32 | chunk.len() as u64);
        chunk.extend_from_slice(&older.0.to_le_bytes());
        chunk.extend_from_slice(&lsn.0.to_le_bytes());
        chunk.extend_from_slice(&length.to_le_bytes());
        chunk.extend_from_slice(bytes);
        address
    }

    /// `None` for `Address::NONE`.
    pub fn get(&self, address: Address) -> Option<Version<'_>> {
        let at = self.chunks.get(address.chunk())?.get(address.offset()..)?;
        let (older, at) = at.split_first_chunk::<8>()?;
        let (lsn, at) = at.split_first_chunk::<8>()?;
        let (length, at) = at.split_first_chunk::<4>()?;
        Some(Version {
            older: Address(u64::from_le_bytes(*older)),
            lsn: Lsn(u64::from_le_bytes(*lsn)),
            bytes: at.get(..u32::from_le_bytes(*length) as usize)?,
        })
    }

    pub fn set_older(&mut self, address: Address, older: Address) {
        let offset = address.offset();
        self.chunks[address.chunk()][offset..offset + 8].copy_from_slice(&older.0.to_le_bytes());
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
