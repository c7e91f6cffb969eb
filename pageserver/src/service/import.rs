//! A timeline out of the items a command line sends.

use super::Service;
use super::admin::Refused;
use super::error::refusal;
use crate::branches::Admission;
use crate::store::TimelineRecord;
use crate::timeline::{Import, Timeline};
use ironpage_daemon::frames::{FrameError, FrameReader, FrameWriter};
use ironpage_daemon::warn;
use ironpage_layout::wire::admin::{ImportEnd, TimelineCreate, TimelineCreated};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::wire::{ErrorCode, Kind};
use ironpage_layout::{Lsn, Term};
use std::rc::Rc;

/// Reads items until their end. `TimelineCreated` is sent once the timeline would survive a crash.
pub async fn receive(
    service: &Service,
    reader: &mut FrameReader,
    writer: &FrameWriter,
    id: u64,
    request: TimelineCreate,
) -> Result<(), Refused> {
    let record = TimelineRecord {
        tenant: request.tenant,
        timeline: request.timeline,
        name: request.name.clone(),
        system_id: request.system_id,
        postgres_version: request.postgres_version,
        start_lsn: request.start_lsn,
        prev_record_lsn: request.prev_record_lsn,
        readable_lsn: request.readable_lsn.max(request.start_lsn),
        ancestor: None,
    };
    if request.prefix_length != 0 {
        let text = "TimelineCreate with WAL: that is for safekeepers, this is a pageserver".to_string();
        return Err(Refused::Last(refusal(ErrorCode::Protocol, text)));
    }
    let branches = &service.shared.branches;
    let branch = match branches.admit_import(&request).await.map_err(|error| Refused::Last(error.into()))? {
        Admission::Begin(branch) => Some(*branch),
        Admission::There => None,
    };
    let begun = branches.timelines().import(record).await;
    match (begun.map_err(|error| Refused::Last(error.into())), branch) {
        // It is there already: its items are read past, so that a repeat of the whole exchange succeeds.
        (Ok(None), None) => while next(reader).await?.is_some() {},
        (Ok(Some(mut import)), Some(branch)) => match take_items(reader, &mut import).await {
            Ok((timeline, readable_lsn)) => {
                let finished = branches.finish_import(branch, timeline, readable_lsn).await;
                finished.map_err(|error| Refused::Last(error.into()))?;
            }
            Err(error) => {
                match import.abandon().await {
                    Ok(()) => branches.abandon_import(&branch).await,
                    // The journal knows that it was being made: without that, a start would refuse what is left.
                    Err(error) => warn!("cannot remove an import that was cut off: {error}; the next start does"),
                }
                return Err(error);
            }
        },
        (begun, branch) => {
            if let Some(branch) = branch {
                branches.abandon_import(&branch).await;
            }
            begun?;
            let text = format!("timeline {}: the metadata and the timelines disagree; restart the pageserver", request.timeline);
            return Err(Refused::Last(refusal(ErrorCode::Storage, text)));
        }
    }
    let created = TimelineCreated { reserved: 0.into() };
    writer.send(Kind::TimelineCreated, id, Term(0), |out| created.encode(out)).await?;
    Ok(())
}

async fn take_items(reader: &mut FrameReader, import: &mut Import) -> Result<(Rc<Timeline>, Lsn), Refused> {
    loop {
        let frame = reader.expect(&[Kind::ImportItem, Kind::ImportEnd], "ImportItem or ImportEnd").await.map_err(told)?;
        if frame.header.kind == Kind::ImportEnd {
            let end = ImportEnd::decode(frame.payload).map_err(|error| Refused::Last(error.into()))?;
            let readable_lsn = Lsn(end.readable_lsn.get());
            let timeline = import.finish(end.items.get(), readable_lsn).await.map_err(|error| Refused::Last(error.into()))?;
            return Ok((timeline, readable_lsn));
        }
        let item = Item::decode(frame.payload).map_err(|error| Refused::Last(error.into()))?;
        import.item(&item).await.map_err(|error| Refused::Last(error.into()))?;
    }
}

/// Reads past an item; `None` at the end of the import.
async fn next(reader: &mut FrameReader) -> Result<Option<()>, Refused> {
    let frame = reader.expect(&[Kind::ImportItem, Kind::ImportEnd], "ImportItem or ImportEnd").await.map_err(told)?;
    Ok((frame.header.kind == Kind::ImportItem).then_some(()))
}

/// An error of the connection that the other side can still be told of.
fn told(error: FrameError) -> Refused {
    match error.reply() {
        Some(reply) => Refused::Last(refusal(reply.code, reply.message)),
        None => Refused::Connection(error),
    }
}
