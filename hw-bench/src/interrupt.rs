//! Ctrl-C and kill: noted, so that what is under way ends as an error and everything that was made is removed.

use anyhow::ensure;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    ASKED.store(true, Ordering::SeqCst);
}

/// From here on SIGINT, SIGTERM and SIGHUP are only noted.
pub fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the zeroed sigaction has an empty mask and no flags; `note` only stores to an atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// An error once the user wants an end. For loops.
pub fn check() -> anyhow::Result<()> {
    ensure!(!asked(), "interrupted");
    Ok(())
}
