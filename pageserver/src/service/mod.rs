//! The port: hellos, and what each role may ask for.

mod admin;
mod basebackup;
mod error;
mod import;
mod pages;
mod permits;
mod status;

pub use status::Counters;

use crate::branches::Branches;
use crate::timeline::Timeline;
use error::{Failure, refusal};
use ironpage_daemon::frames::{Accepted, FrameError, accept};
use ironpage_daemon::{debug, warn};
use ironpage_io::net::{Listener, Stream};
use ironpage_io::time::sleep;
use ironpage_layout::NodeId;
use ironpage_layout::wire::ErrorCode;
use ironpage_layout::wire::hello::{Hello, Role};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Connections at most. One is a backend; the rest is what administration needs.
const CONNECTIONS_MAX: usize = 4096;
/// Pause after the kernel refused a connection: it is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs to know.
#[derive(Clone)]
pub struct Service {
    shared: Rc<Shared>,
}

struct Shared {
    node: NodeId,
    branches: Branches,
    counters: Counters,
    connections: Cell<usize>,
}

impl Service {
    pub fn new(node: NodeId, branches: Branches) -> Service {
        let shared = Shared { node, branches, counters: Counters::default(), connections: Cell::new(0) };
        Service { shared: Rc::new(shared) }
    }

    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    pub fn branches(&self) -> &Branches {
        &self.shared.branches
    }

    /// Accepts connections for ever.
    pub async fn serve(&self, mut listener: Listener) {
        loop {
            match listener.accept().await {
                Ok(stream) if self.shared.connections.get() < CONNECTIONS_MAX => {
                    let service = self.clone();
                    self.shared.connections.set(self.shared.connections.get() + 1);
                    drop(ironpage_io::spawn(async move {
                        service.connection(stream).await;
                        service.shared.connections.set(service.shared.connections.get() - 1);
                    }));
                }
                Ok(stream) => warn!("{}: refused, there are {CONNECTIONS_MAX} connections already", stream.peer()),
                Err(error) => {
                    warn!("{error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: Stream) {
        let result = async {
            let accepted = accept(stream).await?;
            self.role(accepted).await
        };
        match result.await {
            Err(error) if error.is_close() => {}
            // Whoever asks garbage would fill the log.
            Err(error) => debug!("{error}"),
            Ok(()) => {}
        }
    }

    async fn role(&self, accepted: Accepted) -> Result<(), FrameError> {
        match accepted.hello.role {
            Role::PageReader => match self.timeline_of(&accepted.hello) {
                Ok(timeline) => {
                    accepted.welcome(self.shared.node).await?;
                    pages::serve(self, timeline, accepted).await
                }
                Err(failure) => accepted.refuse(&failure.remote()).await,
            },
            Role::Admin => {
                accepted.welcome(self.shared.node).await?;
                admin::serve(self, accepted).await
            }
            Role::Proposer | Role::WalReader => {
                let text = format!("this is pageserver {}: it neither takes nor sends WAL; check the address", self.shared.node);
                accepted.refuse(&refusal(ErrorCode::Refused, text).remote()).await
            }
        }
    }

    /// The timeline a hello names, if the other side belongs to it.
    fn timeline_of(&self, hello: &Hello) -> Result<Rc<Timeline>, Failure> {
        let found = self.shared.branches.timelines().get(hello.tenant, hello.timeline);
        let timeline = found.ok_or_else(|| {
            let text = format!("no timeline {} of tenant {} on pageserver {}", hello.timeline, hello.tenant, self.shared.node);
            refusal(ErrorCode::NotFound, text)
        })?;
        let record = timeline.record();
        if hello.system_id != 0 && hello.system_id != record.system_id {
            let text = format!(
                "timeline {} is of the cluster with system identifier {}, not {}",
                record.timeline, record.system_id, hello.system_id
            );
            return Err(refusal(ErrorCode::Refused, text));
        }
        if hello.postgres_version != 0 && hello.postgres_version / 10_000 != record.postgres_version / 10_000 {
            let text = format!(
                "timeline {} is of PostgreSQL {}, not {}",
                record.timeline,
                record.postgres_version / 10_000,
                hello.postgres_version / 10_000
            );
            return Err(refusal(ErrorCode::Unsupported, text));
        }
        Ok(timeline)
    }
}
