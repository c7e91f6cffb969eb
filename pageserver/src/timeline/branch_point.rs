//! Where a branch may come off.
//!
//! A branch begins at a record end X. Its ancestor's store holds every page as of X, but pg_control and the sizes are
//! those of X only at marks (see `ironpage_layout::history`). So a branch hangs on the last mark at or before X, and the
//! records between are ingested into it anew: a few hundred kilobytes at most.

use super::{Timeline, TimelineError, Timelines, WaitError};
use crate::receiver::{PastWal, Position, positions};
use ironpage_daemon::cli::Address;
use ironpage_io::time::{now, wall_clock};
use ironpage_layout::history::{History, bucket_of};
use ironpage_layout::postgres::wal::{Next, Verify, WalStream};
use ironpage_layout::{Key, Lsn, TimelineId, Value};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// How long what a quorum may have flushed may take to become committed. It does not become so if the primary is gone.
const ACKNOWLEDGED_WAIT: Duration = Duration::from_secs(2);
/// How long ingest may take to get there before the safekeepers are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long what is committed may take to be ingested.
pub(super) const COMMITTED_WAIT: Duration = Duration::from_secs(10);

/// Where a branch is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// After everything that was acknowledged before the request.
    Head,
    /// At the last record end that is not beyond this.
    Lsn(Lsn),
    /// Just before the first commit that is later than this: microseconds since 2000-01-01 UTC, as Postgres counts.
    Time(i64),
}

/// Where a branch can come off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchPoint {
    /// The timeline it hangs on: the parent asked for, or the one of the parent's ancestors that has this LSN.
    pub ancestor: TimelineId,
    /// A record end. The branch's start.
    pub lsn: Lsn,
    /// Start of the record that ends at `lsn`.
    pub prev_record_lsn: Lsn,
    /// What lies in the ancestor up to here is the branch's; records between here and `lsn` are ingested into it anew.
    pub mark: Lsn,
    /// Start of the record that ends at `mark`.
    pub mark_prev_record_lsn: Lsn,
    /// The LSN that was asked for, if one was: `lsn` is less if it was no record end.
    pub requested: Option<Lsn>,
}

impl BranchPoint {
    /// Whether another LSN was asked for.
    pub fn is_rounded(&self) -> bool {
        self.requested.is_some_and(|requested| requested != self.lsn)
    }
}

impl Timelines {
    /// Everything that was acknowledged before the call is ingested when this returns; where ingest is then. A timeline
    /// no safekeeper has ends where it is.
    ///
    /// A commit is acknowledged once a quorum has flushed it, so of any majority one has it. If what that one has does not
    /// become committed, the primary is gone, and what is committed is what there is.
    pub async fn acknowledged_head(&self, timeline: &Rc<Timeline>, safekeepers: &[Address]) -> Result<Lsn, TimelineError> {
        let answers = positions(safekeepers, &timeline.hello(), timeline.store().last_record_lsn()).await;
        let (mut known, mut commit, mut flush) = (0, Lsn::INVALID, Lsn::INVALID);
        let mut silent = Vec::new();
        for answer in answers {
            match answer {
                Position::At { commit_lsn, flush_lsn } => {
                    known += 1;
                    (commit, flush) = (commit.max(commit_lsn), flush.max(flush_lsn));
                }
                Position::Unknown => {}
                Position::Silent(why) => silent.push(why),
            }
        }
        let majority = safekeepers.len() / 2 + 1;
        // One that lost its disk does not know the timeline either, so such answers count only if there are no others, and
        // if no WAL ever came from any.
        let is_at_start = timeline.store().last_record_lsn() == timeline.record().start_lsn;
        let never_made = known == 0 && is_at_start && safekeepers.len() - silent.len() >= majority;
        if safekeepers.is_empty() || never_made {
            return Ok(timeline.wait_for(Lsn::INVALID, COMMITTED_WAIT).await?);
        }
        if known < majority {
            let why = format!(
                "{known} of {} safekeepers say how far they are; {majority} must, for nothing acknowledged to be missed: {}",
                safekeepers.len(),
                if silent.is_empty() { "the others do not know the timeline".into() } else { silent.join("; ") }
            );
            return Err(TimelineError::Unavailable { timeline: timeline.id(), why });
        }
        // That ingest is late says nothing of what is committed, which only the safekeepers know.
        let begun = now();
        let mut committed = commit;
        loop {
            match timeline.wait_for(flush, ASK_AGAIN).await {
                Err(WaitError::Late { .. }) => {}
                waited => return Ok(waited?),
            }
            if committed >= flush || begun.elapsed() >= ACKNOWLEDGED_WAIT {
                return Ok(timeline.wait_for(flush.min(committed), COMMITTED_WAIT).await?);
            }
            for answer in positions(safekeepers, &timeline.hello(), timeline.store().last_record_lsn()).await {
                if let Position::At { commit_lsn, .. } = answer {
                    committed = committed.max(commit_lsn);
                }
            }
        }
    }

    /// Where a branch of `parent` can come off. It is good until the ancestor is deleted.
    pub async fn branch_point(
        &self,
        parent: &Rc<Timeline>,
        safekeepers: &[Address],
        at: At,
    ) -> Result<BranchPoint, TimelineError> {
        let (wanted, requested) = match at {
            At::Head => {
                self.acknowledged_head(parent, safekeepers).await?;
                return parent.point_at_head(None).await;
            }
            At::Lsn(lsn) => {
                if lsn.to_record_end() > parent.store().last_record_lsn() {
                    self.acknowledged_head(parent, safekeepers).await?;
                }
                (lsn, Some(lsn))
            }
            At::Time(time) => (self.lsn_of_time(parent, safekeepers, time).await?, None),
        };
        // Nothing below waits again before the head is taken, so that it cannot have gone on beyond what is wanted.
        parent.wait_for(Lsn::INVALID, COMMITTED_WAIT).await?;
        let (first, last) = (parent.first_readable_lsn(), parent.store().last_record_lsn());
        if wanted < first || wanted.to_record_end() > last {
            return Err(parent.lsn_out_of_range(wanted));
        }
        if wanted >= last {
            return parent.point_at_head(requested).await;
        }
        let owner = parent.owner_of(wanted);
        owner.wait_for(wanted, COMMITTED_WAIT).await?;
        let mut point = owner.last_mark(wanted).await?;
        point.requested = requested;
        if point.mark < wanted {
            (point.lsn, point.prev_record_lsn) = last_record_end(&owner, safekeepers, &point, wanted).await?;
        }
        if point.lsn < first {
            return Err(parent.lsn_out_of_range(wanted));
        }
        Ok(point)
    }

    /// The record end just before the first commit later than `time`. If none is known, not before it was asked for.
    async fn lsn_of_time(&self, parent: &Rc<Timeline>, safekeepers: &[Address], time: i64) -> Result<Lsn, TimelineError> {
        let now = postgres_time(wall_clock());
        if time > now {
            return Err(parent.time_out_of_range(time).await?);
        }
        let found = parent.lsn_at(time).await?;
        if !found.is_head {
            return Ok(found.lsn);
        }
        self.acknowledged_head(parent, safekeepers).await?;
        Ok(parent.lsn_at(time).await?.lsn)
    }
}

/// Microseconds since 2000-01-01 UTC.
pub(super) fn postgres_time(time: SystemTime) -> i64 {
    const EPOCH: Duration = Duration::from_secs(946_684_800);
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - EPOCH.as_micros() as i64
}

/// End and start of the last record of `owner` that ends at or before `wanted`, behind the mark of `point`.
async fn last_record_end(
    owner: &Timeline,
    safekeepers: &[Address],
    point: &BranchPoint,
    wanted: Lsn,
) -> Result<(Lsn, Lsn), TimelineError> {
    let mut found = (point.mark, point.mark_prev_record_lsn);
    let mut wal = PastWal::new(owner, safekeepers);
    // Bodies are passed over: a record may be a gigabyte.
    let mut stream = WalStream::new(point.mark, Verify::Headers)
        .with_prev(point.mark_prev_record_lsn)
        .with_system_id(owner.record().system_id);
    // Every record that began before `wanted` is committed as a whole, so one that ends at or behind it comes.
    while stream.record_end() < wanted {
        let bytes = wal.read(stream.position()).await?;
        let fed = stream.feed(stream.position(), &bytes);
        let walked = fed.map_err(|error| error.to_string()).and_then(|()| {
            loop {
                match stream.next_record() {
                    Ok(Next::Record(record)) if record.end <= wanted => found = (record.end, record.start),
                    Ok(Next::Record(_) | Next::NeedBytes) => return Ok(()),
                    Ok(Next::EndOfWal) => return Err(format!("zeros at {}, where committed WAL should be", stream.record_end())),
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
        match walked {
            Ok(()) => wal.trust(),
            Err(why) => {
                wal.distrust(why);
                stream.rewind();
            }
        }
    }
    Ok(found)
}

impl Timeline {
    /// The timeline whose own WAL has this LSN: this one, or the ancestor it lies in.
    pub fn owner_of(self: &Rc<Timeline>, lsn: Lsn) -> Rc<Timeline> {
        let mut owner = self;
        while let Some(parent) = owner.parent()
            && lsn < owner.record().start_lsn
        {
            owner = parent;
        }
        owner.clone()
    }

    /// From here on it may be read and branched: it, and its ancestors below its start.
    pub fn first_readable_lsn(&self) -> Lsn {
        self.store().first_readable_lsn()
    }

    pub(super) fn lsn_out_of_range(&self, lsn: Lsn) -> TimelineError {
        TimelineError::OutOfRange {
            timeline: self.id(),
            wanted: lsn.to_string(),
            range: format!("it reaches from {} to {}", self.first_readable_lsn(), self.store().last_record_lsn()),
        }
    }

    /// The last record is a branch point as it is: what is whole of the head is put beside it.
    async fn point_at_head(&self, requested: Option<Lsn>) -> Result<BranchPoint, TimelineError> {
        self.wait_for(Lsn::INVALID, COMMITTED_WAIT).await?;
        // Without a head, the last mark is where the store is.
        if let Some(whole) = self.whole.get() {
            whole.put_mark(self.store());
        }
        let lsn = self.store().last_record_lsn();
        if lsn < self.first_readable_lsn() {
            return Err(self.lsn_out_of_range(lsn));
        }
        let prev = self.store().prev_record_lsn();
        Ok(BranchPoint { ancestor: self.id(), lsn, prev_record_lsn: prev, mark: lsn, mark_prev_record_lsn: prev, requested })
    }

    /// The last mark of this timeline at or before `lsn`, as a branch point.
    async fn last_mark(&self, lsn: Lsn) -> Result<BranchPoint, TimelineError> {
        let control = self.store().values(Key::control(), lsn, Lsn::INVALID).await?.into_iter().next();
        let mark = control.map(|version| version.lsn).ok_or_else(|| self.lsn_out_of_range(lsn))?;
        let (at, history) = self.stored_history(bucket_of(mark), mark).await?.ok_or_else(|| self.lsn_out_of_range(lsn))?;
        if at != mark {
            return Err(self.damaged(mark, "no history stands beside pg_control"));
        }
        let prev = history.prev_record_lsn;
        Ok(BranchPoint {
            ancestor: self.id(),
            lsn: mark,
            prev_record_lsn: prev,
            mark,
            mark_prev_record_lsn: prev,
            requested: None,
        })
    }

    /// The newest history of a bucket at or before `lsn`, and where it stands.
    pub(super) async fn stored_history(&self, bucket: u64, lsn: Lsn) -> Result<Option<(Lsn, History)>, TimelineError> {
        let key = Key::history(bucket);
        let Some(version) = self.store().values(key, lsn, Lsn::INVALID).await?.into_iter().next() else { return Ok(None) };
        let history = match Value::decode(&version.bytes) {
            Ok(Value::Blob(blob)) => History::decode(&blob),
            _ => None,
        };
        history
            .map(|history| Some((version.lsn, history)))
            .ok_or_else(|| self.damaged(version.lsn, "its history does not decode"))
    }

    pub(super) fn damaged(&self, lsn: Lsn, why: &'static str) -> TimelineError {
        TimelineError::Damaged { timeline: self.id(), lsn, why }
    }
}
