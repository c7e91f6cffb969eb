//! Segment files: 16 MiB each, filled with zeros before they get their name.

use crate::error::Result;
use ironpage_io::fs::{self, File, Options};
use ironpage_layout::lsn::{WAL_SEGMENT_SIZE, segment_file_name};
use std::path::{Path, PathBuf};

/// Suffix of a segment that is not yet full of zeros.
const NEW_SUFFIX: &str = ".new";

pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(segment_file_name(number))
}

/// Number of the segment a file name stands for; `None` if it is none.
pub fn number(name: &str) -> Option<u64> {
    let per_id = (1u64 << 32) / WAL_SEGMENT_SIZE;
    let part = |range| u64::from_str_radix(name.get(range)?, 16).ok();
    let number = part(8..16)?.checked_mul(per_id)?.checked_add(part(16..24)?)?;
    // Upper case, Postgres timeline 1, no part out of range: only one name stands for a segment.
    (segment_file_name(number) == name).then_some(number)
}

/// Numbers of the segments in `dir`, ascending. What a crash left half-made is removed.
pub async fn list(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for name in fs::read_dir(dir).await? {
        if name.strip_suffix(NEW_SUFFIX).and_then(number).is_some() {
            fs::remove_file(&dir.join(&name)).await?;
        }
        numbers.extend(number(&name));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a segment to read it.
pub async fn open_to_read(dir: &Path, number: u64) -> Result<File> {
    Ok(File::open(&path(dir, number), Options { read: true, direct: true, ..Options::default() }).await?)
}

/// Opens a segment to write WAL into it.
pub async fn open_to_write(dir: &Path, number: u64) -> Result<File> {
    Ok(File::open(&path(dir, number), Options { write: true, direct: true, ..Options::default() }).await?)
}

/// Makes a segment of zeros, durable with its name, and opens it. On failure nothing of it stays, so that
/// a full disk gets its space back.
pub async fn create(dir: &Path, number: u64) -> Result<File> {
    let path = path(dir, number);
    let new = dir.join(segment_file_name(number) + NEW_SUFFIX);
    let options = Options { write: true, direct: true, create: true, truncate: true, ..Options::default() };
    let made = async {
        let file = File::open(&new, options).await?;
        file.fill_zeros(0, WAL_SEGMENT_SIZE).await?;
        file.sync_data().await?;
        fs::rename(&new, &path).await?;
        fs::sync_dir(dir).await
    };
    if let Err(error) = made.await {
        let _ = fs::remove_file(&new).await;
        // It may have its name already, which the directory does not have for good.
        let _ = fs::remove_file(&path).await;
        return Err(error.into());
    }
    open_to_write(dir, number).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_postgres_gives_are_segments() {
        assert_eq!(number("000000010000000000000001"), Some(1));
        assert_eq!(number("0000000100000001000000FF"), Some(511));
        for none in
            ["control", "0000000100000000000000ff", "000000020000000000000001", "000000010000000000000100", "", "é0000001"]
        {
            assert_eq!(number(none), None, "{none}");
        }
    }
}
