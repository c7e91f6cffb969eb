//! The WAL before a new timeline's start, as it comes in: up to a segment of it, so few are taken in at once.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::limits::{PREFIX_TIMEOUT, PREFIXES_MAX};
use ironpage_daemon::frames::{FrameError, FrameReader};
use ironpage_io::time::timeout;
use ironpage_layout::wire::admin::{TimelineCreate, TimelinePrefix};
use ironpage_layout::wire::{Kind, MAX_WAL_CHUNK, WireError};

/// A prefix in memory: one of `PREFIXES_MAX`.
pub struct Prefix<'a> {
    pub bytes: Vec<u8>,
    context: &'a Context,
}

impl Drop for Prefix<'_> {
    fn drop(&mut self) {
        self.context.prefixes.set(self.context.prefixes.get() - 1);
    }
}

/// Reads the frames that follow `create`. After an error the connection is of no more use.
pub async fn receive<'a>(context: &'a Context, reader: &mut FrameReader, create: &TimelineCreate) -> Result<Prefix<'a>> {
    let prefixes = context.prefixes.get();
    if prefixes == PREFIXES_MAX {
        return Err(Error::TooManyCreations { creations: PREFIXES_MAX });
    }
    context.prefixes.set(prefixes + 1);
    let mut prefix = Prefix { bytes: Vec::new(), context };
    let late = FrameError::Timeout {
        peer: reader.peer().to_string(),
        what: "the WAL before a new timeline's start",
        seconds: PREFIX_TIMEOUT.as_secs(),
    };
    timeout(PREFIX_TIMEOUT, take(reader, create, &mut prefix.bytes)).await.unwrap_or(Err(late.into()))?;
    Ok(prefix)
}

async fn take(reader: &mut FrameReader, create: &TimelineCreate, bytes: &mut Vec<u8>) -> Result<()> {
    let bad = |why| Error::from(WireError::BadPayload { what: "TimelinePrefix", why });
    let length = create.prefix_length as usize;
    // A start that is none is refused later, with its reason.
    let begin = create.start_lsn.0.wrapping_sub(length as u64);
    while bytes.len() < length {
        let frame = reader.next().await?;
        if frame.header.kind != Kind::TimelinePrefix {
            return Err(Error::NotAllowed {
                what: format!("a frame of kind {:?} before the end of a prefix", frame.header.kind),
            });
        }
        let (head, wal) = TimelinePrefix::decode_prefix(frame.payload)?;
        if head.begin_lsn.get() != begin.wrapping_add(bytes.len() as u64) {
            return Err(bad("it does not follow the one before it"));
        }
        if wal.is_empty() || wal.len() > MAX_WAL_CHUNK || wal.len() > length - bytes.len() {
            return Err(bad("it has no WAL, or more than was announced or fits a frame"));
        }
        bytes.extend_from_slice(wal);
    }
    Ok(())
}
