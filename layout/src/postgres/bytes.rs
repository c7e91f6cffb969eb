//! Little-endian fields out of bytes that may be cut short.

/// Reads fields one after the other; `None` once the bytes have run out.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, taken: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.taken
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.taken.checked_add(length)?;
        let bytes = self.bytes.get(self.taken..end)?;
        self.taken = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Skips to the next multiple of `to`, counted from the first byte; `to` is a power of two.
    pub fn align(&mut self, to: usize) -> Option<()> {
        let aligned = self.taken.checked_add(to - 1)? & !(to - 1);
        self.take(aligned - self.taken).map(|_| ())
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// `count` words of 32 bits.
    pub fn u32s(&mut self, count: usize) -> Option<Vec<u32>> {
        let bytes = self.take(count.checked_mul(4)?)?;
        Some(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_end_without_a_panic() {
        let mut reader = Reader::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!((reader.u8(), reader.u16(), reader.u32()), (Some(1), Some(2), Some(3)));
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.rest(), &[9]);
        assert_eq!(reader.align(8), Some(()));
        assert_eq!(reader.u8(), None);
        assert_eq!(reader.u32s(usize::MAX), None);
        assert_eq!(reader.take(usize::MAX), None);
    }
}
