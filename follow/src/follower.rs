//! A follower from its first start to its last: slot, base backup, safekeepers, then the stream for ever.

use crate::client::{Client, Identity, Peer};
use crate::config::Config;
use crate::error::{AtPath, Error, Result};
use crate::import::{self, Imported};
use crate::leader::{self, Ended, Event, Events};
use crate::log::{info, warn};
use crate::metadata;
use crate::pq;
use crate::progress::Progress;
use crate::source::{self, Source};
use crate::state::{Copy, State};
use crate::stream::{Shared, SourceState, Stream};
use crate::wal::{WalLog, last_record};
use ironpage_layout::postgres::wal::{Verify, WalStream};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::admin::{Status, StatusReply};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::walstream::{WalData, WalStart};
use ironpage_layout::{Lsn, TimelineId};
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::{Duration, Instant};
use zerocopy::little_endian::{U32, U64};

/// Pauses after failures that may pass, doubled from the first to the last: each attempt may be a base backup of a server that
/// has other work.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// How long a daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long safekeepers may take to answer before the follower is said to wait for them.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the progress file is written.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// One run of a follower. Holds the lock of its directory.
pub struct Follower {
    config: Config,
    state: State,
    progress: Progress,
    _lock: File,
}

impl Follower {
    pub fn open(config: Config) -> Result<Follower> {
        let path = config.dir.join("lock");
        let lock = File::create(&path).at("create", &path)?;
        if lock.try_lock().is_err() {
            return Err(Error::Refused(format!(
                "tenant '{}' is followed into already, by the process that holds {}",
                config.settings.tenant,
                path.display()
            )));
        }
        let state = State::read(&config.dir)?;
        let source = pq::without_password(&config.settings.source)?;
        let progress = Progress { state: "starting".into(), source, slot: config.settings.slot.clone(), ..Progress::default() };
        Ok(Follower { config, state, progress, _lock: lock })
    }

    /// Runs until something that does not pass.
    pub fn run(&mut self) -> Error {
        let mut pause = RETRY_FIRST;
        loop {
            let began = Instant::now();
            let Err(error) = self.attempt();
            if began.elapsed() > 2 * RETRY_LAST {
                pause = RETRY_FIRST;
            }
            // Nothing was made yet: whoever started us is still there to be told.
            if !error.passes() || !self.state.slot_is_ours {
                warn(&error.to_string());
                self.tell("refused", &error.to_string());
                return error;
            }
            warn(&format!("{error}; trying again"));
            self.tell("waiting", &error.to_string());
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    fn tell(&mut self, state: &str, message: &str) {
        self.progress.state = state.into();
        self.progress.message = message.into();
        // What it would say is in the log as well.
        let _ = self.progress.write(&self.config.dir);
    }

    fn attempt(&mut self) -> Result<std::convert::Infallible> {
        if !self.is_imported()? {
            self.begin()?;
        }
        let copy = self.copy()?;
        self.progress.timeline = copy.timeline.clone();
        self.create_at_safekeepers()?;
        self.follow()
    }

    fn copy(&self) -> Result<Copy> {
        self.state.copy.clone().ok_or_else(|| Error::Refused("no base backup was taken".into()))
    }

    /// Whether the pageserver has the timeline; what an import that was cut off left is forgotten.
    fn is_imported(&mut self) -> Result<bool> {
        let Some(copy) = self.state.copy.clone() else { return Ok(false) };
        if copy.imported {
            return Ok(true);
        }
        let mut client = Client::connect(&self.config.pageserver, Role::Admin, Identity::default(), ANSWER)?;
        client.send(Kind::Status, |out| Status { reserved: U64::ZERO }.encode(out))?;
        let payload = client.expect(Kind::StatusReply, "StatusReply")?;
        let status = StatusReply::decode(&payload).map_err(|error| self.config.pageserver.wire(error))?;
        let there = status.timelines.iter().any(|timeline| timeline.timeline.to_string() == copy.timeline);
        if there {
            self.state.copy = Some(Copy { imported: true, ..copy });
            self.state.write(&self.config.dir)?;
        }
        Ok(there)
    }

    /// The slot, then the base backup.
    fn begin(&mut self) -> Result<()> {
        self.tell("backup", "connecting to the source");
        let mut source = Source::connect(&self.config.settings.source)?;
        let identity = source.identify()?;
        if identity.timeline != source::TIMELINE {
            return Err(source::other_timeline(identity.timeline));
        }
        let slot = self.config.settings.slot.clone();
        match (source.slot(&slot)?, self.state.slot_is_ours) {
            (Some(_), false) => {
                return Err(Error::Refused(format!(
                    "the source has a slot '{slot}' already, which is not ours: name another (--slot), or drop that one there with \
                     SELECT pg_drop_replication_slot('{slot}')"
                )));
            }
            (Some(_), true) => {}
            (None, _) => {
                self.state.slot_is_ours = true;
                self.state.write(&self.config.dir)?;
                source.create_slot(&slot)?;
                info(&format!("slot {slot} is made at the source"));
            }
        }
        let version = source.version();
        drop(source);

        let mut id = TimelineId::default();
        getrandom::fill(&mut id.0).map_err(|error| Error::Backup(format!("no random number: {error}")))?;
        self.progress.backup_bytes = 0;
        self.tell("backup", "taking a base backup of the source");
        let (state, dir) = (&mut self.state, self.config.dir.clone());
        let mut before_end = |imported: Imported| {
            state.copy = Some(Copy {
                timeline: id.to_string(),
                system_id: identity.system_id,
                postgres_version: version,
                start_lsn: imported.start_lsn.to_string(),
                prev_record_lsn: imported.prev_record_lsn.to_string(),
                readable_lsn: imported.readable_lsn.to_string(),
                imported: false,
                safekeepers: Vec::new(),
            });
            state.write(&dir)
        };
        let imported = import::import(&self.config, id, identity.system_id, &mut self.progress, &mut before_end)?;
        info(&format!("the base backup is in: from {}, readable from {}", imported.start_lsn, imported.readable_lsn));
        if let Some(copy) = &mut self.state.copy {
            copy.imported = true;
        }
        self.state.write(&self.config.dir)
    }

    fn identity(&self, copy: &Copy) -> Result<Identity> {
        Ok(Identity {
            tenant: self.config.tenant,
            timeline: copy.timeline.parse().map_err(|_| damaged_state())?,
            system_id: copy.system_id,
            postgres_version: copy.postgres_version,
        })
    }

    /// Makes the timeline at the safekeepers that never had it. A quorum must have it; the others follow at a later start.
    fn create_at_safekeepers(&mut self) -> Result<()> {
        let mut copy = self.copy()?;
        let identity = self.identity(&copy)?;
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|_| damaged_state());
        let start = Imported {
            start_lsn: lsn(&copy.start_lsn)?,
            prev_record_lsn: lsn(&copy.prev_record_lsn)?,
            readable_lsn: lsn(&copy.readable_lsn)?,
        };
        // Numbers are places in the list: what was created may never be again, or it could come back without its log.
        let number = |index: usize| index as u64 + 1;
        let missing: Vec<usize> =
            (0..self.config.safekeepers.len()).filter(|index| !copy.safekeepers.contains(&number(*index))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let quorum = self.config.safekeepers.len() / 2 + 1;
        let prefix = match self.prefix(&copy, identity, start.start_lsn) {
            Ok(prefix) => prefix,
            Err(error) if copy.safekeepers.len() >= quorum => {
                warn(&format!("not all safekeepers have the timeline, and the others cannot be given it now: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut failure = None;
        let mut made = Vec::new();
        for index in missing {
            let Some(peer) = self.config.safekeepers.get(index) else { continue };
            match import::create_at(&self.config, peer, identity, start, &prefix) {
                Ok(node) if node == number(index) => made.push(node),
                Ok(node) => return Err(Error::Refused(format!("{} at {} is number {node}", peer.name, peer.address))),
                Err(error) => {
                    warn(&format!("{}: the timeline is not made there: {error}", peer.name));
                    failure = Some(error);
                }
            }
        }
        if !made.is_empty() {
            metadata::put_safekeepers(&self.config, &copy.timeline, &made)?;
            copy.safekeepers.extend(&made);
            self.state.copy = Some(copy.clone());
            self.state.write(&self.config.dir)?;
        }
        match failure {
            Some(error) if copy.safekeepers.len() < quorum => Err(error),
            _ => Ok(()),
        }
    }

    /// The WAL before the start: from a safekeeper that has the timeline, or from the source, whose slot keeps it until
    /// something is confirmed.
    fn prefix(&self, copy: &Copy, identity: Identity, start: Lsn) -> Result<Vec<u8>> {
        let has = |index: &usize| copy.safekeepers.contains(&(*index as u64 + 1));
        for index in (0..self.config.safekeepers.len()).filter(has) {
            let Some(peer) = self.config.safekeepers.get(index) else { continue };
            if let Ok(prefix) = read_wal(peer, identity, start.segment_start(), start) {
                return Ok(prefix);
            }
        }
        import::prefix(&self.config, start)
    }

    fn follow(&mut self) -> Result<std::convert::Infallible> {
        let copy = self.copy()?;
        let identity = self.identity(&copy)?;
        let mut log = FollowedLog {
            follower: self,
            identity,
            copy,
            shared: None,
            wake: None,
            sender: None,
            told: Instant::now(),
            began: Instant::now(),
        };
        loop {
            // Of each round's own: nothing of the last round's connections gets in.
            let events = Events::new();
            log.connect(&events);
            let peers = members(&log.follower.config.safekeepers, &log.copy.safekeepers);
            let Ended::NewTerm = leader::lead(&peers, identity, &events, &mut log)?;
        }
    }
}

/// Who votes and acknowledges: the safekeepers that are remembered to have the timeline, and no others. One that was given
/// it while its answer was lost would be given it again after it lost its disk, and come back empty into a quorum.
fn members(all: &[Peer], numbers: &[u64]) -> Vec<Peer> {
    (1..).zip(all).filter(|(number, _)| numbers.contains(number)).map(|(_, peer)| peer.clone()).collect()
}

fn damaged_state() -> Error {
    Error::Refused("state.json is damaged; follow anew into another tenant".into())
}

/// Committed WAL of a timeline in `from..until`, from one safekeeper.
fn read_wal(peer: &Peer, identity: Identity, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    let mut client = Client::connect(peer, Role::WalReader, identity, ANSWER)?;
    let start = WalStart { from: U64::new(from.0), until: U64::new(until.0), uncommitted: U32::ZERO, reserved: U32::ZERO };
    let mut wal = Vec::new();
    let began = Instant::now();
    if from == until {
        return Ok(wal);
    }
    client.send(Kind::WalStart, |out| start.encode(out))?;
    while from + (wal.len() as u64) < until {
        let (header, payload) = client.receive()?;
        if header.kind == Kind::WalData {
            let (data, bytes) = WalData::decode_prefix(&payload).map_err(|error| peer.wire(error))?;
            if Lsn(data.begin_lsn.get()) != from + wal.len() as u64 {
                return Err(Error::Wal { at: from, why: format!("{} sent other WAL than was asked for", peer.name) });
            }
            wal.extend_from_slice(bytes);
        }
        if began.elapsed() > ANSWER {
            return Err(Error::Wal { at: from, why: format!("{} does not have it up to {until} committed", peer.name) });
        }
    }
    wal.truncate(until.since(from) as usize);
    Ok(wal)
}

/// The stream's log, as the leader sees it.
struct FollowedLog<'a> {
    follower: &'a mut Follower,
    identity: Identity,
    copy: Copy,
    /// There once the first term is won: only then is known where the WAL goes on.
    shared: Option<Arc<Shared>>,
    /// Wakes the stream, to confirm.
    wake: Option<UnixStream>,
    /// Where the stream's news go, of the round under way.
    sender: Option<Arc<std::sync::Mutex<std::sync::mpsc::SyncSender<Event>>>>,
    told: Instant,
    began: Instant,
}

impl FollowedLog<'_> {
    fn connect(&mut self, events: &Events) {
        match &self.sender {
            Some(sender) => *sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = events.sender.clone(),
            None => self.sender = Some(Arc::new(std::sync::Mutex::new(events.sender.clone()))),
        }
    }

    /// The log as the safekeepers have it, from the start of the segment that ends at `end` or in which it lies, and a check
    /// of what follows: where nothing of a segment comes again, the link to the last record is all that tells histories apart.
    fn load(&self, end: Lsn) -> Result<(WalLog, WalStream)> {
        let start: Lsn = self.copy.start_lsn.parse().map_err(|_| damaged_state())?;
        let from = Lsn(end.0.saturating_sub(1)).segment_start().max(start);
        let mut failure = Error::Wal { at: end, why: "no safekeeper has it".into() };
        for peer in &self.follower.config.safekeepers {
            match read_wal(peer, self.identity, from, end) {
                Ok(wal) => {
                    let prev = if end == start { self.copy.prev_record_lsn.parse().ok() } else { last_record(from, &wal, end) };
                    let checker = WalStream::new(end, Verify::Crc).with_system_id(self.copy.system_id);
                    let checker = checker.with_prev(prev.unwrap_or(Lsn::INVALID));
                    let mut log = WalLog::new(from);
                    log.append(&wal);
                    return Ok((log, checker));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn start_stream(&mut self, log: WalLog, checker: WalStream, commit: Lsn) -> Result<()> {
        let broken = |error: std::io::Error| Error::Source(format!("a pair of sockets: {error}"));
        let (wake, woken) = UnixStream::pair().map_err(broken)?;
        wake.set_nonblocking(true).and_then(|()| woken.set_nonblocking(true)).map_err(broken)?;
        let shared = Arc::new(Shared::new(log, commit));
        let sender = self.sender.clone();
        let stream = Stream {
            config: self.follower.config.clone(),
            system_id: self.copy.system_id,
            shared: Arc::clone(&shared),
            checker,
            wake: woken,
            notify: Box::new(move || {
                if let Some(sender) = &sender {
                    let sender = sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // Full of others' events, it looks soon anyway; without a round, the next one looks.
                    let (Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sender.try_send(Event::Woken);
                }
            }),
        };
        std::thread::spawn(move || stream.run());
        (self.shared, self.wake) = (Some(shared), Some(wake));
        Ok(())
    }
}

impl leader::Log for FollowedLog<'_> {
    fn ready(&mut self, start: Lsn) -> Result<()> {
        if let Some(shared) = &self.shared {
            let inner = shared.lock();
            if start < inner.log.start() || start > inner.log.end() {
                return Err(Error::Refused(format!("the safekeepers' log ends at {start}, which is not where ours can go on")));
            }
            return Ok(());
        }
        let (log, checker) = self.load(start)?;
        info(&format!("following goes on at {start}"));
        self.start_stream(log, checker, start)
    }

    fn end(&self) -> Option<Lsn> {
        self.shared.as_ref().map(|shared| shared.lock().log.end())
    }

    fn read(&self, begin: Lsn, length: usize) -> Option<Vec<u8>> {
        self.shared.as_ref()?.lock().log.get(begin, length).map(<[u8]>::to_vec)
    }

    fn committed(&mut self, commit: Lsn) {
        if let Some(shared) = &self.shared {
            shared.committed(commit);
        }
        if let Some(wake) = &mut self.wake {
            // A pipe that is full wakes as well.
            let _ = wake.write(&[0]);
        }
    }

    fn turn(&mut self, quorum: &str) -> Result<()> {
        let now = Instant::now();
        let mut refused = None;
        let progress = &mut self.follower.progress;
        let mut state = ("waiting", quorum.to_string());
        if self.shared.is_none() && self.began.elapsed() < PATIENCE {
            // Nobody has had the time to answer.
            state = ("starting", String::new());
        }
        if let Some(shared) = &self.shared {
            let mut inner = shared.lock();
            let commit = inner.commit;
            progress.received_lsn = inner.log.end().to_string();
            progress.committed_lsn = commit.to_string();
            progress.source_lsn = inner.source_end.max(commit).to_string();
            progress.lag_bytes = inner.source_end.since(commit);
            progress.lag_seconds = inner.lag.seconds(commit, now);
            match &inner.state {
                SourceState::Refused(why) => refused = Some(why.clone()),
                SourceState::Away { why, since } => {
                    progress.lag_seconds = progress.lag_seconds.max(now.duration_since(*since).as_secs());
                    state.1 = if quorum.is_empty() { why.clone() } else { format!("{why}; {quorum}") };
                }
                SourceState::Connecting => {}
                SourceState::Streaming if quorum.is_empty() => state.0 = "streaming",
                SourceState::Streaming => {}
            }
        }
        if let Some(why) = refused {
            return Err(Error::Refused(why));
        }
        if self.told.elapsed() > PROGRESS_EVERY || progress.state != state.0 {
            self.told = now;
            progress.state = state.0.into();
            progress.message = state.1;
            progress.write(&self.follower.config.dir)?;
        }
        Ok(())
    }
}

/// Drops the slot at the source, if it is ours. For good: following cannot go on after that.
pub fn drop_slot(config: &Config) -> Result<()> {
    let mut state = State::read(&config.dir)?;
    if !state.slot_is_ours {
        return Ok(());
    }
    let mut source = Source::connect(&config.settings.source)?;
    match source.drop_slot(&config.settings.slot) {
        Ok(()) => {}
        Err(Error::SourceSays { sqlstate, .. }) if sqlstate == "42704" => {}
        Err(error) => return Err(error),
    }
    state.slot_is_ours = false;
    state.write(&config.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_are_remembered_to_have_the_timeline_vote() {
        let peer = |number: u16| Peer { name: format!("safekeeper-{number}"), address: ([127, 0, 0, 1], number).into() };
        let all = [peer(1), peer(2), peer(3)];
        assert_eq!(members(&all, &[1, 3]), [peer(1), peer(3)]);
        assert_eq!(members(&all, &[3, 2, 1]), all);
        assert!(members(&all, &[]).is_empty());
    }
}
