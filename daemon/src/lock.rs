//! The lock on a data directory: two daemons never use one.

// Taken before a core runs: there is no ring yet to go through.
#![allow(clippy::disallowed_methods)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a process that was killed may take to be gone: its writes in flight still happen, and its ports
/// are still taken, until the kernel has taken its ring apart.
const PATIENCE: Duration = Duration::from_secs(5);

/// Holds a data directory for this process. The kernel releases it when the process ends, however it ends;
/// given to `ironpage_io::Config::pinned`, not before the last write of that process has ended.
#[derive(Debug, Clone)]
pub struct DirLock {
    file: Arc<File>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    #[error("data directory {}: another process uses it (its lock file {} is held); stop that one, or give this one another --dir", dir.display(), file.display())]
    Held { dir: PathBuf, file: PathBuf },
    #[error("data directory {}: {what}: {error}; create it, or make it writable for this user", dir.display())]
    Unusable { dir: PathBuf, what: &'static str, error: std::io::Error },
}

impl DirLock {
    /// Creates `dir` if it is missing and takes its lock, `dir/lock`. Waits some seconds for a process that
    /// is ending. Blocking: for the start only.
    pub fn acquire(dir: &Path) -> Result<DirLock, LockError> {
        DirLock::acquire_within(dir, PATIENCE)
    }

    /// The lock file, for `ironpage_io::Config::pinned`.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    fn acquire_within(dir: &Path, patience: Duration) -> Result<DirLock, LockError> {
        let unusable = |what| move |error| LockError::Unusable { dir: dir.to_path_buf(), what, error };
        std::fs::create_dir_all(dir).map_err(unusable("cannot be created"))?;
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(unusable("its lock file cannot be opened"))?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { dir: dir.to_path_buf(), file: path }),
                Err(TryLockError::Error(error)) => return Err(unusable("its lock file cannot be locked")(error)),
            }
        }
        // For people only: which process to look for. It may stay empty on a full disk.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(DirLock { file: Arc::new(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_is_in_the_way() {
        let dir = std::env::temp_dir().join(format!("ironpage-lock-{}", std::process::id()));
        let held = DirLock::acquire(&dir).unwrap();
        let error = DirLock::acquire_within(&dir, Duration::from_millis(10)).unwrap_err();
        assert!(matches!(error, LockError::Held { .. }) && error.to_string().contains("--dir"));
        drop(held);
        DirLock::acquire(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
