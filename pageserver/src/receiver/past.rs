//! WAL that was committed long ago, read again.

use super::source::{Event, Source};
use crate::timeline::{Timeline, TimelineError};
use ironpage_daemon::cli::Address;
use ironpage_io::time::{sleep, timeout};
use ironpage_layout::Lsn;
use std::time::Duration;

/// How long one safekeeper may take for the next chunk.
const CHUNK_MAX: Duration = Duration::from_secs(5);
/// Every safekeeper is tried so many times in a row before it is given up.
const ROUNDS_MAX: usize = 2;
/// Pause before another round.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads a timeline's committed WAL from whichever safekeeper has it.
pub struct PastWal<'a> {
    timeline: &'a Timeline,
    safekeepers: &'a [Address],
    source: Option<Source>,
    /// Which safekeeper is asked next.
    next: usize,
    /// Attempts that came to nothing since the last chunk.
    failures: usize,
    why: String,
}

impl<'a> PastWal<'a> {
    /// Nothing is asked before the first read.
    pub fn new(timeline: &'a Timeline, safekeepers: &'a [Address]) -> PastWal<'a> {
        let why = "no safekeepers are configured".into();
        PastWal { timeline, safekeepers, source: None, next: 0, failures: 0, why }
    }

    /// Committed WAL from `at` on, at least a byte.
    pub async fn read(&mut self, at: Lsn) -> Result<Vec<u8>, TimelineError> {
        loop {
            if self.failures >= self.safekeepers.len() * ROUNDS_MAX {
                let why = format!("its WAL from {at} on cannot be read: {}", self.why);
                return Err(TimelineError::Unavailable { timeline: self.timeline.id(), why });
            }
            if self.failures > 0 && self.failures.is_multiple_of(self.safekeepers.len()) && self.source.is_none() {
                sleep(PAUSE).await;
            }
            match self.attempt(at).await {
                Ok(bytes) => return Ok(bytes),
                Err(why) => self.distrust(why),
            }
        }
    }

    /// What was read last from here is of no use; another safekeeper is asked. Bounded: see [`PastWal::trust`].
    pub fn distrust(&mut self, why: String) {
        self.why = why;
        self.failures += 1;
        self.source = None;
    }

    /// What was read so far was good.
    pub fn trust(&mut self) {
        self.failures = 0;
    }

    async fn attempt(&mut self, at: Lsn) -> Result<Vec<u8>, String> {
        let mut source = match self.source.take() {
            Some(source) => source,
            None => {
                let index = self.next % self.safekeepers.len().max(1);
                self.next = index + 1;
                let address = self.safekeepers.get(index).ok_or("no safekeepers are configured")?;
                let opened = Source::open(address, index, &self.timeline.hello(), at).await;
                opened.map_err(|error| error.to_string())?
            }
        };
        match timeout(CHUNK_MAX, source.next()).await {
            Ok(Event::Wal { begin, bytes, .. }) => {
                let known = usize::try_from(at.since(begin)).unwrap_or(usize::MAX);
                let new = bytes.get(known..).filter(|new| begin <= at && !new.is_empty());
                let new = new.ok_or_else(|| format!("{} sent WAL from {begin} on", source.address))?.to_vec();
                self.source = Some(source);
                Ok(new)
            }
            Ok(Event::Idle { commit_lsn, .. }) => Err(format!("{} knows it to be committed up to {commit_lsn}", source.address)),
            Ok(Event::Ended(why)) => Err(why),
            Err(_) => Err(format!("{} is silent", source.address)),
        }
    }
}
