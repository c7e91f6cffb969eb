//! The raw limit of page reads: 8 KiB O_DIRECT preads at random places of a file, one thread a client.

use crate::latency::{Random, Summary, closed_loop};
use anyhow::{Context, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

const PAGE: usize = 8192;

/// Fills `path` with `bytes` of data that does not compress, synced.
pub fn make_file(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut random = Random::new(7);
    let mut chunk = vec![0u8; 1 << 20];
    for _ in 0..bytes >> 20 {
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
