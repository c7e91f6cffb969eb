//! The directory of a measurement's data: made, and removed at the end with all that is in it.

use anyhow::{Context, ensure};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub struct Scratch(PathBuf);

impl Scratch {
    /// Refused if something is there: it is not ours to remove.
    pub fn create(dir: &Path) -> anyhow::Result<Scratch> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
        ensure!(
            entries.next().is_none(),
            "{} is not empty: remove it if an earlier run left it, or name another one with --dir",
            dir.display()
        );
        Ok(Scratch(dir.into()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("ironpage-bench: removing {}: {error}", self.0.display());
        }
    }
}

/// Bytes that anyone may still write to the file system of `path`.
pub fn free_bytes(path: &Path) -> anyhow::Result<u64> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a zeroed statvfs is valid, and the name ends with a zero.
    let (result, stat) = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(name.as_ptr(), &mut stat), stat)
    };
    ensure!(result == 0, "free space of {}: {}", path.display(), std::io::Error::last_os_error());
    Ok(stat.f_bavail * stat.f_frsize)
}
