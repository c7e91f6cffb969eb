//! The source's WAL into the log: checked for being the WAL that follows what is there, record by record.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::{info, warn};
use crate::progress::Lag;
use crate::source::{self, Said, Source};
use crate::wal::WalLog;
use ironpage_layout::Lsn;
use ironpage_layout::postgres::wal::{Next, WalError, WalStream};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far the source may be ahead of what is committed, in bytes received: the rest waits in its slot.
const UNCOMMITTED_MAX: u64 = 32 << 20;
/// The source hears from us at least so often (its wal_sender_timeout is 60 s by default).
const CONFIRM_EVERY: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach the source: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// How it is with the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceState {
    Connecting,
    Streaming,
    /// It is tried again.
    Away {
        why: String,
        since: Instant,
    },
    /// For good.
    Refused(String),
}

/// What the stream and the leader share.
#[derive(Debug)]
pub struct Inner {
    pub log: WalLog,
    /// All before it is on a quorum.
    pub commit: Lsn,
    /// End of the source's WAL as it last said.
    pub source_end: Lsn,
    pub lag: Lag,
    pub state: SourceState,
}

#[derive(Debug)]
pub struct Shared {
    inner: Mutex<Inner>,
    moved: Condvar,
}

impl Shared {
    pub fn new(log: WalLog, commit: Lsn) -> Shared {
        let (source_end, lag, state) = (Lsn::INVALID, Lag::default(), SourceState::Connecting);
        Shared { inner: Mutex::new(Inner { log, commit, source_end, lag, state }), moved: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in there is left half done by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More is committed: there may be room again.
    pub fn committed(&self, commit: Lsn) {
        let mut inner = self.lock();
        inner.commit = inner.commit.max(commit);
        let commit = inner.commit;
        inner.log.trim(commit);
        drop(inner);
        self.moved.notify_all();
    }
}

/// The reading side.
pub struct Stream {
    pub config: Config,
    pub system_id: u64,
    pub shared: Arc<Shared>,
    /// Stands where the log ends.
    pub checker: WalStream,
    /// Readable whenever there is something to confirm.
    pub wake: UnixStream,
    /// Called whenever the leader should look.
    pub notify: Box<dyn Fn() + Send>,
}

impl Stream {
    /// Follows until the source is refused.
    pub fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            let end_before = self.shared.lock().log.end();
            let Err(error) = self.follow();
            let mut inner = self.shared.lock();
            if inner.log.end() > end_before {
                pause = RETRY_FIRST;
            }
            if !error.passes() {
                warn(&error.to_string());
                inner.state = SourceState::Refused(error.to_string());
                drop(inner);
                (self.notify)();
                return;
            }
            let (why, now) = (error.to_string(), Instant::now());
            match &mut inner.state {
                SourceState::Away { why: known, .. } if *known == why => {}
                SourceState::Away { why: known, .. } => {
                    warn(&why);
                    *known = why;
                }
                state => {
                    warn(&why);
                    *state = SourceState::Away { why, since: now };
                }
            }
            drop(inner);
            (self.notify)();
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// One connection, to its end.
    fn follow(&mut self) -> Result<std::convert::Infallible> {
        let mut source = Source::connect(&self.config.settings.source)?;
        let (received, mut at) = {
            let inner = self.shared.lock();
            let received = inner.log.end();
            // The segment under way once more, from its start: the slot has it, and it must be the same.
            (received, received.segment_start().max(inner.log.start()))
        };
        check_source(&mut source, self.system_id, received)?;
        source.start_replication(&self.config.settings.slot, at).map_err(|error| final_or_not(error, received))?;
        info(&format!("the source streams WAL from {received} on"));
        self.shared.lock().state = SourceState::Streaming;
        (self.notify)();
        let mut confirmed = Lsn::INVALID;
        let mut confirmed_at = Instant::now();
        loop {
            let said = source.next(self.wake.as_raw_fd(), CONFIRM_EVERY / 2)?;
            let mut asked = false;
            match said {
                Said::Wal(wal) => {
                    if wal.begin != at {
                        return Err(Error::Source(format!("it sent WAL from {} where {at} was next", wal.begin)));
                    }
                    at = wal.begin + wal.bytes().len() as u64;
                    self.take(wal.begin, wal.bytes())?;
                    self.saw_end(wal.wal_end);
                    self.wait_for_room(&mut source)?;
                }
                Said::Keepalive { wal_end, reply } => {
                    asked = reply;
                    self.saw_end(wal_end);
                }
                Said::Nothing => {}
                Said::Ended { next_timeline: Some(next) } => {
                    let next = next.parse().unwrap_or(source::TIMELINE + 1);
                    return Err(source::other_timeline(next));
                }
                Said::Ended { next_timeline: None } => return Err(Error::Source("it ended the stream: it shuts down".into())),
            }
            drain(&mut self.wake);
            let commit = self.shared.lock().commit;
            if asked || commit > confirmed || confirmed_at.elapsed() > CONFIRM_EVERY {
                source.confirm(commit)?;
                (confirmed, confirmed_at) = (commit, Instant::now());
            }
        }
    }

    /// WAL from `begin` on: what is here already must be the same, what is new must be records that follow.
    fn take(&mut self, begin: Lsn, bytes: &[u8]) -> Result<()> {
        let mut inner = self.shared.lock();
        let end = inner.log.end();
        let known = end.since(begin).min(bytes.len() as u64) as usize;
        let (again, new) = bytes.split_at(known);
        if !again.is_empty() && inner.log.get(begin, known) != Some(again) {
            let differs =
                inner.log.get(begin, known).unwrap_or_default().iter().zip(again).position(|(ours, theirs)| ours != theirs);
            return Err(other_history(begin + differs.unwrap_or(0) as u64));
        }
        if new.is_empty() {
            return Ok(());
        }
        drop(inner);
        let broken = |error: WalError, at: Lsn| {
            Error::Refused(format!(
                "the source's WAL does not continue what was received before {at}: {error}. It is not the server that was \
                 followed until now, or it was restored; branches of what was received stay usable. Follow it anew into another \
                 tenant"
            ))
        };
        self.checker.feed(end, new).map_err(|error| broken(error, end))?;
        loop {
            let at = self.checker.record_end();
            match self.checker.next_record().map_err(|error| broken(error, at))? {
                Next::Record(_) => {}
                Next::NeedBytes => break,
                Next::EndOfWal => return Err(Error::Source(format!("it sent zeros where WAL from {at} on was due"))),
            }
        }
        inner = self.shared.lock();
        inner.log.append(new);
        drop(inner);
        (self.notify)();
        Ok(())
    }

    fn saw_end(&self, end: Lsn) {
        let mut inner = self.shared.lock();
        inner.source_end = inner.source_end.max(end);
        let (end, now) = (inner.source_end, Instant::now());
        inner.lag.seen(end, now);
    }

    /// Does not read on while too much is not committed; the source hears from us all the same.
    fn wait_for_room(&self, source: &mut Source) -> Result<()> {
        loop {
            let inner = self.shared.lock();
            if inner.log.end().since(inner.commit) <= UNCOMMITTED_MAX {
                return Ok(());
            }
            let (inner, _) = self.shared.moved.wait_timeout(inner, CONFIRM_EVERY).unwrap_or_else(PoisonError::into_inner);
            let commit = inner.commit;
            drop(inner);
            source.confirm(commit)?;
        }
    }
}

/// Empties what woke us.
fn drain(wake: &mut UnixStream) {
    let mut scrap = [0; 64];
    while matches!(wake.read(&mut scrap), Ok(read) if read == scrap.len()) {}
}

/// The source is the one that was followed until now, as far as it can say, and has what was received from it.
fn check_source(source: &mut Source, system_id: u64, received: Lsn) -> Result<()> {
    let identity = source.identify()?;
    if identity.system_id != system_id {
        return Err(Error::Refused(format!(
            "the source is another cluster: its system identifier is {}, that of what was followed until now {system_id}. Does the \
             connection string still name the right server? To follow this one too, use another tenant",
            identity.system_id
        )));
    }
    if identity.timeline != source::TIMELINE {
        return Err(source::other_timeline(identity.timeline));
    }
    if identity.wal_end < received {
        // A standby that has just started may not have replayed again what it had.
        let standby = source.show("in_hot_standby")? == "on";
        let why = format!("its WAL ends at {}, and {received} was received from it", identity.wal_end);
        return Err(if standby {
            Error::Source(format!("it is a standby that is not there again yet: {why}"))
        } else {
            Error::Refused(format!(
                "the source was restored to an earlier state: {why}. Branches of what was received stay usable; follow it anew into \
                 another tenant"
            ))
        });
    }
    Ok(())
}

fn other_history(at: Lsn) -> Error {
    Error::Refused(format!(
        "the source's WAL differs at {at} from what was received: it was restored or replaced since. Branches of what was received \
         stay usable; follow it anew into another tenant"
    ))
}

/// Which refusals of START_REPLICATION time does not heal.
fn final_or_not(error: Error, received: Lsn) -> Error {
    let Error::SourceSays { sqlstate, message } = &error else { return error };
    let why = match sqlstate.as_str() {
        // undefined_file: the WAL is gone.
        "58P01" => "it has removed WAL that was not received yet",
        // undefined_object: the slot is gone.
        "42704" => "the slot was dropped there",
        // object_not_in_prerequisite_state: the slot was invalidated (max_slot_wal_keep_size).
        "55000" => "the slot keeps no WAL any more",
        _ => return error,
    };
    Error::Refused(format!(
        "the source cannot be followed on from {received}: {why} ({message}). Branches of what was received stay usable; follow it anew \
         into another tenant, and let its max_slot_wal_keep_size allow for the time a follower may be away"
    ))
}
