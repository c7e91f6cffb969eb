//! Where records end: in WAL as it arrives, and in what a crash left on disk.

use super::reader::Reader;
use crate::error::{Error, Result};
use crate::limits::DISK_CHUNK_BYTES;
use ironpage_layout::postgres::wal::{Next, Verify, WalError, WalStream};
use ironpage_layout::{Lsn, TimelineId};

/// Bytes fed at once, so that the scanner holds little and is cheap to copy.
const FEED_BYTES: usize = 8 << 10;

/// Follows the records of arriving WAL. Headers only: on the wire the CRC of the frame has vouched for the bytes.
#[derive(Clone, Debug)]
pub struct Scanner {
    timeline: TimelineId,
    stream: WalStream,
}

impl Scanner {
    /// From `at`, a record end; `prev` is the start of the record that ends there, if it is known.
    pub fn new(timeline: TimelineId, at: Lsn, prev: Option<Lsn>) -> Scanner {
        let stream = WalStream::new(at, Verify::Headers);
        Scanner { timeline, stream: stream.with_prev(prev.unwrap_or(Lsn::INVALID)) }
    }

    /// LSN of the next byte.
    pub fn position(&self) -> Lsn {
        self.stream.position()
    }

    /// End of the last whole record seen.
    pub fn record_end(&self) -> Lsn {
        self.stream.record_end()
    }

    /// Takes the bytes that begin at `position()`. After an error this scanner is of no more use: feed a copy.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let timeline = self.timeline;
        let bad = |error| Error::BadWal { timeline, error };
        for chunk in bytes.chunks(FEED_BYTES) {
            self.stream.feed(self.stream.position(), chunk).map_err(bad)?;
            loop {
                match self.stream.next_record().map_err(bad)? {
                    Next::Record(_) => {}
                    Next::NeedBytes => break,
                    Next::EndOfWal => return Err(Error::ZeroWal { timeline, at: self.stream.record_end() }),
                }
            }
        }
        Ok(())
    }
}

/// The end of the WAL on disk.
#[derive(Debug)]
pub struct End {
    /// End of the last whole record that checks.
    pub record_end: Lsn,
    /// Its start, if there was one behind the place where the scan began.
    pub prev: Option<Lsn>,
    /// What stands behind it, if not zeros: after a crash within a write that is normal.
    pub broken: Option<WalError>,
}

/// Reads records from `from`, a record end, until one does not check or the segments end.
pub async fn find_end(reader: &mut Reader, from: Lsn, prev: Option<Lsn>, system_id: u64) -> Result<End> {
    let mut stream = WalStream::new(from, Verify::Crc).with_prev(prev.unwrap_or(Lsn::INVALID)).with_system_id(system_id);
    let mut broken = None;
    'read: while let Some(chunk) = reader.read_if_there(stream.position(), DISK_CHUNK_BYTES).await? {
        if let Err(error) = stream.feed(stream.position(), &chunk) {
            broken = Some(error);
            break;
        }
        loop {
            match stream.next_record() {
                Ok(Next::Record(_)) => {}
                Ok(Next::NeedBytes) => break,
                Ok(Next::EndOfWal) => break 'read,
                Err(error) => {
                    broken = Some(error);
                    break 'read;
                }
            }
        }
    }
    Ok(End { record_end: stream.record_end(), prev: stream.prev(), broken })
}
