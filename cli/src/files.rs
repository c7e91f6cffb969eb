//! Small files that must be whole or old, never half.

use crate::error::{AtPath, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// How long what was written must last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasting {
    /// A crash of the machine keeps it.
    Durable,
    /// It speaks of processes: after a crash of the machine it is of no use.
    ThisBoot,
}

/// Replaces `path` by `bytes`: whole, for every reader, when this returns.
pub fn replace(path: &Path, bytes: &[u8], lasting: Lasting) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let write = |mut file: File| {
        file.write_all(bytes)?;
        if lasting == Lasting::Durable { file.sync_all() } else { Ok(()) }
    };
    File::create(temporary).and_then(write).at("write", temporary)?;
    fs::rename(temporary, path).at("replace", path)?;
    if lasting == Lasting::Durable { sync_parent(path) } else { Ok(()) }
}

/// Makes the names in the directory of `path` durable.
fn sync_parent(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

pub fn write_json<T: Serialize>(path: &Path, value: &T, lasting: Lasting) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| damaged(path, &error))?;
    text.push(b'\n');
    replace(path, &text, lasting)
}

/// `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| damaged(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

/// The same of a file written with [`Lasting::ThisBoot`]. A crash of the machine may leave any piece of it: what is no JSON
/// speaks of nothing that runs.
pub fn read_json_of_this_boot<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Err(error) if error.is_eof() || error.is_syntax() => Ok(None),
            parsed => parsed.map(Some).map_err(|error| damaged(path, &error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

fn damaged(path: &Path, error: &serde_json::Error) -> Error {
    Error::Damaged { path: path.to_path_buf(), why: error.to_string() }
}

/// Removes a file or a whole directory; one that is not there already is fine.
pub fn remove_if_there(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.at("remove", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_of_the_machine_tore_speaks_of_nothing() {
        let path = std::env::temp_dir().join(format!("ironpage-torn-{}", std::process::id()));
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_json_of_this_boot::<Vec<u32>>(&path)
        };
        assert_eq!(read(b"[1, 2]").unwrap(), Some(vec![1, 2]));
        for torn in [&b""[..], b"[1, ", &[0; 6]] {
            assert_eq!(read(torn).unwrap(), None);
        }
        assert!(matches!(read(b"{}"), Err(Error::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        assert_eq!(read_json_of_this_boot::<Vec<u32>>(&path).unwrap(), None);
    }
}
