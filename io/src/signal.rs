//! Being asked to stop.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::driver::{Handle, NO_OFFSET, Op};
use crate::error::{Errno, IoError};
use crate::executor::{Operation, Payload};

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM
    Terminate,
    /// SIGINT
    Interrupt,
}

struct Reading {
    info: Vec<u8>,
    handle: Handle,
}

impl Payload for Reading {}

/// Resolves at SIGTERM or SIGINT, which from the call on (not the first poll) are blocked for this
/// thread and those it starts later. Call it before starting threads: one that does not block them
/// takes the signal and the process dies of it. Children get the default back.
pub fn shutdown() -> impl Future<Output = Result<Signal, IoError>> {
    let handle = listen();
    async move { wait(handle?).await }
}

fn failed(operation: &'static str, errno: Errno) -> IoError {
    IoError::Signal { operation, errno }
}

fn listen() -> Result<Handle, IoError> {
    // SAFETY: sigemptyset initialises the set; the rest are plain system calls on it.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        let errno = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        if errno != 0 {
            return Err(failed("blocking SIGTERM and SIGINT", Errno(errno)));
        }
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(failed("listening for SIGTERM and SIGINT", Errno::last()));
    }
    // SAFETY: just created, owned by nobody else.
    Ok(Handle::kernel(unsafe { OwnedFd::from_raw_fd(fd) }))
}

async fn wait(mut handle: Handle) -> Result<Signal, IoError> {
    const INFO: usize = size_of::<libc::signalfd_siginfo>();
    loop {
        let mut info = vec![0; INFO];
        let op = Op::Read { fd: handle.raw(), buf: info.as_mut_ptr(), len: INFO as u32, offset: NO_OFFSET };
        // SAFETY: the payload owns the descriptor and the bytes, whose heap memory stays in place.
        let (outcome, payload) = unsafe { Operation::submit(op, Reading { info, handle }) }.await;
        match Errno::check(outcome.result) {
            // ssi_signo is the first field.
            Ok(INFO) => {
                return Ok(match payload.info.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as libc::c_int) {
                    Some(libc::SIGINT) => Signal::Interrupt,
                    _ => Signal::Terminate,
                });
            }
            Ok(_) => {}
            Err(errno) if errno.is_transient() => {}
            Err(errno) => return Err(failed("waiting for SIGTERM and SIGINT", errno)),
        }
        handle = payload.handle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, run, spawn, yield_now};

    #[test]
    fn a_signal_to_this_thread_resolves() {
        run(Config::default(), || async {
            for (number, signal) in [(libc::SIGTERM, Signal::Terminate), (libc::SIGINT, Signal::Interrupt)] {
                let waiting = spawn(shutdown());
                yield_now().await;
                // To this thread and not the process: the test harness' other threads do not block it.
                // SAFETY: plain system call with our own thread's id.
                unsafe { libc::pthread_kill(libc::pthread_self(), number) };
                assert_eq!(waiting.await.unwrap().unwrap(), signal);
            }
        })
        .unwrap();
    }
}
