//! Reads WAL back from its segments.

use super::segment;
use super::{block_end, block_start};
use crate::error::Result;
use ironpage_io::IoBuf;
use ironpage_io::fs::File;
use ironpage_layout::Lsn;
use ironpage_layout::lsn::WAL_SEGMENT_SIZE;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// One reader of a timeline's segments; keeps the segment it reads open.
pub struct Reader {
    dir: PathBuf,
    open: Option<(u64, File)>,
}

/// WAL bytes, in the buffer the disk wrote them to.
pub struct Chunk {
    buffer: IoBuf,
    start: usize,
    end: usize,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

impl Reader {
    pub fn new(dir: &Path) -> Reader {
        Reader { dir: dir.to_path_buf(), open: None }
    }

    /// WAL from `from` on: `max` bytes, fewer only where the segment ends. The caller knows that it is
    /// flushed; bytes behind the end of WAL read as zeros.
    pub async fn read(&mut self, from: Lsn, max: usize) -> Result<Chunk> {
        let file = self.segment(from.segment()).await?;
        let offset = from.segment_offset();
        let end = (offset + max as u64).min(WAL_SEGMENT_SIZE);
        let first = block_start(offset);
        let wanted = (block_end(end) - first) as usize;
        let mut buffer = IoBuf::with_capacity(wanted);
        buffer.set_len(wanted);
        let (result, buffer) = file.read_exact_at(buffer, first).await;
        result?;
        Ok(Chunk { buffer, start: (offset - first) as usize, end: (end - first) as usize })
    }

    /// As [`Reader::read`]; `None` if there is no such segment.
    pub async fn read_if_there(&mut self, from: Lsn, max: usize) -> Result<Option<Chunk>> {
        match self.read(from, max).await {
            Ok(chunk) => Ok(Some(chunk)),
            Err(crate::error::Error::Io(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets the open segment: it may have been removed.
    pub fn close(&mut self) {
        self.open = None;
    }

    async fn segment(&mut self, number: u64) -> Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.open = Some((number, segment::open_to_read(&self.dir, number).await?));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => unreachable!("set above"),
        }
    }
}
