//! Connections of the command line.

use super::error::Failure;
use super::{Service, basebackup, import};
use ironpage_daemon::frames::{Accepted, FrameError};
use ironpage_daemon::warn;
use ironpage_io::time::timeout;
use ironpage_layout::Term;
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::admin::{Status, TimelineCreate};
use ironpage_layout::wire::basebackup::BaseBackup;
use std::time::Duration;

/// How long the rest of a refused import is read past.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Why a request got no answer but an error.
pub enum Refused {
    /// The other side is told; the connection goes on.
    Request(Failure),
    /// The other side is told; nothing sensible can follow.
    Last(Failure),
    /// The connection itself failed.
    Connection(FrameError),
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Refused {
        Refused::Connection(error)
    }
}

/// Serves one request after the other until the other side goes.
pub async fn serve(service: &Service, accepted: Accepted) -> Result<(), FrameError> {
    let Accepted { hello, mut reader, writer, .. } = accepted;
    const EXPECTED: &str = "Status, BaseBackup or TimelineCreate";
    loop {
        let frame = match reader.expect(&[Kind::Status, Kind::BaseBackup, Kind::TimelineCreate], EXPECTED).await {
            Ok(frame) => frame,
            Err(error) => {
                if let Some(reply) = error.reply() {
                    writer.send_error(0, Term(0), &reply).await?;
                }
                return Err(error);
            }
        };
        let (id, term) = (frame.header.request_id, frame.header.term);
        let result = match frame.header.kind {
            Kind::Status => match Status::decode(frame.payload) {
                Ok(_) => {
                    let status = service.status();
                    writer.send(Kind::StatusReply, id, Term(0), |out| status.encode(out)).await.map_err(Refused::from)
                }
                Err(error) => Err(Refused::Last(error.into())),
            },
            Kind::BaseBackup => match BaseBackup::decode(frame.payload) {
                Ok(request) => match service.timeline_of(&hello) {
                    Ok(timeline) => basebackup::send(service, &timeline, &writer, id, term, request).await,
                    Err(failure) => Err(Refused::Request(failure)),
                },
                Err(error) => Err(Refused::Last(error.into())),
            },
            _ => match TimelineCreate::decode(frame.payload) {
                Ok(request) => import::receive(service, &mut reader, &writer, id, request).await,
                Err(error) => Err(Refused::Last(error.into())),
            },
        };
        let (failure, goes_on) = match result {
            Ok(()) => continue,
            Err(Refused::Connection(error)) => return Err(error),
            Err(Refused::Request(failure)) => (failure, true),
            Err(Refused::Last(failure)) => (failure, false),
        };
        warn!("{}: {}", writer.peer(), failure.message());
        writer.send_error(id, failure.term.unwrap_or(Term(0)), &failure.remote()).await?;
        if !goes_on {
            // The other side may be in the midst of sending: a socket closed over bytes nobody read is reset, and
            // the reset overtakes the error.
            let _ = timeout(DRAIN_MAX, async { while reader.next().await.is_ok() {} }).await;
            return Ok(());
        }
    }
}
