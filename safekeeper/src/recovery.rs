//! Pulls WAL that this safekeeper lacks and its leader does not have, all before the leader's term began.
//!
//! Any peer that has accepted the same term has it (docs/decisions/0003): its log below the start of the
//! term is the log of the election's donor.

use crate::error::Result;
use crate::limits::{RECOVERY_PAUSE, RECOVERY_SILENCE};
use crate::timeline::Timeline;
use ironpage_consensus::Recovery;
use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::{self, FrameError};
use ironpage_daemon::{info, warn};
use ironpage_io::time::{sleep, timeout};
use ironpage_layout::Lsn;
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::wire::walstream::{WalData, WalKeepalive, WalStart};
use std::rc::Rc;
use zerocopy::little_endian::{U32, U64};

/// Pulls until nothing is missing, from one peer after the other, for as long as it takes.
pub async fn run(timeline: &Rc<Timeline>) {
    let id = timeline.properties.timeline;
    let mut complaints = vec![String::new(); timeline.context.peers.len()];
    while let Some(wanted) = timeline.recovery() {
        if timeline.stopped().is_some() {
            return;
        }
        for (peer, complaint) in timeline.context.peers.iter().zip(&mut complaints) {
            // Terms move on, and the peer before may have given a part.
            let Some(wanted) = timeline.recovery() else { break };
            match pull(timeline, peer, wanted).await {
                Ok(()) => {
                    let flush_lsn = timeline.position().flush_lsn;
                    if flush_lsn > wanted.from {
                        info!("timeline {id}: WAL from {} to {flush_lsn} recovered from {peer}", wanted.from);
                    }
                }
                Err(error) => {
                    // The same trouble is told once, not five times a second.
                    let text = format!("timeline {id}: WAL from {} to {} cannot be had: {error}", wanted.from, wanted.until);
                    if text != *complaint {
                        warn!("{text}");
                        *complaint = text;
                    }
                }
            }
        }
        if timeline.context.peers.is_empty() {
            warn!(
                "timeline {id}: WAL from {} to {} is missing, and there are no --peers to have it from",
                wanted.from, wanted.until
            );
            return;
        }
        if timeline.recovery().is_some() {
            sleep(RECOVERY_PAUSE).await;
        }
    }
}

/// Pulls from one peer; returns once nothing of `wanted` is missing or wanted any more.
async fn pull(timeline: &Rc<Timeline>, peer: &Address, wanted: Recovery) -> Result<()> {
    let properties = &timeline.properties;
    let hello = Hello {
        role: Role::WalReader,
        tenant: properties.tenant,
        timeline: properties.timeline,
        system_id: properties.system_id,
        postgres_version: 0,
        token: Vec::new(),
    };
    let (mut reader, writer, _) = frames::connect(peer, &hello).await?;
    let start = WalStart {
        from: U64::new(wanted.from.0),
        until: U64::new(wanted.until.0),
        uncommitted: U32::new(1),
        reserved: U32::ZERO,
    };
    writer.send(Kind::WalStart, 1, wanted.term, |out| start.encode(out)).await?;
    while timeline.recovery().is_some_and(|now| now.term == wanted.term) {
        let next = timeout(RECOVERY_SILENCE, reader.expect(&[Kind::WalData, Kind::WalKeepalive], "WAL"));
        let silent = FrameError::Timeout { peer: peer.text.clone(), what: "the next WAL", seconds: RECOVERY_SILENCE.as_secs() };
        let frame = next.await.unwrap_or(Err(silent))?;
        if frame.header.kind == Kind::WalData {
            let (data, wal) = WalData::decode_prefix(frame.payload)?;
            timeline.ready().await?;
            timeline.recovered(wanted.term, Lsn(data.begin_lsn.get()), wal)?;
            timeline.context.counters.recovered_bytes.add(wal.len() as u64);
        }
        if frame.header.kind == Kind::WalKeepalive {
            let keepalive = WalKeepalive::decode(frame.payload)?;
            if Lsn(keepalive.flush_lsn.get()) < wanted.until {
                // It lags itself and has given what it has: another peer may have more.
                return Ok(());
            }
        }
        wait_for_flush(timeline, wanted).await?;
    }
    Ok(())
}

/// Once all is taken in, waits until it is flushed: before that `Timeline::recovery` still misses it.
async fn wait_for_flush(timeline: &Timeline, wanted: Recovery) -> Result<()> {
    loop {
        let moved = timeline.moved();
        timeline.check_running()?;
        if timeline.taken_in() < wanted.until || timeline.recovery().is_none_or(|now| now.term != wanted.term) {
            return Ok(());
        }
        moved.await;
    }
}
