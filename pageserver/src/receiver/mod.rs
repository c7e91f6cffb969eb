//! WAL from the safekeepers into a timeline.
//!
//! The pageserver reads committed WAL from one safekeeper. It changes to the next when that one fails or
//! falls silent, and when it stands still while another has more.
//!
//! A branch is not known to any safekeeper before its first endpoint starts. That is no failure: the receiver asks ever
//! less often, and at once when it is told that the branch was made there.

mod past;
mod position;
mod source;

pub use past::PastWal;
pub use position::{Position, positions};

use crate::race::{First, race};
use crate::timeline::{IngestStop, Timeline};
use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::FrameError;
use ironpage_daemon::{debug, info, warn};
use ironpage_io::sync::{OneReceiver, oneshot};
use ironpage_io::time::{now, sleep, timeout};
use ironpage_layout::Lsn;
use ironpage_layout::postgres::wal::WalStream;
use ironpage_layout::wire::ErrorCode;
use source::{Event, Source};
use std::rc::Rc;
use std::time::Duration;

/// A safekeeper sends something at least once a second; after this long without, it counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// After this long without new WAL another safekeeper is asked whether it has more.
const STALL_MAX: Duration = Duration::from_secs(2);
/// How long that question may take.
const PROBE_MAX: Duration = Duration::from_secs(3);
/// Pause after no safekeeper could be reached, doubled up to the second.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Longest pause after no safekeeper knew the timeline: there may be thousands of such, and a wake ends it.
const ABSENT_MAX: Duration = Duration::from_secs(10);

/// Why a safekeeper was left for another.
enum Left {
    /// It failed; how.
    Failed(String),
    /// It does not know the timeline.
    Absent,
    /// Another one has more WAL; its stream is open.
    Behind(Source),
    /// What it sent is not the WAL that belongs here.
    BadWal(IngestStop),
}

/// Keeps `timeline` fed until it stops or is deleted. Returns then.
pub async fn run(timeline: Rc<Timeline>, safekeepers: Vec<Address>) {
    let deleted = timeline.clone();
    race(deleted.wait_deleted(), feed(timeline, safekeepers)).await;
}

async fn feed(timeline: Rc<Timeline>, safekeepers: Vec<Address>) {
    let mut receiver = Receiver { stream: timeline.wal_stream(), timeline, safekeepers, chosen: 0, bad_in_a_row: 0 };
    if receiver.safekeepers.is_empty() {
        return;
    }
    let mut retry = RETRY_MIN;
    let mut failures = 0;
    // Safekeepers in a row that did not know the timeline.
    let mut absent = 0;
    let mut next = None;
    loop {
        let opened = match next.take() {
            Some(source) => Ok(source),
            None => receiver.open(receiver.chosen).await,
        };
        let left = match opened {
            Ok(source) => receiver.follow(source, &mut failures).await,
            Err(left) => Ok(left),
        };
        if failures == 0 {
            retry = RETRY_MIN;
        }
        absent = if matches!(left, Ok(Left::Absent)) { absent + 1 } else { 0 };
        match left {
            Ok(Left::Behind(source)) => {
                receiver.chosen = source.index;
                next = Some(source);
                continue;
            }
            Ok(Left::Absent) => {}
            Ok(Left::Failed(why)) if failures == 0 => {
                warn!("timeline {}: {why}; trying the next safekeeper", receiver.timeline.id())
            }
            Ok(Left::Failed(why)) => debug!("timeline {}: {why}; trying the next safekeeper", receiver.timeline.id()),
            Ok(Left::BadWal(error)) if receiver.bad_in_a_row < receiver.safekeepers.len() => {
                warn!("timeline {}: safekeeper {}: {error}", receiver.timeline.id(), receiver.safekeepers[receiver.chosen]);
                receiver.stream.rewind();
            }
            Ok(Left::BadWal(error)) | Err(error) => {
                receiver.timeline.stop(&error);
                return;
            }
        }
        failures += 1;
        receiver.chosen = (receiver.chosen + 1) % receiver.safekeepers.len();
        if failures % receiver.safekeepers.len() == 0 {
            let longest = if absent >= receiver.safekeepers.len() { ABSENT_MAX } else { RETRY_MAX };
            if let First::Right(()) = race(sleep(retry.min(longest)), receiver.timeline.receiver_woken()).await {
                retry = RETRY_MIN;
            }
            retry = (retry * 2).min(longest);
        }
    }
}

struct Receiver {
    timeline: Rc<Timeline>,
    safekeepers: Vec<Address>,
    stream: WalStream,
    /// Index of the safekeeper in use.
    chosen: usize,
    /// Safekeepers whose WAL was refused since the last record that was taken.
    bad_in_a_row: usize,
}

impl Receiver {
    async fn open(&self, index: usize) -> Result<Source, Left> {
        let Some(address) = self.safekeepers.get(index) else {
            return Err(Left::Failed("no safekeepers are configured".into()));
        };
        Source::open(address, index, &self.timeline.hello(), self.stream.position()).await.map_err(|error| match error {
            FrameError::Remote { error, .. } if error.code == ErrorCode::NotFound => Left::Absent,
            error => Left::Failed(error.to_string()),
        })
    }

    /// Ingests from `source` until there is a reason to change. An error is the timeline's, not the safekeeper's.
    async fn follow(&mut self, mut source: Source, failures: &mut usize) -> Result<Left, IngestStop> {
        let mut probe = Probe::default();
        let mut moved_at = now();
        let mut known_commit = Lsn::INVALID;
        info!("timeline {}: WAL from {} on comes from safekeeper {}", self.timeline.id(), self.stream.position(), source.address);
        loop {
            let event = match race(timeout(SILENCE_MAX, source.next()), probe.wait()).await {
                First::Right(Some(other)) => return Ok(Left::Behind(other)),
                First::Right(None) => continue,
                First::Left(Err(_)) => return Ok(Left::Failed(format!("{} is silent", source.address))),
                First::Left(Ok(Event::Ended(why))) => return Ok(Left::Failed(why)),
                First::Left(Ok(event)) => event,
            };
            *failures = 0;
            match event {
                Event::Wal { begin, bytes, commit_lsn, term } => {
                    self.timeline.learn_term(term);
                    known_commit = known_commit.max(commit_lsn);
                    let before = self.stream.record_end();
                    if let Err(error) = self.take(begin, &bytes).await {
                        if !error.is_of_the_stream() {
                            return Err(error);
                        }
                        self.bad_in_a_row += 1;
                        return Ok(Left::BadWal(error));
                    }
                    if self.stream.record_end() > before {
                        self.bad_in_a_row = 0;
                        moved_at = now();
                    }
                }
                Event::Idle { commit_lsn, term } => {
                    self.timeline.learn_term(term);
                    known_commit = known_commit.max(commit_lsn);
                }
                Event::Ended(why) => return Ok(Left::Failed(why)),
            }
            if moved_at.elapsed() > STALL_MAX && self.safekeepers.len() > 1 {
                moved_at = now();
                self.start_probe(&mut probe, known_commit);
            }
        }
    }

    /// Feeds a chunk, less what is here already, and ingests the records that became whole.
    async fn take(&mut self, begin: Lsn, bytes: &[u8]) -> Result<(), IngestStop> {
        let known = self.stream.position().since(begin);
        let new = usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or_default();
        self.stream.feed(begin + known, new)?;
        self.timeline.ingest(&mut self.stream).await
    }

    /// Asks the safekeepers in turn, one a call, whether they have more than `known_commit`.
    fn start_probe(&self, probe: &mut Probe, known_commit: Lsn) {
        if probe.answer.is_some() {
            return;
        }
        probe.turn = probe.turn % (self.safekeepers.len() - 1) + 1;
        let index = (self.chosen + probe.turn) % self.safekeepers.len();
        let (address, hello, from) = (self.safekeepers[index].clone(), self.timeline.hello(), self.stream.position());
        let (sender, answer) = oneshot();
        probe.answer = Some(answer);
        drop(ironpage_io::spawn(async move {
            let attempt = timeout(PROBE_MAX, async {
                let mut source = Source::open(&address, index, &hello, from).await.ok()?;
                (source.peek().await? > known_commit.max(from)).then_some(source)
            });
            let _ = sender.send(attempt.await.unwrap_or_default());
        }));
    }
}

/// A question to another safekeeper, if one is under way.
#[derive(Default)]
struct Probe {
    answer: Option<OneReceiver<Option<Source>>>,
    turn: usize,
}

impl Probe {
    /// The stream of a safekeeper that has more; `None` if the one asked has not. For ever if none was asked.
    async fn wait(&mut self) -> Option<Source> {
        let Some(answer) = &mut self.answer else { return std::future::pending().await };
        let source = answer.await.flatten();
        self.answer = None;
        source
    }
}
