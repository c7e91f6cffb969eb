//! The journal on disk: one file, appended to and flushed with every change, written anew when it is long.

use super::{MetadataError, Record, State};
use crate::fault;
use ironpage_daemon::{info, warn};
use ironpage_io::fs::{self, File, Options};
use ironpage_io::sync::Notify;
use ironpage_io::{IoBuf, IoError};
use ironpage_layout::metadata::{Batches, FileHead, JOURNAL_FILE, encode_batch};
use std::cell::{Cell, Ref, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A journal shorter than this is never written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// It is once it has this many times the bytes it would then have.
const REWRITE_FACTOR: u64 = 4;
/// Records of one batch when it is written anew.
const RECORDS_PER_BATCH: usize = 1000;

/// The metadata of a pageserver. One task changes it at a time, any number read the present state.
pub struct Journal {
    path: PathBuf,
    state: RefCell<Rc<State>>,
    file: RefCell<File>,
    /// Where the next batch goes, and its number.
    end: Cell<u64>,
    next_sequence: Cell<u64>,
    /// Bytes the file had when it was last written anew.
    compact_bytes: Cell<u64>,
    /// Why nothing can be changed any more.
    poison: RefCell<Option<Rc<str>>>,
    busy: Cell<bool>,
    freed: Notify,
    rewrite_bytes_min: u64,
}

impl Journal {
    /// Reads the journal in `dir`, or begins one. What a write that never ended left at its end is cut off, with
    /// a warning: nobody was told of it. Damage elsewhere is an error.
    pub async fn open(dir: &Path) -> Result<Journal, MetadataError> {
        // Thousands of changes lead to that point otherwise.
        let rewrite_bytes_min = if fault::is_wanted("metadata-rewritten") { 0 } else { REWRITE_BYTES_MIN };
        Journal::open_with(dir, rewrite_bytes_min).await
    }

    pub(super) async fn open_with(dir: &Path, rewrite_bytes_min: u64) -> Result<Journal, MetadataError> {
        let path = dir.join(JOURNAL_FILE);
        if !fs::exists(&path).await? {
            fs::write_atomic(&path, &FileHead { first_sequence: 1 }.encode()).await?;
        }
        let bytes = fs::read(&path).await?;
        let format = |error| MetadataError::Format { path: path.clone(), error };
        let mut batches = Batches::new(&bytes).map_err(format)?;
        let mut state = State::default();
        while let Some(batch) = batches.next_batch().map_err(format)? {
            state = state.with(&batch.records).map_err(|error| MetadataError::Contradiction {
                path: path.clone(),
                offset: batch.offset,
                error,
            })?;
        }
        if let Some(torn) = batches.torn() {
            warn!(
                "{}: the last {} bytes, from offset {} on, are of a write that never ended; cutting them off",
                path.display(),
                torn.bytes,
                torn.offset
            );
        }
        // A process that was killed, or whose flush failed, may have left what was read here in memory alone, and
        // after a flush that failed another one leaves it out: it is written again.
        fs::write_atomic(&path, bytes.get(..batches.end() as usize).unwrap_or_default()).await?;
        Ok(Journal {
            file: RefCell::new(open_file(&path).await?),
            state: RefCell::new(Rc::new(state)),
            end: Cell::new(batches.end()),
            next_sequence: Cell::new(batches.next_sequence()),
            compact_bytes: Cell::new(0),
            poison: RefCell::new(None),
            busy: Cell::new(false),
            freed: Notify::new(),
            path,
            rewrite_bytes_min,
        })
    }

    /// The present.
    pub fn state(&self) -> Rc<State> {
        Ref::clone(&self.state.borrow()).clone()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.end.get()
    }

    /// Why nothing can be changed any more; `None` while it can.
    pub fn failure(&self) -> Option<MetadataError> {
        self.poison.borrow().clone().map(|reason| MetadataError::Poisoned { reason })
    }

    /// Makes a change that depends on nothing.
    pub async fn commit(&self, records: &[Record]) -> Result<Rc<State>, MetadataError> {
        self.change(|_| Ok::<_, MetadataError>((records.to_vec(), ()))).await.map(|(state, ())| state)
    }

    /// Makes the change that `make` wants in the state it is given, which no other change replaces meanwhile.
    /// When this returns the change is durable and the state has it; after an error of the disk nothing can be
    /// changed any more. No records: no change.
    pub async fn change<T, E: From<MetadataError>>(
        &self,
        make: impl FnOnce(&State) -> Result<(Vec<Record>, T), E>,
    ) -> Result<(Rc<State>, T), E> {
        let _turn = self.turn().await;
        if let Some(failure) = self.failure() {
            return Err(failure.into());
        }
        let state = self.state();
        let (records, output) = make(&state)?;
        if records.is_empty() {
            return Ok((state, output));
        }
        let next = Rc::new(state.with(&records).map_err(MetadataError::from)?);
        let mut bytes = Vec::new();
        encode_batch(self.next_sequence.get(), &records, &mut bytes);
        fault::point("metadata-unwritten");
        self.unless_cut_off(self.append(&bytes)).await?;
        fault::point("metadata-written");
        self.end.set(self.end.get() + bytes.len() as u64);
        self.next_sequence.set(self.next_sequence.get() + 1);
        *self.state.borrow_mut() = next.clone();
        if self.end.get() > self.rewrite_bytes_min.max(self.compact_bytes.get() * REWRITE_FACTOR) {
            // The change itself is done: only later ones can fail for that.
            if let Err(error) = self.unless_cut_off(self.rewrite()).await {
                warn!("{}: cannot be written anew: {error}", self.path.display());
            }
        }
        Ok((next, output))
    }

    /// Waits until no other task changes anything.
    async fn turn(&self) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            if !self.busy.replace(true) {
                return Turn(self);
            }
            freed.await;
        }
    }

    /// Runs a write. If it fails, or nobody waits for its end, what is on disk is unknown from then on.
    async fn unless_cut_off(&self, write: impl Future<Output = Result<(), IoError>>) -> Result<(), MetadataError> {
        let mut under_way = UnderWay { journal: self, ended: false };
        let result = write.await;
        under_way.ended = true;
        let Err(error) = result else { return Ok(()) };
        let reason: Rc<str> = error.to_string().into();
        *self.poison.borrow_mut() = Some(reason.clone());
        Err(MetadataError::Poisoned { reason })
    }

    async fn append(&self, bytes: &[u8]) -> Result<(), IoError> {
        let file = self.file.borrow().clone();
        file.write_durable_at(IoBuf::copy_of(bytes), self.end.get()).await.0
    }

    /// Replaces the file by one that holds the present alone.
    async fn rewrite(&self) -> Result<(), IoError> {
        let mut sequence = self.next_sequence.get();
        let mut bytes = FileHead { first_sequence: sequence }.encode().to_vec();
        for records in self.state().records().chunks(RECORDS_PER_BATCH) {
            encode_batch(sequence, records, &mut bytes);
            sequence += 1;
        }
        fs::write_atomic(&self.path, &bytes).await?;
        fault::point("metadata-rewritten");
        *self.file.borrow_mut() = open_file(&self.path).await?;
        info!("{}: written anew, {} bytes instead of {}", self.path.display(), bytes.len(), self.end.get());
        self.end.set(bytes.len() as u64);
        self.compact_bytes.set(bytes.len() as u64);
        self.next_sequence.set(sequence);
        Ok(())
    }
}

async fn open_file(path: &Path) -> Result<File, IoError> {
    File::open(path, Options { read: true, write: true, ..Options::default() }).await
}

/// A write. If it is given up before it ends, nothing can be changed any more.
struct UnderWay<'a> {
    journal: &'a Journal,
    ended: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.ended {
            *self.journal.poison.borrow_mut() = Some("the change before was given up in the middle".into());
        }
    }
}

/// The right to change.
struct Turn<'a>(&'a Journal);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.freed.notify_all();
    }
}
