//! The map for C: cache.h declares these. `base` is always the map's address; the caller holds the lock named at the
//! function of [`Map`] that is called.

use super::entry::{BlockKey, Entry, Written};
use super::map::Map;
use crate::pins::{self, Verdict, View};
use crate::{Status, guard};
use ironpage_layout::crc::crc32c;
use ironpage_layout::rel::PAGE_SIZE;
use std::sync::atomic::Ordering;

/// Names blocks of one relation fork, or of one database. `IronpageMatch` in cache.h.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Match {
    /// 0: any.
    pub tablespace: u32,
    pub database: u32,
    /// 0: any relation of the database; `fork` and `from_block` do not count then.
    pub relation: u32,
    pub fork: u32,
    pub from_block: u32,
}

impl Match {
    fn covers(&self, key: &BlockKey) -> bool {
        (self.tablespace == 0 || self.tablespace == key.tablespace)
            && self.database == key.database
            && (self.relation == 0 || (self.relation == key.relation && self.fork == key.fork && key.block >= self.from_block))
    }
}

/// Verdicts by number: 0 free, 1 to 6 the pins, 7 unacknowledged.
const VERDICTS: usize = 8;

fn verdict_number(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Free => 0,
        Verdict::Pinned(pin) => pin as usize,
        Verdict::Unacknowledged => VERDICTS - 1,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn ironpage_rs_map_size(bucket_count: u32, capacity: u32) -> u64 {
    Map::size(bucket_count, capacity) as u64
}

/// # Safety
/// As [`Map::create`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_create(base: *mut u8, bucket_count: u32, capacity: u32) -> i32 {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { Map::create(base, bucket_count, capacity) };
        Ok(0)
    })
}

/// # Safety
/// `base` is a map, `key` a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_partition(base: *mut u8, key: *const BlockKey) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(Map::at(base).partition_of(&*key) as i32) })
}

/// # Safety
/// `base` is a map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_count(base: *mut u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { Map::at(base).count() }
}

/// # Safety
/// `base` is a map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_buckets(base: *mut u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { Map::at(base).bucket_count() }
}

/// Copies the entry to `out` and notes the access. `Status::Missing` if the block is not valid.
///
/// # Safety
/// As [`Map::find`]; `out` has room for an entry.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_find(base: *mut u8, key: *const BlockKey, out: *mut Entry) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let map = Map::at(base);
        let entry = map.find(&*key).ok_or(Status::Missing)?;
        entry.touch();
        out.write(entry.snapshot());
        Ok(0)
    })
}

/// Copies the entry to `out` and leaves no trace of the access.
///
/// # Safety
/// As [`Map::find`]; `out` has room for an entry.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_peek(base: *mut u8, key: *const BlockKey, out: *mut Entry) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        out.write(Map::at(base).find(&*key).ok_or(Status::Missing)?.snapshot());
        Ok(0)
    })
}

/// # Safety
/// As [`Map::put`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_put(base: *mut u8, key: *const BlockKey, written: *const Written) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Map::at(base).put(&*key, *written).map(|()| 0).map_err(|_| Status::Full) })
}

/// 1 if the block was valid, 0 if not.
///
/// # Safety
/// As [`Map::remove`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_remove(base: *mut u8, key: *const BlockKey) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(Map::at(base).remove(&*key) as i32) })
}

/// Forgets what `which` covers in one bucket; the number of blocks forgotten.
///
/// # Safety
/// As [`Map::remove_if`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_remove_matching(base: *mut u8, bucket: u32, which: *const Match) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(Map::at(base).remove_if(bucket, usize::MAX, |entry| (*which).covers(&entry.key)) as i32) })
}

/// Copies what `which` covers in one bucket to `out`, `room` entries at most; how many there are in all.
///
/// # Safety
/// As [`Map::for_each`]; `out` has room for `room` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_matching(
    base: *mut u8,
    bucket: u32,
    which: *const Match,
    out: *mut Entry,
    room: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let mut found = 0;
        Map::at(base).for_each(bucket, |entry| {
            if (*which).covers(&entry.key) {
                if found < room {
                    out.add(found as usize).write(entry.snapshot());
                }
                found += 1;
            }
        });
        Ok(found as i32)
    })
}

/// One step of the clock: of the bucket's entries that were not accessed since the last turn, copies those that may be
/// dropped to `out`, and adds all to `tally`, by verdict. Returns how many were copied.
///
/// # Safety
/// As [`Map::for_each`]; `out` has room for `room` entries, `tally` is an array of `VERDICTS`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_map_sweep(
    base: *mut u8,
    bucket: u32,
    view: *const View,
    out: *mut Entry,
    room: u32,
    tally: *mut u64,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let tally = &mut *tally.cast::<[u64; VERDICTS]>();
        let mut copied = 0;
        Map::at(base).for_each(bucket, |entry| {
            if entry.accessed.swap(0, Ordering::Relaxed) != 0 {
                return;
            }
            let verdict = pins::verdict(entry, &*view);
            tally[verdict_number(verdict)] += 1;
            if verdict == Verdict::Free && copied < room {
                out.add(copied as usize).write(entry.snapshot());
                copied += 1;
            }
        });
        Ok(copied as i32)
    })
}

/// The verdict on an entry, as a number.
///
/// # Safety
/// Both point to what they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_verdict(entry: *const Entry, view: *const View) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(verdict_number(pins::verdict(&*entry, &*view)) as i32) })
}

/// The number of the pin that holds now, 0 for none.
///
/// # Safety
/// Both point to what they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_pin_now(entry: *const Entry, view: *const View) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(pins::pin_now(&*entry, &*view) as i32) })
}

/// The number of the pin that a page written by a backend has for as long as it is that copy.
///
/// # Safety
/// `page` points to 8192 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_standing_pin(key: *const BlockKey, page: *const u8) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(pins::standing_pin(&*key, &*page.cast::<[u8; PAGE_SIZE]>()) as i32) })
}

/// CRC-32C of a page.
///
/// # Safety
/// `page` points to 8192 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_page_crc(page: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    crc32c(unsafe { &*page.cast::<[u8; PAGE_SIZE]>() })
}
