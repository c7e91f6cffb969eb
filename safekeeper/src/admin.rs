//! Administration: creating and deleting timelines, and what state they are in.

use crate::error::{Error, Result};
use crate::prefix;
use crate::registry::Registry;
use ironpage_daemon::frames::{FrameReader, FrameWriter};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::admin::{
    Status, StatusReply, TimelineCreate, TimelineCreated, TimelineDelete, TimelineDeleted, TimelineStatus,
};
use ironpage_layout::{TenantId, Term, TimelineId};
use std::convert::Infallible;
use zerocopy::little_endian::U64;

/// Most timelines one `StatusReply` tells of: it must fit a frame.
const STATUS_TIMELINES_MAX: usize = 4096;

/// Serves one connection until it ends. The hello has been answered.
pub async fn serve(registry: &Registry, reader: &mut FrameReader, writer: FrameWriter) -> Result<Infallible> {
    loop {
        let frame = reader.next().await?;
        let id = frame.header.request_id;
        match frame.header.kind {
            Kind::TimelineCreate => {
                let create = TimelineCreate::decode(frame.payload)?;
                let prefix = prefix::receive(&registry.context, reader, &create).await?;
                match registry.create(&create, &prefix.bytes).await {
                    Ok(()) => {
                        let created = TimelineCreated { reserved: U64::ZERO };
                        writer.send(Kind::TimelineCreated, id, Term(0), |out| created.encode(out)).await?;
                    }
                    Err(error) => {
                        let Some(remote) = error.to_remote() else { return Err(error) };
                        ironpage_daemon::warn!("timeline {} was not created: {error}", create.timeline);
                        writer.send_error(id, Term(0), &remote).await?;
                    }
                }
            }
            Kind::TimelineDelete => {
                let delete = TimelineDelete::decode(frame.payload)?;
                let (tenant, timeline) = (TenantId(delete.tenant), TimelineId(delete.timeline));
                match registry.delete(tenant, timeline).await {
                    Ok(()) => {
                        let deleted = TimelineDeleted { reserved: U64::ZERO };
                        writer.send(Kind::TimelineDeleted, id, Term(0), |out| deleted.encode(out)).await?;
                    }
                    Err(error) => {
                        let Some(remote) = error.to_remote() else { return Err(error) };
                        ironpage_daemon::warn!("timeline {timeline} of tenant {tenant} was not deleted: {error}");
                        writer.send_error(id, Term(0), &remote).await?;
                    }
                }
            }
            Kind::Status => {
                Status::decode(frame.payload)?;
                let status = status(registry).await?;
                writer.send(Kind::StatusReply, id, Term(0), |out| status.encode(out)).await?;
            }
            other => return Err(Error::NotAllowed { what: format!("a frame of kind {other:?}") }),
        }
    }
}

async fn status(registry: &Registry) -> Result<StatusReply> {
    let mut timelines = Vec::new();
    for (tenant, timeline) in registry.list().await?.into_iter().take(STATUS_TIMELINES_MAX) {
        timelines.push(timeline_status(registry, tenant, timeline).await);
    }
    Ok(StatusReply { node: registry.context.node, timelines, counters: registry.context.counters.all() })
}

async fn timeline_status(registry: &Registry, tenant: TenantId, id: TimelineId) -> TimelineStatus {
    let status = TimelineStatus { tenant, timeline: id, ..TimelineStatus::default() };
    match registry.get(tenant, id).await {
        Ok(timeline) => {
            let position = timeline.position();
            TimelineStatus {
                name: timeline.properties.name.clone(),
                term: timeline.term(),
                flush_lsn: position.flush_lsn,
                commit_lsn: position.commit_lsn,
                stopped: timeline.stopped().map(|error| error.to_string()).unwrap_or_default(),
                ..status
            }
        }
        Err(error) => TimelineStatus { stopped: error.to_string(), ..status },
    }
}
