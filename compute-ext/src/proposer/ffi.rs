//! The proposer as the C worker sees it. Declared in `../../shim/proposer.h`.

use super::{Identity, Work, Worker};
use crate::{Status, guard};
use ironpage_layout::Lsn;
use ironpage_layout::id::{TenantId, TimelineId};
use std::ffi::{CStr, c_char};

/// What a proposer is made of. Mirrors IronpageProposerConfig.
#[repr(C)]
pub struct CConfig {
    history: *const c_char,
    tenant: [u8; 16],
    timeline: [u8; 16],
    system_id: u64,
    postgres_version: u32,
    members: u32,
}

/// Mirrors IronpageProposerStatus.
#[repr(C)]
pub struct CStatus {
    commit_lsn: u64,
    commit_known: u64,
    everywhere: u64,
    quorum_heard_ms: u64,
    deadline_ms: u64,
    fenced_term: u64,
    broken: u32,
    padding: u32,
}

/// Mirrors IronpageProposerWork. `kind` is 0 for nothing, 1 for reading WAL, 2 for closing a connection.
#[repr(C)]
pub struct CWork {
    kind: u32,
    member: u32,
    begin: u64,
    length: u64,
}

/// Runs `body` on a proposer.
///
/// # Safety
/// `worker` must come from `ironpage_rs_proposer_new`, used by one thread at a time.
unsafe fn with(worker: *mut Worker, body: impl FnOnce(&mut Worker) -> Result<i32, Status>) -> i32 {
    // SAFETY: the caller's promise; a null is refused.
    match unsafe { worker.as_mut() } {
        Some(worker) => guard(|| body(worker)),
        None => Status::Missing as i32,
    }
}

/// Makes a proposer that continues the ticket's term. Null if the history is malformed or memory is out.
///
/// # Safety
/// `config` must be valid, its history a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_new(config: *const CConfig) -> *mut Worker {
    let mut made = std::ptr::null_mut();
    let status = guard(|| {
        // SAFETY: the caller's promise.
        let (config, history) = unsafe { (&*config, CStr::from_ptr((*config).history)) };
        let history = history.to_str().map_err(|_| Status::Malformed)?;
        let identity = Identity {
            tenant: TenantId(config.tenant),
            timeline: TimelineId(config.timeline),
            system_id: config.system_id,
            postgres_version: config.postgres_version,
        };
        let worker = Worker::new(history, identity, config.members as usize).map_err(|error| {
            eprintln!("ironpage: {error}");
            Status::Malformed
        })?;
        made = Box::into_raw(Box::new(worker));
        Ok(0)
    });
    if status < 0 { std::ptr::null_mut() } else { made }
}

/// # Safety
/// As for [`with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_connected(worker: *mut Worker, member: u32) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            worker.connected(member as usize);
            Ok(0)
        })
    }
}

/// # Safety
/// As for [`with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_disconnected(worker: *mut Worker, member: u32) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            worker.disconnected(member as usize);
            Ok(0)
        })
    }
}

/// Takes what came from a safekeeper. 1 if the connection has passed its greeting.
///
/// # Safety
/// As for [`with`]; `bytes` must hold `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_received(
    worker: *mut Worker,
    member: u32,
    bytes: *const u8,
    length: usize,
    now_ms: u64,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            worker.received(member as usize, std::slice::from_raw_parts(bytes, length), now_ms);
            Ok(i32::from(worker.sessions.get(member as usize).is_some_and(|session| session.greeted)))
        })
    }
}

/// Local WAL is flushed up to `end`.
///
/// # Safety
/// As for [`with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_wal(worker: *mut Worker, end: u64, now_ms: u64) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            worker.wal_available(Lsn(end), now_ms);
            Ok(0)
        })
    }
}

/// # Safety
/// As for [`with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_tick(worker: *mut Worker, now_ms: u64) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            worker.tick(now_ms);
            Ok(0)
        })
    }
}

/// The next thing to do; nothing else may be called before WAL that it asks for was supplied.
///
/// # Safety
/// As for [`with`]; `work` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_next(worker: *mut Worker, work: *mut CWork) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            *work = match worker.next_work() {
                None => CWork { kind: 0, member: 0, begin: 0, length: 0 },
                Some(Work::ReadWal { member, begin, length }) => {
                    CWork { kind: 1, member: member as u32, begin: begin.0, length: length as u64 }
                }
                Some(Work::Disconnect { member }) => CWork { kind: 2, member: member as u32, begin: 0, length: 0 },
            };
            Ok(0)
        })
    }
}

/// # Safety
/// As for [`with`]; `wal` must hold `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_supply(worker: *mut Worker, wal: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            let supplied = worker.supply(std::slice::from_raw_parts(wal, length));
            if supplied { Ok(0) } else { Err(Status::Missing) }
        })
    }
}

/// Bytes to send to a safekeeper, valid until the next call. Null if there are none.
///
/// # Safety
/// As for [`with`]; `length` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_output(worker: *mut Worker, member: u32, length: *mut usize) -> *const u8 {
    // SAFETY: the caller's promise.
    let unsent =
        unsafe { worker.as_ref() }.and_then(|worker| worker.sessions.get(member as usize)).map(|session| session.unsent());
    let unsent = unsent.unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe { *length = unsent.len() };
    if unsent.is_empty() { std::ptr::null() } else { unsent.as_ptr() }
}

/// So many bytes of the output were sent.
///
/// # Safety
/// As for [`with`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_sent(worker: *mut Worker, member: u32, bytes: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            worker.sessions.get_mut(member as usize).ok_or(Status::Missing)?.mark_sent(bytes);
            Ok(0)
        })
    }
}

/// # Safety
/// As for [`with`]; `status` must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_status(worker: *mut Worker, status: *mut CStatus) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            *status = CStatus {
                commit_lsn: worker.proposer.commit_lsn().0,
                commit_known: worker.proposer.commit_lsn_known().0,
                everywhere: worker.proposer.everywhere().0,
                quorum_heard_ms: worker.proposer.quorum_heard_at(),
                deadline_ms: worker.proposer.deadline_ms(),
                fenced_term: worker.fenced.0,
                broken: u32::from(worker.broken.is_some()),
                padding: 0,
            };
            Ok(0)
        })
    }
}

/// Copies the oldest line for the log into `buffer`, cut to fit, with a final zero. Returns its length, 0 if there is none.
///
/// # Safety
/// As for [`with`]; `buffer` must hold `size` bytes, at least one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironpage_rs_proposer_message(worker: *mut Worker, buffer: *mut u8, size: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        with(worker, |worker| {
            let message = worker.messages.pop_front().unwrap_or_default();
            let mut length = message.len().min(size - 1);
            while !message.is_char_boundary(length) {
                length -= 1;
            }
            std::ptr::copy_nonoverlapping(message.as_ptr(), buffer, length);
            *buffer.add(length) = 0;
            Ok(length as i32)
        })
    }
}
