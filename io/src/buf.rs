//! Page-aligned byte buffers, the only kind direct I/O takes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every buffer in bytes; enough for direct I/O on any device Linux serves.
pub const ALIGNMENT: usize = 4096;

/// Buffers of up to this size are kept for reuse.
const POOLED_BYTES_MAX: usize = 1 << 20;
/// What one thread keeps at most for reuse, over all sizes.
const POOL_BYTES_MAX: usize = 16 << 20;

/// An owned byte buffer aligned to [`ALIGNMENT`], handed to an operation by value and given back.
///
/// All of its capacity is always initialised memory, so [`set_len`](Self::set_len) is safe; after
/// growing by it the new bytes are whatever the buffer held before, not zeros.
pub struct IoBuf {
    memory: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: an IoBuf owns its memory like a Vec<u8>; nothing in it is tied to a thread.
unsafe impl Send for IoBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    /// An empty buffer that holds at least `capacity` bytes (rounded up to a power of two of pages,
    /// above 1 MiB to pages).
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = rounded(capacity);
        let memory = take_pooled(capacity).unwrap_or_else(|| allocate(capacity));
        Self { memory, len: 0, capacity }
    }

    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.len = len;
        buf.fill(0);
        buf
    }

    /// A buffer holding a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::with_capacity(bytes.len());
        buf.extend_from_slice(bytes);
        buf
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the length; the capacity bounds it. Bytes gained are initialised but unspecified.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} beyond capacity {}", self.capacity);
        self.len = len;
    }

    /// Shortens the buffer to `len` bytes; no effect if it is shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Grows or shrinks to `len` bytes, new bytes being `value`.
    pub fn resize(&mut self, len: usize, value: u8) {
        let old = self.len;
        if len > old {
            self.reserve(len - old);
            self.len = len;
            self[old..].fill(value);
        } else {
            self.len = len;
        }
    }

    /// Makes room for `additional` more bytes, moving to a larger buffer if needed.
    pub fn reserve(&mut self, additional: usize) {
        let wanted = self.len.checked_add(additional).expect("buffer length overflow");
        if wanted > self.capacity {
            let mut larger = Self::with_capacity(wanted.max(self.capacity * 2));
            larger.len = self.len;
            larger.copy_from_slice(self);
            *self = larger;
        }
    }

    /// Appends `bytes`, growing if needed.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let old = self.len;
        self.len += bytes.len();
        self[old..].copy_from_slice(bytes);
    }

    /// For the operation slab: the kernel reads or writes here while the slab owns the buffer.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

impl Deref for IoBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: memory holds capacity >= len initialised bytes, owned by self.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and &mut self makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for IoBuf {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl Default for IoBuf {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoBuf").field("len", &self.len).field("capacity", &self.capacity).finish()
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if !give_pooled(self.memory, self.capacity) {
            // SAFETY: allocated by `allocate` with this very layout, dropped once.
            unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) }
        }
    }
}

fn rounded(capacity: usize) -> usize {
    let capacity = capacity.max(ALIGNMENT);
    if capacity <= POOLED_BYTES_MAX { capacity.next_power_of_two() } else { capacity.next_multiple_of(ALIGNMENT) }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).expect("buffer larger than the address space")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity);
    // SAFETY: rounded() never gives a zero size.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Free buffers of this thread by size class: class i holds buffers of ALIGNMENT << i bytes.
#[derive(Default)]
struct Pool {
    classes: [Vec<NonNull<u8>>; (POOLED_BYTES_MAX / ALIGNMENT).ilog2() as usize + 1],
    bytes: usize,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, free) in self.classes.iter_mut().enumerate() {
            for memory in free.drain(..) {
                // SAFETY: class i holds only buffers allocated with this layout and owned by the pool.
                unsafe { dealloc(memory.as_ptr(), layout(ALIGNMENT << class)) }
            }
        }
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

fn class_of(capacity: usize) -> Option<usize> {
    (capacity <= POOLED_BYTES_MAX).then(|| (capacity / ALIGNMENT).ilog2() as usize)
}

fn take_pooled(capacity: usize) -> Option<NonNull<u8>> {
    let class = class_of(capacity)?;
    POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let memory = pool.classes[class].pop()?;
        pool.bytes -= capacity;
        Some(memory)
    })
    .ok()?
}

/// False if the thread's pool is full or already gone: the caller frees.
fn give_pooled(memory: NonNull<u8>, capacity: usize) -> bool {
    let Some(class) = class_of(capacity) else { return false };
    POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.bytes + capacity > POOL_BYTES_MAX {
            return false;
        }
        pool.classes[class].push(memory);
        pool.bytes += capacity;
        true
    })
    .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_reused() {
        let mut buf = IoBuf::with_capacity(8192);
        let first = buf.as_mut_ptr();
        assert_eq!(first as usize % ALIGNMENT, 0);
        assert_eq!((buf.len(), buf.capacity()), (0, 8192));
        buf.extend_from_slice(&[7; 100]);
        drop(buf);
        let mut again = IoBuf::zeroed(8000);
        assert_eq!(again.as_mut_ptr(), first);
        assert!(again.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn growing_keeps_the_content() {
        let mut buf = IoBuf::copy_of(b"abc");
        buf.extend_from_slice(&vec![1; 10_000]);
        assert_eq!((&buf[..3], buf.len(), buf[3]), (&b"abc"[..], 10_003, 1));
        buf.resize(20_000, 9);
        assert_eq!((buf[10_002], buf[10_003], buf[19_999]), (1, 9, 9));
        buf.truncate(2);
        assert_eq!(&buf[..], b"ab");
        let large = IoBuf::zeroed((2 << 20) + 1);
        assert_eq!(large.capacity(), (2 << 20) + ALIGNMENT);
    }

    #[test]
    #[should_panic(expected = "beyond capacity")]
    fn length_stays_within_capacity() {
        IoBuf::with_capacity(4096).set_len(4097);
    }
}
