//! The codec for C: pages.c declares these.

use super::codec::{self, REPLY_BYTES_MAX, Reply, Version};
use crate::cache::BlockKey;
use crate::{Status, guard};
use ironpage_layout::id::{TenantId, Term, TimelineId};
use std::slice;

/// A decoded reply. `IronpageReply` in pages.c.
#[repr(C)]
pub struct FlatReply {
    /// 1 welcome, 2 page, 3 ingest status, 4 error.
    pub kind: u32,
    /// Of an error: its `ErrorCode`.
    pub code: u32,
    pub request_id: u64,
    pub term: u64,
    /// State served; of an ingest status the last record.
    pub lsn: u64,
    pub disk_consistent_lsn: u64,
    pub relation_blocks: u32,
    pub slow_down: u32,
    /// Bytes of input this reply took.
    pub taken: u32,
    /// Of an error: 1 if the request may be sent again unchanged.
    pub retryable: u32,
    /// Of an error, or of bytes that are no reply: what to tell people, with a zero behind it.
    pub message: [u8; 512],
}

fn put_message(message: &mut [u8; 512], text: &str) {
    let length = text.len().min(message.len() - 1);
    message[..length].copy_from_slice(&text.as_bytes()[..length]);
    message[length] = 0;
}

/// # Safety
/// `out` has room for `room` bytes.
unsafe fn copy_out(bytes: &[u8], out: *mut u8, room: u32) -> Result<i32, Status> {
    if bytes.len() > room as usize {
        return Err(Status::Full);
    }
    // SAFETY: the caller's promise, and the check above.
    unsafe { out.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(bytes.len() as i32)
}

/// Bytes of buffer that hold any reply.
#[unsafe(no_mangle)]
pub extern "C" fn ironpage_rs_reply_bytes_max() -> u32 {
    REPLY_BYTES_MAX as u32
}

/// # Safety
/// `tenant` and `timeline` point to 16 bytes, `out` to `room`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_encode_hello(
    tenant: *const [u8; 16],
    timeline: *const [u8; 16],
    system_id: u64,
    postgres_version: u32,
    term: u64,
    out: *mut u8,
    room: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let bytes = codec::encode_hello(TenantId(*tenant), TimelineId(*timeline), system_id, postgres_version, Term(term));
        copy_out(&bytes, out, room)
    })
}

/// # Safety
/// `key` is a key, `out` points to `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_encode_get_page(
    request_id: u64,
    term: u64,
    key: *const BlockKey,
    request_lsn: u64,
    not_modified_since: u64,
    wait_ms_max: u32,
    out: *mut u8,
    room: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let version = Version { request_lsn, not_modified_since };
        copy_out(&codec::encode_get_page(request_id, Term(term), &*key, version, wait_ms_max), out, room)
    })
}

/// # Safety
/// `out` points to `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_encode_ingest_status(
    request_id: u64,
    term: u64,
    wait_for: u64,
    wait_ms_max: u32,
    out: *mut u8,
    room: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { copy_out(&codec::encode_ingest_status(request_id, Term(term), wait_for, wait_ms_max), out, room) })
}

/// Decodes the first reply of `length` bytes. A page is copied to `page`. `Status::Missing` if more bytes are needed,
/// `Status::Malformed`, with a message, if these can never be one.
///
/// # Safety
/// `bytes` points to `length` bytes, `page` to 8192, `reply` to a reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_decode_reply(bytes: *const u8, length: u32, page: *mut u8, reply: *mut FlatReply) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe {
        let flat = &mut *reply;
        let next = match codec::decode_reply(slice::from_raw_parts(bytes, length as usize)) {
            Ok(next) => next.ok_or(Status::Missing)?,
            Err(error) => {
                put_message(&mut flat.message, &error.to_string());
                return Err(Status::Malformed);
            }
        };
        let (request_id, term, reply, taken) = next;
        flat.request_id = request_id;
        flat.term = term.0;
        flat.taken = taken as u32;
        match reply {
            Reply::Welcome => flat.kind = 1,
            Reply::Page { lsn, relation_blocks, slow_down, page: bytes } => {
                flat.kind = 2;
                flat.lsn = lsn;
                flat.relation_blocks = relation_blocks;
                flat.slow_down = slow_down.into();
                page.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            Reply::Ingest { last_record_lsn, disk_consistent_lsn } => {
                flat.kind = 3;
                flat.lsn = last_record_lsn;
                flat.disk_consistent_lsn = disk_consistent_lsn;
            }
            Reply::Error(error) => {
                flat.kind = 4;
                flat.code = error.code as u32;
                flat.retryable = codec::retryable(error.code).into();
                put_message(&mut flat.message, &error.message);
            }
        }
        Ok(0)
    })
}
