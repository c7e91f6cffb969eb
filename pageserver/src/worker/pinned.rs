//! The copy of the server's binary that redo runs in.
//!
//! A package upgrade replaces the installed binary while the pageserver runs; a worker that is restarted
//! then must still be the one it was. So both files are copied at start, named by their build ids.

// Done before a core runs: there is no ring yet to go through.
#![allow(clippy::disallowed_methods)]

use super::WorkerError;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The pinned files a worker process runs from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    pub postgres: PathBuf,
    /// redo.so, preloaded into it.
    pub library: PathBuf,
}

impl Program {
    /// The library's name from its own directory: with a slash, or the loader would search its paths.
    pub(super) fn preload(&self) -> OsString {
        let mut name = OsString::from("./");
        name.push(self.library.file_name().unwrap_or_default());
        name
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.postgres.display())
    }
}

/// Copies `postgres` and `library` into `dir`, unless they are there already. The directory is theirs alone.
/// Blocking: for the start only.
pub fn pin(postgres: &Path, library: &Path, dir: &Path) -> Result<Program, WorkerError> {
    fs::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
    let program = Program {
        postgres: copy(postgres, "postgres", dir, "give --postgres-bindir of a distribution's PostgreSQL 15")?,
        library: copy(library, "redo.so", dir, "build it (make -C pageserver/redo-worker) and give it as --redo-library")?,
    };
    remove_others(dir, &program).map_err(|error| failed("clean up", dir, &error))?;
    Ok(program)
}

/// Removes the copies of earlier versions: each is several megabytes.
fn remove_others(dir: &Path, program: &Program) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path != program.postgres && path != program.library {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn failed(what: &'static str, path: &Path, error: &std::io::Error) -> WorkerError {
    WorkerError::File { what, path: path.to_path_buf(), error: error.to_string() }
}

/// Copies `from` to `dir/name-BUILDID`. The bytes of a file of that name are compared: an earlier copy may be torn.
/// `way_out` is for a file that is no such thing.
fn copy(from: &Path, name: &str, dir: &Path, way_out: &'static str) -> Result<PathBuf, WorkerError> {
    let bytes = fs::read(from).map_err(|error| failed("read", from, &error))?;
    let id = build_id(&bytes).ok_or_else(|| WorkerError::NoBuildId { path: from.to_path_buf(), way_out })?;
    let to = dir.join(format!("{name}-{id}"));
    if fs::read(&to).is_ok_and(|there| there == bytes) {
        return Ok(to);
    }
    let temporary = dir.join(format!("{name}.tmp"));
    fs::write(&temporary, &bytes)
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&temporary, &to))
        .map_err(|error| failed("write", &to, &error))?;
    Ok(to)
}

/// The GNU build id of an ELF file, in hexadecimal.
fn build_id(elf: &[u8]) -> Option<String> {
    const PT_NOTE: u64 = 4;
    const NT_GNU_BUILD_ID: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let index = |at: usize, bytes: usize| usize::try_from(number(at, bytes)?).ok();
    // A 64-bit little-endian file, and its program headers (elf(5)).
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, entry_size, entries) = (index(32, 8)?, index(54, 2)?, index(56, 2)?);
    for entry in 0..entries {
        let header = table.checked_add(entry * entry_size)?;
        if number(header, 4)? != PT_NOTE {
            continue;
        }
        let (mut at, size) = (index(header.checked_add(8)?, 8)?, index(header.checked_add(32)?, 8)?);
        let end = at.checked_add(size)?;
        while at < end {
            let (name_size, size, kind) = (index(at, 4)?, index(at + 4, 4)?, number(at + 8, 4)?);
            let body = at.checked_add(12)?.checked_add(name_size.checked_next_multiple_of(4)?)?;
            if kind == NT_GNU_BUILD_ID && elf.get(at + 12..)?.starts_with(b"GNU\0") {
                let id = elf.get(body..body.checked_add(size)?)?;
                return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
            }
            at = body.checked_add(size.checked_next_multiple_of(4)?)?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_are_found_and_nonsense_is_not_one() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if let Some(id) = build_id(&own) {
            assert!(id.len() >= 16, "{id}");
        }
        assert_eq!(build_id(b"#!/bin/sh\n"), None);
        for end in 0..200 {
            build_id(&own[..end]);
        }
    }
}
