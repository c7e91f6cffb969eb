//! The listening socket, and who serves a connection.

use crate::admin;
use crate::error::{Error, Result};
use crate::limits::{ACCEPT_PAUSE, CLOSE_TIMEOUT, CONNECTIONS_MAX};
use crate::proposer_service;
use crate::registry::Registry;
use crate::timeline::Timeline;
use crate::wal_service;
use ironpage_daemon::frames::{self, Accepted};
use ironpage_daemon::{debug, info, warn};
use ironpage_io::net::{Listener, Stream};
use ironpage_io::spawn;
use ironpage_io::time::{self, timeout};
use ironpage_layout::Term;
use ironpage_layout::wire::hello::{Hello, Role};
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

/// Accepts connections for ever.
pub async fn run(mut listener: Listener, registry: Rc<Registry>) {
    let open = Rc::new(Cell::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                warn!("{error}; going on");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let slot = Slot::take(&open);
        let registry = registry.clone();
        spawn(async move {
            let peer = stream.peer().to_string();
            let Err(error) = connection(stream, &registry, slot.number).await;
            match error {
                Error::Frame(error) if error.is_close() => debug!("{peer}: closed"),
                error => {
                    registry.context.counters.connections_refused.add(1);
                    warn!("connection ended: {}", told(&peer, &error));
                }
            }
            drop(slot);
        });
    }
}

/// The error with the other side's address, once.
fn told(peer: &str, error: &Error) -> String {
    let text = error.to_string();
    if text.contains(peer) { text } else { format!("{peer}: {text}") }
}

/// One of the connections that are open.
struct Slot {
    open: Rc<Cell<usize>>,
    number: usize,
}

impl Slot {
    fn take(open: &Rc<Cell<usize>>) -> Slot {
        open.set(open.get() + 1);
        Slot { open: open.clone(), number: open.get() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

async fn connection(stream: Stream, registry: &Registry, number: usize) -> Result<Infallible> {
    let accepted = frames::accept(stream).await?;
    let timeline = match admit(&accepted.hello, registry, number).await {
        Ok(timeline) => timeline,
        Err(error) => {
            if let Some(remote) = error.to_remote() {
                accepted.refuse(&remote).await?;
            }
            return Err(error);
        }
    };
    accepted.welcome(registry.context.node).await?;
    registry.context.counters.connections.add(1);
    let Accepted { hello, mut reader, writer, .. } = accepted;
    info!("{}: {:?} of timeline {}", reader.peer(), hello.role, hello.timeline);
    let Err(error) = match (hello.role, timeline) {
        (Role::Proposer, Some(timeline)) => proposer_service::serve(timeline, &mut reader, writer.clone()).await,
        (Role::WalReader, Some(timeline)) => wal_service::serve(timeline, &mut reader, writer.clone()).await,
        _ => admin::serve(registry, &mut reader, writer.clone()).await,
    };
    // A proposer's replies go through a queue, and its last word has gone there too.
    if hello.role != Role::Proposer
        && let Some(remote) = error.to_remote()
    {
        let _ = timeout(CLOSE_TIMEOUT, writer.send_error(0, Term(0), &remote)).await;
    }
    writer.shutdown();
    Err(error)
}

/// The timeline the hello is about, `None` for administration; or why it is turned away.
async fn admit(hello: &Hello, registry: &Registry, number: usize) -> Result<Option<Rc<Timeline>>> {
    if number > CONNECTIONS_MAX {
        return Err(Error::TooManyConnections { connections: CONNECTIONS_MAX });
    }
    match hello.role {
        Role::Admin => return Ok(None),
        Role::PageReader => return Err(Error::WrongRole),
        Role::Proposer | Role::WalReader => {}
    }
    let timeline = registry.get(hello.tenant, hello.timeline).await?;
    let (ours, theirs) = (timeline.properties.system_id, hello.system_id);
    if theirs != 0 && theirs != ours {
        return Err(Error::OtherSystem { timeline: hello.timeline, ours, theirs });
    }
    if hello.postgres_version != 0 && hello.postgres_version / 10_000 != 15 {
        return Err(Error::PostgresVersion { version: hello.postgres_version });
    }
    if hello.role == Role::Proposer {
        timeline.check_running()?;
    }
    Ok(Some(timeline))
}
