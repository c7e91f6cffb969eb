//! A base backup as it streams in, part by part, without ever holding more than a piece of a file.

mod files;
mod tar;

use crate::error::{Error, Result};
use crate::pq::Message;
use crate::source::Source;
use files::{DataFile, RelationFile};
use ironpage_layout::key::SLRU_PAGES_PER_SEGMENT;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::rel::{DEFAULT_TABLESPACE, Oid, PAGE_SIZE, SEGMENT_BLOCKS};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Fork, RelTag};
use std::collections::HashMap;
use std::io::{self, Read};
use tar::{Archive, Entry};

/// Bytes of one run of pages.
const RUN_BYTES: usize = 64 * PAGE_SIZE;
/// Largest file that is read whole: a state of a prepared transaction can have thousands of locks and subtransactions.
const WHOLE_BYTES_MAX: u64 = 3 << 20;

/// The archives of a base backup under way.
struct Archives<'a> {
    source: &'a mut Source,
    message: Option<Message>,
    /// Bytes of `message` that were read.
    read: usize,
    /// The next archive, once the one before it has ended.
    next: Option<String>,
    failed: Option<Error>,
}

impl Archives<'_> {
    /// Ends the archive under way; the name of the next one.
    fn next_archive(&mut self) -> Result<Option<String>> {
        let mut scrap = [0; 8192];
        while self.next.is_none() {
            match self.read(&mut scrap) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
        Ok(self.next.take())
    }

    fn failure(&mut self, error: io::Error) -> Error {
        self.failed.take().unwrap_or_else(|| Error::Backup(error.to_string()))
    }
}

impl Read for Archives<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(rest) = self.message.as_ref().and_then(|message| message.get(self.read..)).filter(|rest| !rest.is_empty())
            {
                let taken = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..taken), rest.get(..taken)) {
                    to.copy_from_slice(from);
                }
                self.read += taken;
                return Ok(taken);
            }
            self.message = None;
            if self.next.is_some() {
                return Ok(0);
            }
            let message = match self.source.backup_message() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            };
            match message.first() {
                Some(b'd') => (self.message, self.read) = (Some(message), 1),
                Some(b'n') => {
                    let name = message.get(1..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
                    self.next = Some(String::from_utf8_lossy(name).into_owned());
                }
                // The manifest, which was not asked for, and progress.
                _ => {}
            }
        }
    }
}

/// Reads all archives of the backup that `source` has begun, and gives `sink` all of it but pg_control, which is returned as it
/// was copied. `sink` takes items in the order an import wants them.
pub fn read(source: &mut Source, sink: &mut dyn FnMut(&Item<'_>) -> Result<()>) -> Result<ControlFile> {
    let mut archives = Archives { source, message: None, read: 0, next: None, failed: None };
    let mut items = Items { sink, sizes: HashMap::new(), control: None };
    while let Some(name) = archives.next_archive()? {
        let oid: Option<Oid> = name.strip_suffix(".tar").and_then(|stem| stem.parse().ok());
        if oid.is_none() && name != "base.tar" {
            return Err(Error::Backup(format!(
                "the source sent an archive '{name}', which is neither its base nor a tablespace"
            )));
        }
        let mut archive = Archive::new(&mut archives);
        loop {
            match archive.next() {
                Ok(Some(mut entry)) => match items.file(oid, &mut entry) {
                    Ok(()) => {}
                    Err(Stop::Read(error)) => return Err(archives.failure(error)),
                    Err(Stop::Other(error)) => return Err(error),
                },
                Ok(None) => break,
                Err(error) => return Err(archives.failure(error)),
            }
        }
    }
    items.control.ok_or_else(|| Error::Backup("it ended without pg_control".into()))
}

/// Why a file was not taken.
enum Stop {
    Read(io::Error),
    Other(Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Read(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Other(error)
    }
}

/// Turns files into items.
struct Items<'a> {
    sink: &'a mut dyn FnMut(&Item<'_>) -> Result<()>,
    /// Blocks of the forks of more than one segment: their files come in any order.
    sizes: HashMap<(RelTag, Fork), u32>,
    control: Option<ControlFile>,
}

impl Items<'_> {
    /// `tablespace` is whose archive it lies in; `None` for the base.
    fn file<R: Read>(&mut self, tablespace: Option<Oid>, entry: &mut Entry<'_, R>) -> std::result::Result<(), Stop> {
        let path = entry.path().to_string();
        let Some(file) = files::of(tablespace, &path) else { return Ok(()) };
        match file {
            DataFile::Control => {
                let bytes = whole(entry, &path)?;
                let control = ControlFile::read(&bytes).map_err(|error| Error::Refused(format!("the source's {error}")))?;
                self.control = Some(control);
            }
            DataFile::Version { tablespace, database } => {
                let version = whole(entry, &path)?;
                (self.sink)(&Item::Database { tablespace, database, version: &version })?;
            }
            DataFile::RelationMap { tablespace, database } => {
                let map = whole(entry, &path)?;
                (self.sink)(&Item::RelMap { tablespace, database, map: &map })?;
            }
            DataFile::TwoPhase { xid } => {
                let state = whole(entry, &path)?;
                // The file ends with a CRC, which the state of an import goes without (ReadTwoPhaseFile, twophase.c).
                let (state, crc) = state.split_last_chunk::<4>().ok_or_else(|| damaged(&path))?;
                if u32::from_le_bytes(*crc) != ironpage_layout::crc::crc32c(state) {
                    return Err(damaged(&path).into());
                }
                (self.sink)(&Item::TwoPhase { xid, state })?;
            }
            DataFile::Slru { slru, segment } => {
                let mut page = segment.checked_mul(SLRU_PAGES_PER_SEGMENT).ok_or_else(|| damaged(&path))?;
                for_each_run(entry, |pages| {
                    (self.sink)(&Item::SlruPages { slru, page, pages })?;
                    page = page.saturating_add((pages.len() / PAGE_SIZE) as u32);
                    Ok(())
                })?;
            }
            DataFile::Relation(relation) => self.relation(relation, entry, &path)?,
        }
        Ok(())
    }

    fn relation<R: Read>(&mut self, file: RelationFile, entry: &mut Entry<'_, R>, path: &str) -> std::result::Result<(), Stop> {
        let RelationFile { rel, fork, segment } = file;
        let here = entry.size() / PAGE_SIZE as u64;
        let first = segment.checked_mul(SEGMENT_BLOCKS).ok_or_else(|| damaged(path))?;
        let blocks = u32::try_from(here).ok().filter(|here| *here <= SEGMENT_BLOCKS).and_then(|here| first.checked_add(here));
        let blocks = blocks.ok_or_else(|| damaged(path))?;
        let known = self.sizes.get(&(rel, fork)).copied();
        if known.is_none_or(|known| known < blocks) {
            // Only a whole segment has others beside it.
            if segment > 0 || here == u64::from(SEGMENT_BLOCKS) {
                self.sizes.insert((rel, fork), blocks);
            }
            (self.sink)(&Item::RelSize { rel, fork, blocks })?;
        }
        let mut block = first;
        for_each_run(entry, |pages| {
            (self.sink)(&Item::RelPages { rel, fork, block: BlockNumber(block), pages })?;
            block = block.saturating_add((pages.len() / PAGE_SIZE) as u32);
            Ok(())
        })
    }
}

fn damaged(path: &str) -> Error {
    Error::Backup(format!("{path} of the source is not what its name says"))
}

/// All of a small file.
fn whole<R: Read>(entry: &mut Entry<'_, R>, path: &str) -> std::result::Result<Vec<u8>, Stop> {
    if entry.size() > WHOLE_BYTES_MAX {
        return Err(
            Error::Refused(format!("{path} of the source has {} bytes: more than {WHOLE_BYTES_MAX}", entry.size())).into()
        );
    }
    let mut bytes = Vec::with_capacity(entry.size() as usize);
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file's whole pages, some at a time. A last piece of a page was being written: its WAL comes.
fn for_each_run<R: Read>(entry: &mut Entry<'_, R>, mut take: impl FnMut(&[u8]) -> Result<()>) -> std::result::Result<(), Stop> {
    let mut run = Vec::with_capacity(RUN_BYTES);
    loop {
        run.clear();
        (&mut *entry).take(RUN_BYTES as u64).read_to_end(&mut run)?;
        let pages = run.len() / PAGE_SIZE * PAGE_SIZE;
        if let Some(pages) = run.get(..pages).filter(|pages| !pages.is_empty()) {
            take(pages)?;
        }
        if run.len() < RUN_BYTES {
            return Ok(());
        }
    }
}

/// Tablespace of files in `base/`.
const BASE: Oid = DEFAULT_TABLESPACE;
