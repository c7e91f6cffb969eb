//! Stands in for a safekeeper: it serves the WAL it is given, up to a commit_lsn the test moves.

use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::{FrameError, accept};
use ironpage_io::JoinHandle;
use ironpage_io::net::{Listener, Stream};
use ironpage_io::sync::Watch;
use ironpage_io::time::timeout;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::walstream::{WalData, WalKeepalive, WalStart};
use ironpage_layout::wire::{ErrorCode, Kind, RemoteError};
use ironpage_layout::{Lsn, NodeId, Term, TimelineId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const CHUNK: usize = 300_000;
const KEEPALIVE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Safekeeper {
    pub address: Address,
    pub commit: Watch<Lsn>,
    /// How far it says it has flushed; `None`: as far as is committed.
    pub flush: Rc<Cell<Option<Lsn>>>,
    pub term: Rc<Cell<Term>>,
    /// Connections that asked for WAL.
    pub readers: Rc<Cell<usize>>,
    /// The timelines it has, all with the same WAL; `None`: whichever is asked for.
    pub only: Rc<RefCell<Option<BTreeSet<TimelineId>>>>,
    server: Rc<JoinHandle<()>>,
}

impl Safekeeper {
    /// Serves `wal`, which begins at `start`, up to `commit`.
    pub fn new(start: Lsn, wal: Rc<Vec<u8>>, commit: Lsn) -> Safekeeper {
        let mut listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
        let address = listener.name().parse().unwrap();
        let (commit, term, readers) = (Watch::new(commit), Rc::new(Cell::new(Term(0))), Rc::new(Cell::new(0)));
        let (only, flush) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(None)));
        let shared = (commit.clone(), flush.clone(), term.clone(), readers.clone(), only.clone());
        let server = ironpage_io::spawn(async move {
            let (commit, flush, term, readers, only) = shared;
            loop {
                let stream = listener.accept().await.unwrap();
                let (wal, commit, flush, term, readers, only) =
                    (wal.clone(), commit.clone(), flush.clone(), term.clone(), readers.clone(), only.clone());
                drop(ironpage_io::spawn(async move {
                    // The pageserver leaves when it likes.
                    let _ = serve(stream, start, &wal, (commit, &flush), &term, &readers, &only).await;
                }));
            }
        });
        Safekeeper { address, commit, flush, term, readers, only, server: Rc::new(server) }
    }

    /// Takes no more connections.
    pub fn close(&self) {
        self.server.abort();
    }
}

async fn serve(
    stream: Stream,
    start: Lsn,
    wal: &[u8],
    (commit, flush): (Watch<Lsn>, &Cell<Option<Lsn>>),
    term: &Cell<Term>,
    readers: &Cell<usize>,
    only: &RefCell<Option<BTreeSet<TimelineId>>>,
) -> Result<(), FrameError> {
    let mut accepted = accept(stream).await?;
    assert_eq!(accepted.hello.role, Role::WalReader);
    let unknown = only.borrow().as_ref().is_some_and(|only| !only.contains(&accepted.hello.timeline));
    if unknown {
        let message = format!("no timeline {} here", accepted.hello.timeline);
        return accepted.refuse(&RemoteError { code: ErrorCode::NotFound, message }).await;
    }
    accepted.welcome(NodeId(1)).await?;
    let frame = accepted.reader.expect(&[Kind::WalStart], "WalStart").await?;
    let id = frame.header.request_id;
    let request = WalStart::decode(frame.payload).unwrap();
    let mut at = Lsn(request.from.get());
    let until = if request.until.get() == 0 { Lsn::MAX } else { Lsn(request.until.get()) };
    readers.set(readers.get() + 1);
    loop {
        let (version, commit_lsn) = (commit.version(), commit.get());
        if at < commit_lsn.min(until) {
            let from = at.since(start) as usize;
            let bytes = &wal[from..(from + CHUNK).min(commit_lsn.since(start) as usize)];
            let head = WalData { begin_lsn: at.0.into(), commit_lsn: commit_lsn.0.into(), term_start_lsn: 0.into() };
            at = at + bytes.len() as u64;
            let payload = |out: &mut Vec<u8>| {
                head.encode(out);
                out.extend_from_slice(bytes);
            };
            accepted.writer.send(Kind::WalData, id, term.get(), payload).await?;
        } else {
            let flush_lsn = flush.get().unwrap_or(commit_lsn);
            let head = WalKeepalive { commit_lsn: commit_lsn.0.into(), flush_lsn: flush_lsn.0.into(), term_start_lsn: 0.into() };
            accepted.writer.send(Kind::WalKeepalive, id, term.get(), |out| head.encode(out)).await?;
            if at >= until {
                continue_until_gone(&mut accepted).await;
                return Ok(());
            }
            let _ = timeout(KEEPALIVE, commit.changed(version)).await;
        }
    }
}

/// The stream has come to its end; the other side may stay.
async fn continue_until_gone(accepted: &mut ironpage_daemon::frames::Accepted) {
    while accepted.reader.next().await.is_ok() {}
}
