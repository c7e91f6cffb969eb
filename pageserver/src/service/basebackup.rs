//! What a data directory needs before Postgres can start, as items.

use super::Service;
use super::admin::Refused;
use super::error::{Failure, refusal};
use crate::reconstruct::ReconstructError;
use crate::timeline::{Timeline, TimelineError};
use ironpage_daemon::frames::FrameWriter;
use ironpage_daemon::info;
use ironpage_io::time::timeout;
use ironpage_layout::key::SlruKind;
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::wire::basebackup::{ALL_PAGES, BaseBackup, BaseBackupEnd, Item};
use ironpage_layout::wire::{ErrorCode, Kind};
use ironpage_layout::{BlockNumber, Fork, Key, KeyKind, Lsn, RelTag, Term, Value};
use std::rc::Rc;
use std::time::Duration;

/// Pages in one item at most.
const PAGES_PER_ITEM: usize = 64;
/// How much longer the head of a branch that nobody has used may take to load.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// A request waits no longer than this for its LSN.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Sends the state at exactly the LSN asked for, which must be the newest: the counters in pg_control are
/// those of no other.
pub async fn send(
    service: &Service,
    timeline: &Rc<Timeline>,
    writer: &FrameWriter,
    id: u64,
    term: Term,
    request: BaseBackup,
) -> Result<(), Refused> {
    service.check_term(timeline, term).map_err(Refused::Request)?;
    let lsn = Lsn(request.lsn.get());
    if request.flags.get() & !ALL_PAGES != 0 {
        let text = format!("BaseBackup with flags {:#x}, of which only {ALL_PAGES:#x} is known", request.flags.get());
        return Err(Refused::Request(refusal(ErrorCode::Protocol, text)));
    }
    if lsn < timeline.record().readable_lsn {
        let text = format!("timeline {} is readable from {} on, not at {lsn}", timeline.id(), timeline.record().readable_lsn);
        return Err(Refused::Request(refusal(ErrorCode::OutOfRange, text)));
    }
    let wait = Duration::from_millis(request.wait_ms_max.get().into()).min(WAIT_MAX);
    let there = async {
        timeline.wait_for(lsn, wait).await?;
        timeline.load_head().await.map_err(TimelineError::from)
    };
    let late = || {
        Err(TimelineError::Unavailable {
            timeline: timeline.id(),
            why: format!("its head is not loaded after {} ms", wait.as_millis()),
        })
    };
    let loaded = timeout(wait + LOAD_MAX, there).await.unwrap_or_else(|_| late());
    loaded.map_err(|error| Refused::Request(error.into()))?;
    let last = timeline.store().last_record_lsn();
    if last != lsn {
        let text =
            format!("timeline {} is at {last}; a base backup at {lsn} is not possible, only one at {last} is", timeline.id());
        return Err(Refused::Request(refusal(ErrorCode::OutOfRange, text)));
    }
    let Plan { items, keys, forks } = plan(timeline, lsn, request.flags.get()).map_err(Refused::Request)?;
    let prev_record_lsn = timeline.store().prev_record_lsn();
    let mut sender = Sender { writer, id, term: timeline.term(), items: 0 };
    for item in items {
        sender.send(|out| out.extend_from_slice(&item)).await?;
    }
    let mut keys = &keys[..];
    while let Some((&first, _)) = keys.split_first() {
        let (run, rest) = keys.split_at(run_length(keys));
        keys = rest;
        match first.kind {
            KeyKind::Page | KeyKind::Slru => sender.pages(timeline, run, lsn).await?,
            _ => sender.blob(timeline, first, lsn).await?,
        }
    }
    for (rel, fork, blocks) in forks {
        sender.fork(timeline, rel, fork, blocks, lsn).await?;
    }
    let end = BaseBackupEnd { lsn: lsn.0.into(), prev_record_lsn: prev_record_lsn.0.into(), items: sender.items.into() };
    writer.send(Kind::BaseBackupEnd, id, timeline.term(), |out| end.encode(out)).await?;
    info!("timeline {}: base backup at {lsn} for term {term}, {} items", timeline.id(), sender.items);
    Ok(())
}

/// What is to be sent.
struct Plan {
    /// What the head knows, encoded.
    items: Vec<Vec<u8>>,
    /// Keys whose values are needed besides.
    keys: Vec<Key>,
    /// Forks whose pages are asked for besides, and their blocks.
    forks: Vec<(RelTag, Fork, u32)>,
}

/// Taken in one go: the head moves on.
fn plan(timeline: &Timeline, lsn: Lsn, flags: u32) -> Result<Plan, Failure> {
    // A head in the midst of a record is ahead of the store.
    let head = timeline.head().filter(|head| head.last_record_lsn() == lsn).ok_or_else(|| {
        refusal(ErrorCode::Unavailable, format!("timeline {} is just going on from {lsn}; ask again", timeline.id()))
    })?;
    let control = head.control().map_err(|error| refusal(ErrorCode::Corrupt, error.to_string()))?.to_bytes();
    let encoded = |item: Item<'_>| {
        let mut bytes = Vec::new();
        item.encode(&mut bytes);
        bytes
    };
    let items = head.basebackup_items(&control).map(encoded).collect();
    let all_pages = flags & ALL_PAGES != 0;
    let forks = head.relation_forks().filter(|(_, fork, _)| all_pages && matches!(fork, Fork::Main | Fork::Vm));
    Ok(Plan { items, keys: head.basebackup_keys().collect(), forks: forks.collect() })
}

/// How many of the first keys go into one item: pages that follow one another.
fn run_length(keys: &[Key]) -> usize {
    let pages = |key: &Key| matches!(key.kind, KeyKind::Page | KeyKind::Slru);
    let follows = |pair: &[Key]| match pair {
        [one, next] => pages(one) && one.block.checked_add(1).is_some_and(|block| *next == Key { block, ..*one }),
        _ => false,
    };
    let follow = keys.windows(2).take(PAGES_PER_ITEM - 1).take_while(|pair| follows(pair)).count();
    (1 + follow).min(keys.len())
}

struct Sender<'a> {
    writer: &'a FrameWriter,
    id: u64,
    term: Term,
    items: u64,
}

impl Sender<'_> {
    async fn send(&mut self, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), Refused> {
        self.items += 1;
        Ok(self.writer.send(Kind::BaseBackupItem, self.id, self.term, payload).await?)
    }

    async fn pages(&mut self, timeline: &Timeline, run: &[Key], lsn: Lsn) -> Result<(), Refused> {
        let Some(&first) = run.first() else { return Ok(()) };
        let corrupt = |why| Refused::Request(Failure::from(ReconstructError::Corrupt { key: first, lsn, why }));
        let failed = |error: ReconstructError| Refused::Request(error.into());
        let mut pages = Vec::with_capacity(run.len() * PAGE_SIZE);
        if first.kind == KeyKind::Slru {
            let slru = u8::try_from(first.tablespace).ok().and_then(SlruKind::from_number).ok_or(corrupt("no such SLRU"))?;
            for &key in run {
                let page = timeline.slru_page(key, lsn).await.map_err(failed)?;
                pages.extend_from_slice(&page.ok_or(corrupt("the page is missing"))?[..]);
            }
            self.send(|out| Item::SlruPages { slru, page: first.block, pages: &pages }.encode(out)).await
        } else {
            let fork = Fork::from_number(first.fork).ok_or(corrupt("no such fork"))?;
            let state = timeline.fork(first.rel(), fork, lsn).await.map_err(failed)?;
            for key in run {
                let page = timeline.page(&state, BlockNumber(key.block)).await.map_err(failed)?;
                pages.extend_from_slice(&page[..]);
            }
            let (rel, block) = (first.rel(), BlockNumber(first.block));
            self.send(|out| Item::RelPages { rel, fork, block, pages: &pages }.encode(out)).await
        }
    }

    /// All pages of a fork, so many at a time.
    async fn fork(&mut self, timeline: &Rc<Timeline>, rel: RelTag, fork: Fork, blocks: u32, lsn: Lsn) -> Result<(), Refused> {
        let failed = |error: ReconstructError| Refused::Request(error.into());
        let state = Rc::new(timeline.fork(rel, fork, lsn).await.map_err(failed)?);
        for first in (0..blocks).step_by(PAGES_PER_ITEM) {
            // At once, so that their reads overlap and the redo worker's pipe is kept busy.
            let reads: Vec<_> = (first..blocks.min(first.saturating_add(PAGES_PER_ITEM as u32)))
                .map(|block| {
                    let (timeline, state) = (timeline.clone(), state.clone());
                    ironpage_io::spawn(async move { timeline.page(&state, BlockNumber(block)).await })
                })
                .collect();
            let mut pages = Vec::with_capacity(reads.len() * PAGE_SIZE);
            for read in reads {
                let down = |_| Refused::Request(refusal(ErrorCode::Unavailable, "the pageserver is going down".into()));
                pages.extend_from_slice(&read.await.map_err(down)?.map_err(failed)?[..]);
            }
            self.send(|out| Item::RelPages { rel, fork, block: BlockNumber(first), pages: &pages }.encode(out)).await?;
        }
        Ok(())
    }

    async fn blob(&mut self, timeline: &Timeline, key: Key, lsn: Lsn) -> Result<(), Refused> {
        let corrupt = |why| Refused::Request(Failure::from(ReconstructError::Corrupt { key, lsn, why }));
        let values = timeline.store().values(key, lsn, Lsn::INVALID).await;
        let values = values.map_err(|error| Refused::Request(Failure::from(ReconstructError::from(error))))?;
        let version = values.first().ok_or(corrupt("it is missing"))?;
        let Ok(Value::Blob(bytes)) = Value::decode(&version.bytes) else { return Err(corrupt("it is no blob")) };
        let item = match key.kind {
            KeyKind::RelMap => Item::RelMap { tablespace: key.tablespace, database: key.database, map: &bytes },
            KeyKind::TwoPhase => Item::TwoPhase { xid: key.relation, state: &bytes },
            _ => return Err(corrupt("it is not part of a base backup")),
        };
        self.send(|out| item.encode(out)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_hold_pages_that_follow_one_another() {
        let slru = |page| Key::slru(SlruKind::Clog, page);
        let keys = [slru(0), slru(1), slru(3), Key::slru(SlruKind::MultiOffsets, 4), Key::two_phase(4), Key::two_phase(5)];
        let runs: Vec<_> = (0..keys.len()).map(|from| run_length(&keys[from..])).collect();
        assert_eq!(runs, [2, 1, 1, 1, 1, 1]);
        let rel = RelTag { tablespace: 1, database: 2, relation: 3 };
        let long: Vec<_> = (0..200).map(|block| Key::page(rel, Fork::Init, BlockNumber(block))).collect();
        assert_eq!((run_length(&long), run_length(&long[150..])), (64, 50));
    }
}
