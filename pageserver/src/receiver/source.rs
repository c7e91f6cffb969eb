//! A stream of WAL from one safekeeper.

use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::{FrameError, FrameReader, FrameWriter, connect};
use ironpage_io::JoinHandle;
use ironpage_io::sync::{Receiver, Sender, channel};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::hello::Hello;
use ironpage_layout::wire::walstream::{WalData, WalKeepalive, WalStart};
use ironpage_layout::{Lsn, Term};

/// Frames read ahead of ingest, of a mebibyte of WAL each (MAX_WAL_CHUNK).
const CHUNKS_AHEAD: usize = 2;

/// What a safekeeper sent.
#[derive(Debug)]
pub enum Event {
    Wal {
        begin: Lsn,
        bytes: Vec<u8>,
        commit_lsn: Lsn,
        term: Term,
    },
    Idle {
        commit_lsn: Lsn,
        term: Term,
    },
    /// The connection is over; why.
    Ended(String),
}

/// An open stream. A task of its own reads the socket, so that waiting for the next event may be given up at any time.
pub struct Source {
    /// Which of the configured safekeepers it is.
    pub index: usize,
    pub address: Address,
    events: Receiver<Event>,
    peeked: Option<Event>,
    task: JoinHandle<()>,
}

impl Source {
    /// Connects and asks for WAL from `from` on.
    pub async fn open(address: &Address, index: usize, hello: &Hello, from: Lsn) -> Result<Source, FrameError> {
        let (reader, writer, _) = connect(address, hello).await?;
        let start = WalStart { from: from.0.into(), until: 0.into(), uncommitted: 0.into(), reserved: 0.into() };
        writer.send(Kind::WalStart, 1, Term(0), |out| start.encode(out)).await?;
        let (sender, events) = channel(CHUNKS_AHEAD);
        let task = ironpage_io::spawn(async move {
            if let Err(error) = pump(reader, &writer, &sender).await {
                // The receiver may be gone, then nobody needs to know.
                let _ = sender.send(Event::Ended(error.to_string())).await;
            }
        });
        Ok(Source { index, address: address.clone(), events, peeked: None, task })
    }

    /// The next event. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Event {
        match self.peeked.take() {
            Some(event) => event,
            None => self.events.recv().await.unwrap_or_else(|| Event::Ended(format!("{}: the stream ended", self.address))),
        }
    }

    /// The commit_lsn of the next event, which stays the next; `None` if the stream has ended.
    pub async fn peek(&mut self) -> Option<Lsn> {
        let event = self.next().await;
        let lsn = match &event {
            Event::Wal { commit_lsn, .. } | Event::Idle { commit_lsn, .. } => Some(*commit_lsn),
            Event::Ended(_) => None,
        };
        self.peeked = Some(event);
        lsn
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads frames into the queue. The writer is kept so that the connection stays open both ways.
async fn pump(mut reader: FrameReader, _writer: &FrameWriter, events: &Sender<Event>) -> Result<(), FrameError> {
    loop {
        let frame = reader.expect(&[Kind::WalData, Kind::WalKeepalive], "WalData or WalKeepalive").await?;
        let (kind, term) = (frame.header.kind, frame.header.term);
        let event = if kind == Kind::WalData {
            WalData::decode_prefix(frame.payload).map(|(head, bytes)| Event::Wal {
                begin: Lsn(head.begin_lsn.get()),
                bytes: bytes.to_vec(),
                commit_lsn: Lsn(head.commit_lsn.get()),
                term,
            })
        } else {
            WalKeepalive::decode(frame.payload).map(|head| Event::Idle { commit_lsn: Lsn(head.commit_lsn.get()), term })
        };
        let event = event.map_err(|error| reader.malformed(error))?;
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}
