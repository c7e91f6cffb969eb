//! Takes WAL in, makes it durable, cuts it.
//!
//! Appends go to memory; [`Wal::flush`] writes all that is there as one write with a flush linked to it.
//! What arrives meanwhile waits for the next: that is the whole of group commit.

use super::reader::{Chunk, Reader};
use super::scan::{self, Scanner};
use super::{BLOCK_SIZE, block_end, block_start, segment};
use crate::control::Properties;
use crate::error::{Error, Result};
use crate::limits::{DISK_CHUNK_BYTES, PENDING_BYTES_MAX, PREPARE_AHEAD_BYTES, RECENT_BYTES_MAX};
use ironpage_daemon::{info, warn};
use ironpage_io::IoBuf;
use ironpage_io::fs::{self, File, Options};
use ironpage_io::sync::Notify;
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use ironpage_layout::{Lsn, TimelineId};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The writing end of one timeline's WAL.
pub struct Wal {
    timeline: TimelineId,
    dir: PathBuf,
    state: RefCell<State>,
    next: RefCell<Next>,
    prepared: Notify,
}

struct State {
    scanner: Scanner,
    /// End of what is on disk for good.
    durable: Lsn,
    /// WAL that the next flush will write.
    pending: Vec<u8>,
    /// What the block in which `durable` lies holds before it.
    tail: Vec<u8>,
    /// The newest WAL, durable or not, which begins at `recent_start`.
    recent: Vec<u8>,
    recent_start: Lsn,
    /// The segment being written.
    current: Option<(u64, Rc<File>)>,
}

/// The segment after the current one.
enum Next {
    None,
    Preparing,
    Ready(u64, Rc<File>),
    /// It could not be made: tried again when it is needed, not before.
    Failed(u64),
}

impl Wal {
    /// Makes the first segment of a timeline, with the WAL that stands before its start.
    pub async fn create(dir: &Path, start: Lsn, prefix: &[u8]) -> Result<()> {
        let file = segment::create(dir, start.segment()).await?;
        let offset = start.segment_offset() - prefix.len() as u64;
        let mut buffer = IoBuf::zeroed((offset - block_start(offset)) as usize);
        buffer.extend_from_slice(prefix);
        buffer.resize(block_end(buffer.len() as u64) as usize, 0);
        if !buffer.is_empty() {
            file.write_durable_at(buffer, block_start(offset)).await.0?;
        }
        Ok(())
    }

    /// Finds the end of the WAL on disk, from `commit_lsn` on, and clears what a crash left behind it.
    pub async fn load(dir: &Path, properties: &Properties, commit_lsn: Lsn) -> Result<Wal> {
        let timeline = properties.timeline;
        let damaged = |why| Error::DamagedWal { timeline, dir: dir.to_path_buf(), why };
        let from = commit_lsn.max(properties.start_lsn);
        let segments = segment::list(dir).await?;
        // The last byte before `from` is known to have been here.
        let known = Lsn(from.0 - 1).segment();
        if let Some(gap) = (properties.start_lsn.segment()..=known).find(|number| segments.binary_search(number).is_err()) {
            let name = ironpage_layout::lsn::segment_file_name(gap);
            return Err(damaged(format!(
                "segment {name} is missing, WAL is committed up to {from}; copy it from another safekeeper"
            )));
        }
        let mut reader = Reader::new(dir);
        let prev = (from == properties.start_lsn).then_some(properties.prev_record_lsn);
        let end = scan::find_end(&mut reader, from, prev, properties.system_id).await?;
        let at = end.record_end;
        if let Some(broken) = &end.broken {
            warn!("timeline {timeline}: WAL ends at {at}, what stands behind it is no record and is cleared: {broken}");
        }
        clear_after(dir, &mut reader, &segments, at).await?;
        write_again(dir, &mut reader, from, at).await?;
        let tail = read_tail(&mut reader, at).await?;
        Ok(Wal {
            timeline,
            dir: dir.to_path_buf(),
            state: RefCell::new(State {
                scanner: Scanner::new(timeline, at, end.prev),
                durable: at,
                pending: Vec::new(),
                tail,
                recent: Vec::new(),
                recent_start: at,
                current: None,
            }),
            next: RefCell::new(Next::None),
            prepared: Notify::new(),
        })
    }

    /// End of the WAL taken in.
    pub fn end(&self) -> Lsn {
        self.state.borrow().scanner.position()
    }

    /// End of the WAL that a crash leaves here.
    pub fn durable(&self) -> Lsn {
        self.state.borrow().durable
    }

    /// End of the last whole record taken in.
    pub fn record_end(&self) -> Lsn {
        self.state.borrow().scanner.record_end()
    }

    /// Whether more may be taken in before a flush.
    pub fn has_room(&self) -> bool {
        self.state.borrow().pending.len() < PENDING_BYTES_MAX
    }

    /// Whether WAL from `begin` on could follow what is here: what of it is new must decode. Gives what
    /// [`Wal::take`] wants; `None` if nothing is new, or there is a gap.
    pub fn check(&self, begin: Lsn, bytes: &[u8]) -> Result<Option<Scanner>> {
        let state = self.state.borrow();
        let end = state.scanner.position();
        match bytes.get(end.since(begin) as usize..) {
            Some(new) if begin <= end && !new.is_empty() => {
                let mut scanner = state.scanner.clone();
                scanner.feed(new)?;
                Ok(Some(scanner))
            }
            _ => Ok(None),
        }
    }

    /// Takes in WAL that begins at `end()`. `checked` spares a second look, if it is about just these bytes.
    pub fn take(&self, bytes: &[u8], checked: Option<Scanner>) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let end = state.scanner.position() + bytes.len() as u64;
        match checked.filter(|checked| checked.position() == end) {
            Some(checked) => state.scanner = checked,
            None => {
                let mut scanner = state.scanner.clone();
                scanner.feed(bytes)?;
                state.scanner = scanner;
            }
        }
        state.pending.extend_from_slice(bytes);
        if state.recent.is_empty() {
            state.recent_start = Lsn(state.scanner.position().0 - bytes.len() as u64);
        }
        state.recent.extend_from_slice(bytes);
        // Drained by halves, so that the copying stays small beside the writing.
        if state.recent.len() > RECENT_BYTES_MAX * 2 {
            let surplus = state.recent.len() - RECENT_BYTES_MAX;
            state.recent.drain(..surplus);
            state.recent_start = state.recent_start + surplus as u64;
        }
        Ok(())
    }

    /// Makes all WAL taken in before durable; returns its end and that of the last whole record. One call
    /// at a time. An error leaves unknown what is on disk: no call may follow it.
    pub async fn flush(self: &Rc<Wal>) -> Result<(Lsn, Lsn)> {
        let (mut batch, record_end) = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.pending), state.scanner.record_end())
        };
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let at = self.durable();
            let room = (WAL_SEGMENT_SIZE - at.segment_offset()) as usize;
            let (here, later) = rest.split_at(rest.len().min(room));
            self.write(at, here).await?;
            rest = later;
        }
        let mut state = self.state.borrow_mut();
        if state.pending.capacity() == 0 && batch.capacity() <= DISK_CHUNK_BYTES {
            batch.clear();
            state.pending = batch;
        }
        let durable = state.durable;
        drop(state);
        self.prepare_next(durable);
        Ok((durable, record_end))
    }

    /// One write and its flush, within one segment, at the durable end.
    async fn write(self: &Rc<Wal>, at: Lsn, bytes: &[u8]) -> Result<()> {
        let file = self.file_for(at.segment()).await?;
        let first = block_start(at.segment_offset());
        let end = at.segment_offset() + bytes.len() as u64;
        let mut buffer = IoBuf::with_capacity((block_end(end) - first) as usize);
        {
            let state = self.state.borrow();
            assert_eq!(first + state.tail.len() as u64, at.segment_offset(), "the tail block ends where WAL does");
            buffer.extend_from_slice(&state.tail);
        }
        buffer.extend_from_slice(bytes);
        let tail = buffer[(block_start(end) - first) as usize..].to_vec();
        buffer.resize((block_end(end) - first) as usize, 0);
        file.write_durable_at(buffer, first).await.0?;
        let mut state = self.state.borrow_mut();
        assert_eq!(state.durable, at, "one flush at a time");
        state.durable = at + bytes.len() as u64;
        state.tail = tail;
        Ok(())
    }

    async fn file_for(self: &Rc<Wal>, number: u64) -> Result<Rc<File>> {
        if let Some((current, file)) = &self.state.borrow().current
            && *current == number
        {
            return Ok(file.clone());
        }
        let file = match self.take_prepared(number).await {
            Some(file) => file,
            None if fs::exists(&segment::path(&self.dir, number)).await? => {
                Rc::new(segment::open_to_write(&self.dir, number).await?)
            }
            None => Rc::new(segment::create(&self.dir, number).await?),
        };
        self.state.borrow_mut().current = Some((number, file.clone()));
        Ok(file)
    }

    /// The segment prepared ahead, waiting for a preparation under way; `None` if there is none of that number.
    async fn take_prepared(&self, number: u64) -> Option<Rc<File>> {
        self.preparation_ended().await;
        match self.next.replace(Next::None) {
            Next::Ready(ready, file) if ready == number => Some(file),
            _ => None,
        }
    }

    /// Whether a segment is being made. Two `Wal`s over one directory at such a time would be one too many.
    pub fn is_preparing(&self) -> bool {
        matches!(*self.next.borrow(), Next::Preparing)
    }

    /// Ready once a preparation under way has ended.
    pub async fn preparation_ended(&self) {
        while self.is_preparing() {
            self.prepared.notified().await;
        }
    }

    fn prepare_next(self: &Rc<Wal>, durable: Lsn) {
        let number = durable.segment() + 1;
        let wanted = match *self.next.borrow() {
            Next::None => true,
            Next::Failed(failed) => failed != number,
            Next::Preparing | Next::Ready(..) => false,
        };
        if durable.segment_offset() < PREPARE_AHEAD_BYTES || !wanted {
            return;
        }
        *self.next.borrow_mut() = Next::Preparing;
        let wal = self.clone();
        ironpage_io::spawn(async move {
            let next = match segment::create(&wal.dir, number).await {
                Ok(file) => Next::Ready(number, Rc::new(file)),
                Err(error) => {
                    // Not yet a failure: the write that needs the segment will try once more, and decide.
                    warn!("timeline {}: the next WAL segment cannot be prepared: {error}", wal.timeline);
                    Next::Failed(number)
                }
            };
            *wal.next.borrow_mut() = next;
            wal.prepared.notify_all();
        });
    }

    /// Removes all WAL from `to` on, durably. Nothing may be pending or being flushed. `to` is a record end,
    /// or the durable end.
    pub async fn truncate(&self, to: Lsn) -> Result<()> {
        let _ = self.take_prepared(u64::MAX).await;
        info!("timeline {}: WAL from {to} to {} is cut: another history won", self.timeline, self.durable());
        let mut reader = Reader::new(&self.dir);
        let segments = segment::list(&self.dir).await?;
        clear_after(&self.dir, &mut reader, &segments, to).await?;
        let tail = read_tail(&mut reader, to).await?;
        let mut state = self.state.borrow_mut();
        assert!(state.pending.is_empty() && to <= state.durable);
        state.scanner = Scanner::new(self.timeline, to, None);
        state.durable = to;
        state.tail = tail;
        state.recent = Vec::new();
        state.recent_start = to;
        state.current = None;
        Ok(())
    }

    /// WAL from `from` on, `max` bytes at most, if memory still holds it.
    pub fn recent(&self, from: Lsn, max: usize) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        if from < state.recent_start {
            return None;
        }
        let rest = state.recent.get(from.since(state.recent_start) as usize..)?;
        Some(rest[..rest.len().min(max)].to_vec())
    }

    /// Gives back memory and files that only a timeline in use needs.
    pub fn rest(&self) {
        let mut state = self.state.borrow_mut();
        state.recent = Vec::new();
        state.recent_start = state.scanner.position();
        if state.pending.is_empty() {
            state.pending = Vec::new();
        }
    }
}

/// Makes the WAL found between `from` and `to` durable, and the segments' names. What a killed process wrote and
/// never flushed reads back like the rest, as long as the machine lives. Written again, not only flushed: after a
/// flush that failed Linux takes what was to be flushed for clean, and the next flush leaves it out.
async fn write_again(dir: &Path, reader: &mut Reader, from: Lsn, to: Lsn) -> Result<()> {
    let mut position = from;
    while position < to {
        let number = position.segment();
        let file = segment::open_to_write(dir, number).await?;
        while position < to && position.segment() == number {
            // Whole blocks: behind `to` there are zeros.
            let first = Lsn(block_start(position.0));
            let length = block_end(to.since(first)).min(DISK_CHUNK_BYTES as u64) as usize;
            let chunk = reader.read(first, length).await?;
            file.write_all_at(IoBuf::copy_of(&chunk), first.segment_offset()).await.0?;
            position = first + chunk.len() as u64;
        }
        file.sync_data().await?;
    }
    reader.close();
    Ok(fs::sync_dir(dir).await?)
}

/// Stands in a directory while WAL is being cleared there.
const CLEARING: &str = "clearing";

/// Makes everything from `at` on zeros, durably. The zeros at `at` come before any segment is removed:
/// after a crash in between, a scan stops there.
///
/// Zeros whose flush failed read back as zeros and are not durable: a loss of power may bring back what was
/// there before. So a file named `clearing` says, from before the first zero until after the last flush, that
/// what reads as zeros is to be written again.
async fn clear_after(dir: &Path, reader: &mut Reader, segments: &[u64], at: Lsn) -> Result<()> {
    let partial = at.segment_offset() > 0;
    let marker = dir.join(CLEARING);
    let mut marked = fs::exists(&marker).await?;
    if partial && segments.contains(&at.segment()) && (marked || !reads_as_zeros(reader, at).await?) {
        if !marked {
            let options = Options { write: true, create: true, ..Options::default() };
            File::open(&marker, options).await?;
            marked = true;
        }
        // Also of one found here: whether its name is durable is not known.
        fs::sync_dir(dir).await?;
        write_zeros(dir, reader, at).await?;
    }
    reader.close();
    let first_removed = if partial { at.segment() + 1 } else { at.segment() };
    let removed: Vec<u64> = segments.iter().copied().filter(|number| *number >= first_removed).collect();
    for number in removed.iter().rev() {
        fs::remove_file(&segment::path(dir, *number)).await?;
    }
    if marked {
        fs::remove_file(&marker).await?;
    }
    if marked || !removed.is_empty() {
        fs::sync_dir(dir).await?;
    }
    Ok(())
}

/// Whether nothing stands between `at` and the end of its segment, as far as a read can tell.
async fn reads_as_zeros(reader: &mut Reader, at: Lsn) -> Result<bool> {
    let mut position = at;
    while position.segment() == at.segment() {
        let chunk = reader.read(position, DISK_CHUNK_BYTES).await?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position = position + chunk.len() as u64;
    }
    Ok(true)
}

/// Writes zeros from `at` to the end of its segment, the blocks next to `at` first, each part durable before the next.
async fn write_zeros(dir: &Path, reader: &mut Reader, at: Lsn) -> Result<()> {
    let mut buffer = IoBuf::copy_of(&read_tail(reader, at).await?);
    let file = segment::open_to_write(dir, at.segment()).await?;
    let mut offset = block_start(at.segment_offset());
    while offset < WAL_SEGMENT_SIZE {
        buffer.resize((WAL_SEGMENT_SIZE - offset).min(DISK_CHUNK_BYTES as u64) as usize, 0);
        let length = buffer.len() as u64;
        file.write_durable_at(buffer, offset).await.0?;
        offset += length;
        buffer = IoBuf::zeroed(0);
    }
    Ok(())
}

/// What the block in which `at` lies holds before `at`.
async fn read_tail(reader: &mut Reader, at: Lsn) -> Result<Vec<u8>> {
    let before = (at.segment_offset() % BLOCK_SIZE) as usize;
    if before == 0 {
        return Ok(Vec::new());
    }
    let chunk: Chunk = reader.read(Lsn(at.0 - before as u64), before).await?;
    Ok(chunk.to_vec())
}
