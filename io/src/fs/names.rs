//! Names and whole small files.

use std::path::{Path, PathBuf};

use super::file::{File, Options};
use crate::IoBuf;
use crate::driver::Names;
use crate::error::{Errno, IoError};
use crate::executor::Core;

fn named<T>(operation: &'static str, path: &Path, call: impl FnOnce(&mut dyn Names) -> Result<T, Errno>) -> Result<T, IoError> {
    Core::current().names(call).map_err(|errno| IoError::path(operation, path, errno))
}

/// Creates a directory and its parents; no error if it exists. Durable after [`sync_dir`] of the parents.
pub async fn create_dir_all(path: impl AsRef<Path>) -> Result<(), IoError> {
    let path = path.as_ref();
    named("create directory", path, |names| names.create_dir_all(path))
}

/// Renames a file or directory, replacing a file at `to`. Durable after [`sync_dir`].
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), IoError> {
    let (from, to) = (from.as_ref(), to.as_ref());
    named("rename", from, |names| names.rename(from, to))
}

/// Unlinks a file. Durable after [`sync_dir`].
pub async fn remove_file(path: impl AsRef<Path>) -> Result<(), IoError> {
    let path = path.as_ref();
    named("remove", path, |names| names.remove_file(path))
}

/// Removes a directory with all it holds.
pub async fn remove_dir_all(path: impl AsRef<Path>) -> Result<(), IoError> {
    let path = path.as_ref();
    named("remove directory", path, |names| names.remove_dir_all(path))
}

/// Flushes a directory: files created, renamed and removed in it before stay so after a power failure.
pub async fn sync_dir(path: impl AsRef<Path>) -> Result<(), IoError> {
    File::open_dir(path.as_ref()).await?.sync_data().await
}

/// Names (not paths) of the entries of a directory, sorted.
pub async fn read_dir(path: impl AsRef<Path>) -> Result<Vec<String>, IoError> {
    let path = path.as_ref();
    named("list directory", path, |names| names.read_dir(path))
}

pub async fn exists(path: impl AsRef<Path>) -> Result<bool, IoError> {
    let path = path.as_ref();
    named("look up", path, |names| names.exists(path))
}

/// A whole file in memory.
pub async fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, IoError> {
    let file = File::open(path, Options { read: true, ..Options::default() }).await?;
    let mut bytes = Vec::new();
    let mut buf = IoBuf::zeroed(usize::try_from(file.size().await?).unwrap_or(usize::MAX).clamp(1, 1 << 20));
    loop {
        let (result, back) = file.read_at(buf, bytes.len() as u64).await;
        let count = result?;
        bytes.extend_from_slice(back.get(..count).unwrap_or_default());
        if count < back.len() {
            return Ok(bytes);
        }
        buf = back;
    }
}

/// Replaces the content of `path` so that after a crash at any moment it is all old or all new; on
/// success it is new. Writes `path`.tmp, flushes it, renames it over `path` and flushes the directory.
pub async fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), IoError> {
    let path = path.as_ref();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let options = Options { write: true, create: true, truncate: true, ..Options::default() };
    let file = File::open(&temporary, options).await?;
    let (result, _) = file.write_durable_at(IoBuf::copy_of(bytes), 0).await;
    result?;
    if bytes.is_empty() {
        file.sync_data().await?;
    }
    rename(&temporary, path).await?;
    sync_dir(parent(path)).await
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
