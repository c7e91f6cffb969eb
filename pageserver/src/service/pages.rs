//! Connections of computes: pages, and how far ingest is.

use super::Service;
use super::error::{Failure, refusal};
use super::permits::Permits;
use crate::timeline::Timeline;
use ironpage_daemon::frames::{Accepted, FrameError, FrameWriter};
use ironpage_daemon::{debug, warn};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::wire::pages::{GetPages, IngestStatus, IngestStatusReply, Pages};
use ironpage_layout::wire::{ErrorCode, Kind, MAX_PAGES};
use ironpage_layout::{BlockNumber, Fork, Lsn, RelTag, Term};
use std::rc::Rc;
use std::time::Duration;

/// Requests of one connection under way at once. Further ones stay in its socket.
const REQUESTS_MAX: usize = 16;
/// A request waits no longer than this, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Serves a compute until it goes.
pub async fn serve(service: &Service, timeline: Rc<Timeline>, accepted: Accepted) -> Result<(), FrameError> {
    let Accepted { mut reader, writer, .. } = accepted;
    let permits = Permits::new(REQUESTS_MAX);
    loop {
        let permit = permits.take().await;
        let frame = reader.expect(&[Kind::GetPages, Kind::IngestStatus], "GetPages or IngestStatus").await;
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                if let Some(reply) = error.reply() {
                    writer.send_error(0, timeline.term(), &reply).await?;
                }
                return Err(error);
            }
        };
        let (id, term) = (frame.header.request_id, frame.header.term);
        let (service, timeline, writer) = (service.clone(), timeline.clone(), writer.clone());
        // Decoded here: the payload is the reader's until its next frame.
        match frame.header.kind {
            Kind::GetPages => {
                let request = GetPages::decode(frame.payload);
                drop(ironpage_io::spawn(async move {
                    let answer = async { service.get_pages(&timeline, term, request?).await };
                    let result = match answer.await {
                        Ok((head, pages)) => {
                            writer.send(Kind::Pages, id, timeline.term(), |out| head.encode_with(&pages, out)).await
                        }
                        Err(failure) => send_failure(&writer, id, &timeline, &failure).await,
                    };
                    done(result);
                    drop(permit);
                }));
            }
            _ => {
                let request = IngestStatus::decode(frame.payload);
                drop(ironpage_io::spawn(async move {
                    let result = match request {
                        Ok(request) => answer_status(&writer, id, &timeline, term, request).await,
                        Err(error) => send_failure(&writer, id, &timeline, &error.into()).await,
                    };
                    done(result);
                    drop(permit);
                }));
            }
        }
    }
}

/// A reply that could not be sent: the reading side of the connection sees the same and ends it.
fn done(result: Result<(), FrameError>) {
    if let Err(error) = result {
        debug!("{error}");
    }
}

async fn send_failure(writer: &FrameWriter, id: u64, timeline: &Timeline, failure: &Failure) -> Result<(), FrameError> {
    if matches!(failure.code(), ErrorCode::Corrupt | ErrorCode::Storage) {
        warn!("timeline {}: {}", timeline.id(), failure.message());
    }
    writer.send_error(id, failure.term.unwrap_or(timeline.term()), &failure.remote()).await
}

async fn answer_status(
    writer: &FrameWriter,
    id: u64,
    timeline: &Timeline,
    term: Term,
    request: IngestStatus,
) -> Result<(), FrameError> {
    timeline.learn_term(term);
    let wait = Duration::from_millis(request.wait_ms_max.get().into()).min(WAIT_MAX);
    if request.wait_for.get() > 0 {
        // Late or stopped, the answer is where ingest stands.
        let _ = timeline.wait_for(Lsn(request.wait_for.get()), wait).await;
    }
    let reply = IngestStatusReply {
        last_record_lsn: timeline.store().last_record_lsn().0.into(),
        disk_consistent_lsn: timeline.store().disk_consistent_lsn().0.into(),
    };
    writer.send(Kind::IngestStatusReply, id, timeline.term(), |out| reply.encode(out)).await
}

/// A request whose fields are in range.
struct Wanted {
    rel: RelTag,
    fork: Fork,
    first: u32,
    count: u32,
    /// `None` for the newest.
    lsn: Option<Lsn>,
    not_modified_since: Lsn,
    wait: Duration,
}

impl Wanted {
    fn check(request: &GetPages, timeline: &Timeline) -> Result<Wanted, Failure> {
        let protocol = |text: String| refusal(ErrorCode::Protocol, text);
        let fork = Fork::from_number(request.fork).ok_or_else(|| protocol(format!("GetPages of fork {}", request.fork)))?;
        let (first, count) = (request.block.get(), request.count.get());
        if count == 0 || count > MAX_PAGES || first.checked_add(count).is_none() {
            return Err(protocol(format!("GetPages of {count} blocks from {first} on; 1 to {MAX_PAGES} are allowed")));
        }
        let lsn = Some(Lsn(request.request_lsn.get())).filter(|lsn| lsn.is_valid());
        let not_modified_since = Lsn(request.not_modified_since.get());
        if lsn.is_some_and(|lsn| lsn < not_modified_since) {
            return Err(protocol(format!(
                "GetPages at {} of blocks modified until {not_modified_since}",
                lsn.unwrap_or_default()
            )));
        }
        // A branch's own reads begin where it begins; those of a base backup where that ended.
        let start = timeline.record().readable_lsn;
        if lsn.is_some_and(|lsn| lsn < start) {
            let text =
                format!("timeline {} is readable from {start} on; it has nothing at {}", timeline.id(), lsn.unwrap_or_default());
            return Err(refusal(ErrorCode::OutOfRange, text));
        }
        let rel =
            RelTag { tablespace: request.tablespace.get(), database: request.database.get(), relation: request.relation.get() };
        let wait = Duration::from_millis(request.wait_ms_max.get().into()).min(WAIT_MAX);
        Ok(Wanted { rel, fork, first, count, lsn, not_modified_since, wait })
    }
}

impl Service {
    async fn get_pages(&self, timeline: &Rc<Timeline>, term: Term, request: GetPages) -> Result<(Pages, Vec<u8>), Failure> {
        let counters = &self.shared.counters;
        counters.getpages.set(counters.getpages.get() + 1);
        let wanted = Wanted::check(&request, timeline)?;
        // Who names an LSN and no term reads history, which no new primary changes.
        let leads = term != Term(0) || wanted.lsn.is_none();
        if leads {
            self.check_term(timeline, term)?;
        }
        let last = timeline.wait_for(wanted.not_modified_since.max(timeline.record().readable_lsn), wanted.wait).await?;
        // Beyond the last record the asker vouches that nothing changed.
        let lsn = wanted.lsn.unwrap_or(last).min(last);
        let fork = Rc::new(timeline.fork(wanted.rel, wanted.fork, lsn).await?);
        let mut pages = Vec::with_capacity(wanted.count as usize * PAGE_SIZE);
        if wanted.count == 1 {
            pages.extend_from_slice(&timeline.page(&fork, BlockNumber(wanted.first)).await?[..]);
        } else {
            // At once, so that their reads overlap and the redo worker's pipe is kept busy.
            let reads: Vec<_> = (wanted.first..wanted.first + wanted.count)
                .map(|block| {
                    let (timeline, fork) = (timeline.clone(), fork.clone());
                    ironpage_io::spawn(async move { timeline.page(&fork, BlockNumber(block)).await })
                })
                .collect();
            for read in reads {
                let page = read.await.map_err(|_| refusal(ErrorCode::Unavailable, "the pageserver is going down".into()))?;
                pages.extend_from_slice(&page?[..]);
            }
        }
        // Whoever was deposed meanwhile gets nothing that might be newer than what it knows.
        if leads {
            self.check_term(timeline, term)?;
        }
        counters.pages_served.set(counters.pages_served.get() + u64::from(wanted.count));
        let head = Pages {
            lsn: lsn.0.into(),
            relation_blocks: fork.blocks.into(),
            count: wanted.count.into(),
            slow_down: 0.into(),
            reserved: 0.into(),
        };
        Ok((head, pages))
    }

    /// Learns a higher term, refuses a lower one.
    pub(super) fn check_term(&self, timeline: &Timeline, term: Term) -> Result<(), Failure> {
        timeline.learn_term(term);
        let known = timeline.term();
        if term == known {
            return Ok(());
        }
        let counters = &self.shared.counters;
        counters.fenced.set(counters.fenced.get() + 1);
        let text = format!(
            "timeline {} is led with term {known}: whoever asks with term {term} is no longer its primary",
            timeline.id()
        );
        Err(refusal(ErrorCode::Fenced, text).with_term(known))
    }
}
