//! Connections of proposers: a launcher that wants a term, or the worker inside Postgres that has one.
//!
//! Messages of a connection are handled in order; replies go out from a task of their own, because an
//! append is answered only when it is flushed. Replies to appends are cumulative: while one waits for the
//! socket, a newer one replaces it.

use crate::error::{Error, Result};
use crate::limits::{CLOSE_TIMEOUT, LSN_MAX, REPLIES_MAX};
use crate::timeline::Timeline;
use ironpage_consensus::acceptor::{ConnId, Reply};
use ironpage_daemon::frames::{FrameReader, FrameWriter};
use ironpage_io::spawn;
use ironpage_io::sync::Notify;
use ironpage_io::time::timeout;
use ironpage_layout::wire::append::{Append, Elected, VoteRequest};
use ironpage_layout::wire::{Kind, MAX_WAL_CHUNK, RemoteError, WireError};
use ironpage_layout::{Lsn, Term};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

/// Serves one connection until it ends. The hello has been answered.
pub async fn serve(timeline: Rc<Timeline>, reader: &mut FrameReader, writer: FrameWriter) -> Result<Infallible> {
    let conn = timeline.context.next_conn();
    let replies = Rc::new(Replies::default());
    let (term, greeting) = timeline.connect(conn, replies.clone())?;
    let guard = Connected { timeline: timeline.clone(), conn };
    writer.send(Kind::Greeting, 0, term, |out| greeting.encode(out)).await?;
    let sending = {
        let (replies, writer) = (replies.clone(), writer.clone());
        spawn(async move { replies.send_all(&writer).await })
    };
    let Err(error) = take_messages(&timeline, conn, reader, &replies).await;
    drop(guard);
    replies.close(&error, timeline.term());
    // Replies that wait are for somebody who may not read any more.
    let _ = timeout(CLOSE_TIMEOUT, sending).await;
    writer.shutdown();
    Err(error)
}

/// Hands in messages, one after the other, until something ends the connection.
async fn take_messages(timeline: &Rc<Timeline>, conn: ConnId, reader: &mut FrameReader, replies: &Replies) -> Result<Infallible> {
    loop {
        let frame = reader.next().await?;
        let (header, payload) = (frame.header, frame.payload);
        replies.room().await?;
        timeline.ready().await?;
        replies.request_id.set(header.request_id);
        match header.kind {
            Kind::VoteRequest => {
                VoteRequest::decode(payload)?;
                timeline.vote_request(conn, header.term);
            }
            Kind::Elected => {
                let elected = Elected::decode(payload)?;
                if elected.history.0.iter().any(|(_, start)| !can_be_record_end(*start)) {
                    let why = "a term starts where no record can end";
                    return Err(WireError::BadPayload { what: "Elected", why }.into());
                }
                timeline.elected(conn, header.term, &elected.history);
            }
            Kind::Append => {
                let (append, wal) = Append::decode_prefix(payload)?;
                let begin = Lsn(append.begin_lsn.get());
                if wal.len() > MAX_WAL_CHUNK || begin > LSN_MAX {
                    return Err(WireError::BadPayload { what: "Append", why: "too much WAL, or too far" }.into());
                }
                timeline.append(conn, header.term, begin, Lsn(append.commit_lsn.get()), wal)?;
            }
            other => return Err(Error::NotAllowed { what: format!("a frame of kind {other:?}") }),
        }
    }
}

/// Whether `lsn` is a position where a record could end.
pub fn can_be_record_end(lsn: Lsn) -> bool {
    lsn.is_valid() && lsn <= LSN_MAX && lsn == lsn.to_record_end().align_up()
}

/// The connection, as long as its messages count.
struct Connected {
    timeline: Rc<Timeline>,
    conn: ConnId,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.timeline.disconnect(self.conn);
    }
}

/// Replies on their way to one proposer. Each carries the id of the newest request taken in.
#[derive(Default)]
pub struct Replies {
    queue: RefCell<VecDeque<(u64, Term, Reply)>>,
    /// What ends the connection, behind what is queued.
    last: RefCell<Option<(Term, RemoteError)>>,
    ended: Cell<bool>,
    request_id: Cell<u64>,
    changed: Notify,
}

impl Replies {
    pub fn push(&self, term: Term, reply: Reply) {
        let mut queue = self.queue.borrow_mut();
        if let (Reply::Append(_), Some((_, queued_term, Reply::Append(_)))) = (&reply, queue.back())
            && *queued_term == term
        {
            queue.pop_back();
        }
        queue.push_back((self.request_id.get(), term, reply));
        self.changed.notify_all();
    }

    /// Ends the connection with an `Error` frame, once what is queued has been sent.
    pub fn close(&self, error: &Error, term: Term) {
        if let Some(remote) = error.to_remote() {
            self.last.borrow_mut().get_or_insert((term, remote));
        }
        self.end();
    }

    fn end(&self) {
        self.ended.set(true);
        self.changed.notify_all();
    }

    /// Waits until another request may be taken in.
    async fn room(&self) -> Result<()> {
        loop {
            let changed = self.changed.notified();
            if self.ended.get() {
                return Err(Error::Closed);
            }
            if self.queue.borrow().len() < REPLIES_MAX {
                return Ok(());
            }
            changed.await;
        }
    }

    async fn send_all(&self, writer: &FrameWriter) {
        loop {
            let next = self.queue.borrow_mut().pop_front();
            let sent = match next {
                Some((request_id, term, Reply::Vote(vote))) => {
                    writer.send(Kind::VoteReply, request_id, term, |out| vote.encode(out)).await
                }
                Some((request_id, term, Reply::Append(append))) => {
                    writer.send(Kind::AppendReply, request_id, term, |out| append.encode(out)).await
                }
                None if self.ended.get() => {
                    let last = self.last.borrow_mut().take();
                    if let Some((term, error)) = last {
                        let _ = writer.send_error(self.request_id.get(), term, &error).await;
                    }
                    writer.shutdown();
                    return;
                }
                None => {
                    self.changed.notified().await;
                    Ok(())
                }
            };
            self.changed.notify_all();
            if sent.is_err() {
                // Ends the reading side too; nothing more can be said here.
                self.end();
                writer.shutdown();
                return;
            }
        }
    }
}
