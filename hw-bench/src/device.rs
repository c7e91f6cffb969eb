//! The raw limits: of page reads, 8 KiB O_DIRECT preads at random places of a file, one thread a client; of what is
//! durable, fdatasync.

use crate::interrupt;
use crate::latency::{Random, Summary, closed_loop};
use anyhow::{Context, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PAGE: usize = 8192;

/// Fills `path` with `bytes` of data that does not compress, synced.
pub fn make_file(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut random = Random::new(7);
    let mut chunk = vec![0u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        interrupt::check()?;
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&random.below(u64::MAX).to_le_bytes());
        }
        file.write_all(&chunk).with_context(|| format!("writing {}", path.display()))?;
    }
    file.sync_all().with_context(|| format!("syncing {}", path.display()))
}

/// Random reads of the file at a depth of `clients`.
pub fn random_reads(path: &Path, clients: usize, time: Duration) -> anyhow::Result<Summary> {
    let pages = std::fs::metadata(path)?.len() / PAGE as u64;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("opening {} for direct reads", path.display()))?;
    let start = |number| Ok((Random::new(number), vec![0u8; PAGE * 2]));
    closed_loop(clients, time, start, |(random, buffer)| {
        let aligned = buffer.as_mut_ptr().align_offset(4096);
        let target = &mut buffer[aligned..aligned + PAGE];
        let offset = random.below(pages) * PAGE as u64;
        // SAFETY: `target` is PAGE bytes that outlive the call; the descriptor is open.
        let read = unsafe { libc::pread(file.as_raw_fd(), target.as_mut_ptr().cast(), PAGE, offset as i64) };
        ensure!(read == PAGE as isize, "read of {} at {offset}: {}", path.display(), std::io::Error::last_os_error());
        Ok(())
    })
}

/// The raw limit of whatever is durable when it returns: appends of 4 KiB, each followed by fdatasync.
pub struct DurableWrites {
    path: PathBuf,
    file: File,
}

impl DurableWrites {
    pub fn create(path: &Path) -> anyhow::Result<DurableWrites> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(DurableWrites { path: path.into(), file })
    }

    /// One of them, and what it took.
    pub fn write(&self) -> anyhow::Result<Duration> {
        let asked = Instant::now();
        (&self.file).write_all(&[0x5A; 4096]).with_context(|| format!("writing {}", self.path.display()))?;
        self.file.sync_data().with_context(|| format!("syncing {}", self.path.display()))?;
        Ok(asked.elapsed())
    }
}

impl Drop for DurableWrites {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            eprintln!("ironpage-bench: removing {}: {error}", self.path.display());
        }
    }
}
