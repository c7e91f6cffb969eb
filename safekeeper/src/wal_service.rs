//! WAL out: to pageservers, up to commit_lsn; to launchers and peers that follow the accepted term, up to
//! flush_lsn. One stream a connection; another `WalStart` replaces it.

use crate::error::{Error, Result};
use crate::limits::{CLOSE_TIMEOUT, KEEPALIVE, WAL_DATA_BYTES_MAX};
use crate::timeline::{Position, Timeline};
use crate::wal::reader::Reader;
use ironpage_daemon::frames::{FrameReader, FrameWriter};
use ironpage_io::spawn;
use ironpage_io::sync::{Notified, Notify};
use ironpage_io::time::{now, timeout};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::walstream::{WalData, WalKeepalive, WalStart};
use ironpage_layout::{Lsn, Term};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use zerocopy::little_endian::U64;

/// What a reader asked for.
#[derive(Clone, Copy, Debug)]
struct Request {
    id: u64,
    from: Lsn,
    /// `Lsn::MAX`: for ever.
    until: Lsn,
    /// Of whose log uncommitted WAL may be sent.
    uncommitted: Option<Term>,
}

/// What the reading half of a connection tells the streaming half.
#[derive(Default)]
struct Orders {
    request: RefCell<Option<Request>>,
    ended: Cell<bool>,
    changed: Notify,
}

/// Serves one connection until it ends. The hello has been answered.
pub async fn serve(timeline: Rc<Timeline>, reader: &mut FrameReader, writer: FrameWriter) -> Result<Infallible> {
    let orders = Rc::new(Orders::default());
    let streaming = {
        let (orders, writer) = (orders.clone(), writer.clone());
        spawn(Stream { reader: timeline.wal_reader(), timeline, writer, orders }.run())
    };
    let Err(error) = take_orders(reader, &orders).await;
    orders.ended.set(true);
    orders.changed.notify_all();
    // What it is sending may be for somebody who does not read any more.
    if timeout(CLOSE_TIMEOUT, streaming).await.is_err() {
        writer.shutdown();
    }
    Err(error)
}

async fn take_orders(reader: &mut FrameReader, orders: &Orders) -> Result<Infallible> {
    loop {
        let frame = reader.next().await?;
        if frame.header.kind != Kind::WalStart {
            return Err(Error::NotAllowed { what: format!("a frame of kind {:?}", frame.header.kind) });
        }
        let start = WalStart::decode(frame.payload)?;
        let until = Lsn(start.until.get());
        *orders.request.borrow_mut() = Some(Request {
            id: frame.header.request_id,
            from: Lsn(start.from.get()),
            until: if until.is_valid() { until } else { Lsn::MAX },
            uncommitted: (start.uncommitted.get() != 0).then_some(frame.header.term),
        });
        orders.changed.notify_all();
    }
}

/// The sending half.
struct Stream {
    timeline: Rc<Timeline>,
    reader: Reader,
    writer: FrameWriter,
    orders: Rc<Orders>,
}

impl Stream {
    async fn run(mut self) {
        while !self.orders.ended.get() {
            let (moved, changed) = (self.timeline.moved(), self.orders.changed.notified());
            let request = self.orders.request.borrow_mut().take();
            let result = match (self.timeline.check_there(), request) {
                (Err(deleted), _) => Err((0, deleted)),
                (Ok(()), Some(request)) => self.stream(request).await.map_err(|error| (request.id, error)),
                (Ok(()), None) => {
                    either(moved, changed).await;
                    continue;
                }
            };
            if let Err((request_id, error)) = result {
                // Once its files go, reading fails in more ways than one.
                let deleted = self.timeline.check_there().err();
                let ends = deleted.is_some();
                let error = deleted.unwrap_or(error);
                let told = match error.to_remote() {
                    Some(remote) => self.writer.send_error(request_id, self.timeline.term(), &remote).await.is_ok(),
                    None => false,
                };
                if !told || ends {
                    // The reading half waits for orders that cannot come.
                    self.writer.shutdown();
                    return;
                }
            }
        }
    }

    /// Sends until `until` is reached, the orders change, or something fails.
    async fn stream(&mut self, request: Request) -> Result<()> {
        let properties = &self.timeline.properties;
        // The start of the first segment is there too, as far as it came with the timeline.
        let first = properties.start_lsn.segment_start();
        if request.from < first {
            let end = self.timeline.position().commit_lsn;
            return Err(Error::OutOfRange { asked: request.from, start: first, end });
        }
        // A cut since the last request may have replaced the segment that is open.
        self.reader.close();
        let mut at = request.from;
        let mut told = None;
        let mut told_at = now();
        loop {
            let (moved, ordered) = (self.timeline.moved(), self.orders.changed.notified());
            if self.orders.ended.get() || self.orders.request.borrow().is_some() {
                return Ok(());
            }
            let position = self.position(&request)?;
            let end = self.end(&request, &position).min(request.until);
            if at < end {
                at = self.send_data(&request, at, end).await?;
                (told, told_at) = (Some(position), now());
                continue;
            }
            let done = at >= request.until;
            // A leader's heartbeats wake this loop too, more often than keepalives are due.
            if done || told != Some(position) || told_at.elapsed() >= KEEPALIVE {
                self.send_keepalive(&request, position).await?;
                (told, told_at) = (Some(position), now());
            }
            if done {
                return Ok(());
            }
            let _ = timeout(KEEPALIVE.saturating_sub(told_at.elapsed()), either(moved, ordered)).await;
        }
    }

    /// Where the timeline stands; an error if the reader's term is not the accepted one any more.
    fn position(&self, request: &Request) -> Result<Position> {
        self.timeline.check_there()?;
        if let Some(asked) = request.uncommitted
            && !self.timeline.may_serve_uncommitted(asked)
        {
            let known = self.timeline.term();
            return Err(if known > asked { Error::Fenced { known, asked } } else { Error::NotAccepted { known, asked } });
        }
        let mut position = self.timeline.position();
        if request.uncommitted.is_none() {
            // Of no interest to this reader: a flush alone is no reason to write to it.
            position.flush_lsn = position.flush_lsn.min(position.commit_lsn);
        }
        Ok(position)
    }

    fn end(&self, request: &Request, position: &Position) -> Lsn {
        if request.uncommitted.is_some() { position.flush_lsn } else { position.commit_lsn }
    }

    async fn send_data(&mut self, request: &Request, at: Lsn, end: Lsn) -> Result<Lsn> {
        let max = end.since(at).min(WAL_DATA_BYTES_MAX as u64) as usize;
        let recent = self.timeline.recent(at, max);
        let from_disk;
        let wal: &[u8] = match &recent {
            Some(recent) => recent,
            None => {
                from_disk = self.reader.read(at, max).await?;
                &from_disk
            }
        };
        // While the disk was read, a new leader may have cut what is not committed.
        let position = self.position(request)?;
        if at + wal.len() as u64 > self.end(request, &position) {
            self.reader.close();
            return Ok(at);
        }
        let data = WalData {
            begin_lsn: U64::new(at.0),
            commit_lsn: U64::new(position.commit_lsn.0),
            term_start_lsn: U64::new(position.term_start.0),
        };
        let payload = |out: &mut Vec<u8>| {
            data.encode(out);
            out.extend_from_slice(wal);
        };
        self.writer.send(Kind::WalData, request.id, position.term, payload).await?;
        self.timeline.context.counters.streamed_bytes.add(wal.len() as u64);
        Ok(at + wal.len() as u64)
    }

    async fn send_keepalive(&self, request: &Request, position: Position) -> Result<()> {
        let keepalive = WalKeepalive {
            commit_lsn: U64::new(position.commit_lsn.0),
            flush_lsn: U64::new(self.timeline.position().flush_lsn.0),
            term_start_lsn: U64::new(position.term_start.0),
        };
        Ok(self.writer.send(Kind::WalKeepalive, request.id, position.term, |out| keepalive.encode(out)).await?)
    }
}

/// Ready when one of two events is.
async fn either(one: Notified, other: Notified) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => other.as_mut().poll(cx),
    })
    .await
}
