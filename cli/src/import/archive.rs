//! Tars: what `pg_basebackup -Ft` writes (base.tar, pg_wal.tar, one for each tablespace), or a tar of a data directory.

use super::data_dir::refuse;
use super::scratch::Scratch;
use crate::error::{AtPath, Error, Result};
use crate::progress;
use flate2::read::MultiGzDecoder;
use ironpage_layout::Oid;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const READ_AHEAD: usize = 1 << 20;
/// Bytes of a block of a tar.
const BLOCK: usize = 512;
/// How deep below its top a tar may hold the data directory.
const DEPTH_MAX: usize = 16;

/// The tars of one backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Archive {
    base: PathBuf,
    wal: Option<PathBuf>,
    tablespaces: Vec<(Oid, PathBuf)>,
}

impl Archive {
    /// The backup that `path`, a tar or a directory with base.tar, belongs to; `None` if it is neither.
    pub fn find(path: &Path) -> Result<Option<Archive>> {
        let base = if path.is_dir() { variant(&path.join("base.tar")) } else { path.is_file().then(|| path.to_path_buf()) };
        let Some(base) = base else { return Ok(None) };
        let mut archive = Archive { base, wal: None, tablespaces: Vec::new() };
        // Beside any other tar lies what has nothing to do with it.
        let is_base = archive.base.file_name().and_then(|name| name.to_str()).is_some_and(|name| stem(name) == Some("base"));
        let Some(dir) = archive.base.parent().filter(|_| is_base) else { return Ok(Some(archive)) };
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        for entry in fs::read_dir(dir).at("list", dir)? {
            let entry = entry.at("list", dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match stem(&name) {
                Some("pg_wal") => archive.wal = Some(entry.path()),
                Some(oid) => archive.tablespaces.extend(oid.parse().ok().map(|oid| (oid, entry.path()))),
                None => {}
            }
        }
        archive.tablespaces.sort();
        Ok(Some(archive))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let tablespaces = self.tablespaces.iter().map(|(_, path)| path.as_path());
        std::iter::once(self.base.as_path()).chain(self.wal.as_deref()).chain(tablespaces)
    }

    /// About how many bytes it unpacks to: of what is compressed, an estimate.
    pub fn unpacked_size(&self) -> Result<u64> {
        self.paths().try_fold(0, |total, path| {
            let length = fs::metadata(path).at("look at", path)?.len();
            Ok(total + if is_gzip(path)? { length * 5 } else { length })
        })
    }

    /// Unpacks all of it. The data directory is `scratch.data()` afterwards.
    pub fn unpack(&self, scratch: &Scratch) -> Result<()> {
        let data = scratch.data();
        progress::line(&format!("unpacking {}", self.base.display()));
        let links = unpack(&self.base, &data, scratch)?;
        self.bring_up(&data)?;
        if let Some(wal) = &self.wal {
            let dir = data.join("pg_wal");
            scratch.owner.create_dir(&dir)?;
            unpack(wal, &dir, scratch)?;
        }
        let mut linked = tablespaces_of_map(&data)?;
        linked.extend(links.iter().filter_map(|link| {
            let below = link.parent()?.file_name()? == "pg_tblspc";
            link.file_name()?.to_str()?.parse::<Oid>().ok().filter(|_| below)
        }));
        for (oid, path) in &self.tablespaces {
            unpack(path, &scratch.tablespace(*oid)?, scratch)?;
            scratch.link_tablespace(*oid)?;
        }
        match linked.iter().find(|oid| !self.tablespaces.iter().any(|(there, _)| there == *oid)) {
            None => Ok(()),
            Some(oid) => Err(refuse(
                &self.base,
                format!("tablespace {oid} is not in it: there is no {oid}.tar beside it"),
                "take the backup with `pg_basebackup -Ft`, and keep its files together",
            )),
        }
    }

    /// A tar may hold the directory below others, as /var/lib/postgresql/15/main: it goes to the top.
    fn bring_up(&self, data: &Path) -> Result<()> {
        let mut found = data.to_path_buf();
        for _ in 0..DEPTH_MAX {
            if found.join("PG_VERSION").is_file() {
                break;
            }
            let entries: Vec<_> = fs::read_dir(&found).at("list", &found)?.flatten().map(|entry| entry.path()).collect();
            match entries.as_slice() {
                [one] if one.is_dir() => found = one.clone(),
                _ => break,
            }
        }
        if !found.join("PG_VERSION").is_file() {
            let why = "it holds no file PG_VERSION, so it is no tar of a Postgres data directory";
            return Err(refuse(&self.base, why, "name the base.tar of `pg_basebackup -Ft`, or a tar of a whole data directory"));
        }
        if found == data {
            return Ok(());
        }
        let aside = data.with_extension("unpacked");
        let top = found.strip_prefix(data).map(|below| aside.join(below)).unwrap_or_default();
        fs::rename(data, &aside).at("rename", data)?;
        fs::rename(&top, data).at("rename", &top)
    }
}

/// `path` or its compressed form, whichever is there.
fn variant(path: &Path) -> Option<PathBuf> {
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".gz");
    [path.to_path_buf(), compressed.into()].into_iter().find(|path| path.is_file())
}

fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".tar")
}

fn is_gzip(path: &Path) -> Result<bool> {
    let mut magic = [0; 2];
    let mut file = File::open(path).at("open", path)?;
    Ok(file.read_exact(&mut magic).is_ok() && magic == GZIP_MAGIC)
}

/// Remembers the last block, which is of zeros at the end of every whole tar.
struct Blocks<R> {
    inner: R,
    /// Bytes read of the present block, and whether all of them were zero.
    filled: usize,
    zeros: bool,
    last_was_zeros: bool,
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let mut bytes = buffer.get(..length).unwrap_or_default();
        while !bytes.is_empty() {
            let (here, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.zeros = (self.filled == 0 || self.zeros) && here.iter().all(|byte| *byte == 0);
            self.filled += here.len();
            if self.filled == BLOCK {
                (self.filled, self.last_was_zeros) = (0, self.zeros);
            }
            bytes = rest;
        }
        Ok(length)
    }
}

/// Unpacks one tar into `to`. Links are not made; their paths come back.
fn unpack(path: &Path, to: &Path, scratch: &Scratch) -> Result<Vec<PathBuf>> {
    let damaged = |error: io::Error| {
        refuse(
            path,
            format!("it cannot be read to its end: {error}"),
            "copy it again from where it was made, or take a new backup",
        )
    };
    let file = File::open(path).at("open", path)?;
    let input: Box<dyn Read> = match is_gzip(path)? {
        true => Box::new(BufReader::with_capacity(READ_AHEAD, MultiGzDecoder::new(BufReader::with_capacity(READ_AHEAD, file)))),
        false => Box::new(BufReader::with_capacity(READ_AHEAD, file)),
    };
    let mut blocks = Blocks { inner: input, filled: 0, zeros: false, last_was_zeros: false };
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(&mut blocks);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        let below = relative(&name).ok_or_else(|| {
            refuse(path, format!("it has a file '{}', which would lie outside", name.display()), "use a tar of a data directory")
        })?;
        let target = to.join(&below);
        match entry.header().entry_type() {
            EntryType::Directory => make_directories(to, &below, scratch)?,
            EntryType::Symlink | EntryType::Link => links.push(below),
            kind if kind.is_file() || kind.is_gnu_sparse() => {
                make_directories(to, below.parent().unwrap_or(Path::new("")), scratch)?;
                let mut file = scratch.owner.create_file(&target)?;
                copy(&mut entry, &mut file, &target, damaged)?;
            }
            // Nothing else belongs to a data directory.
            _ => {}
        }
    }
    if !blocks.last_was_zeros {
        return Err(damaged(io::Error::new(io::ErrorKind::UnexpectedEof, "the blocks that end every tar are missing")));
    }
    Ok(links)
}

/// Errors of the tar are told apart from those of the file that is written.
fn copy(from: &mut impl Read, to: &mut File, path: &Path, damaged: impl Fn(io::Error) -> Error) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = from.read(&mut buffer).map_err(&damaged)?;
        if length == 0 {
            return Ok(());
        }
        io::Write::write_all(to, buffer.get(..length).unwrap_or_default()).at("write", path)?;
    }
}

/// The path below the target; `None` if it leads outside.
fn relative(name: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            // GNU tar takes the slash away with a warning; so do we.
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

fn make_directories(root: &Path, below: &Path, scratch: &Scratch) -> Result<()> {
    let mut path = root.to_path_buf();
    for part in below.components() {
        path.push(part);
        scratch.owner.create_dir(&path)?;
    }
    Ok(())
}

/// Tablespaces that a base backup has beside it: lines `OID LOCATION` (do_pg_backup_start, xlog.c).
fn tablespaces_of_map(data: &Path) -> Result<Vec<Oid>> {
    let path = data.join("tablespace_map");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.at("read", &path)?,
    };
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(|line| line.split_once(' ')?.0.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_tar_leads_outside() {
        assert_eq!(relative(Path::new("./base/1/1259")), Some("base/1/1259".into()));
        assert_eq!(relative(Path::new("/base//1")), Some("base/1".into()));
        assert_eq!(relative(Path::new("base/../../etc/passwd")), None);
    }

    #[test]
    fn the_end_of_a_tar_is_known_however_it_is_read() {
        let mut bytes = vec![7; 3 * BLOCK];
        for (zeros, whole) in [(0, false), (BLOCK - 1, false), (BLOCK, true), (4 * BLOCK, true)] {
            bytes.truncate(3 * BLOCK);
            bytes.resize(3 * BLOCK + zeros, 0);
            for step in [1, 100, BLOCK, 10_000] {
                let mut blocks = Blocks { inner: &bytes[..], filled: 0, zeros: false, last_was_zeros: false };
                let mut buffer = vec![0; step];
                while blocks.read(&mut buffer).unwrap() > 0 {}
                assert_eq!(blocks.last_was_zeros, whole, "{zeros} zeros by {step}");
            }
        }
    }
}
