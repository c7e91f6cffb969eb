//! Connections, and the bounds of each.

use super::message::{Request, Response};
use super::socket::Socket;
use crate::{debug, warn};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use ironpage_io::net::{Listener, Stream};
use ironpage_io::sync::Notify;
use ironpage_io::time::{Instant, now, sleep, sleep_until, timeout};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What answers requests. It is run to its end, also for a client that has gone.
pub type Handler = Rc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response>>>>;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Requests under way; one more is answered 503.
    pub requests: usize,
    /// Bytes of the request line and the headers; more is answered 431.
    pub head_bytes: usize,
    /// More is answered 413.
    pub body_bytes: usize,
    /// From the connection to the end of the headers.
    pub head_time: Duration,
    /// From there to the end of the body.
    pub body_time: Duration,
    /// From there to the answer; later it is 504, and the request goes on.
    pub answer_time: Duration,
    /// For the client to take the answer.
    pub send_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            requests: 128,
            head_bytes: 16 << 10,
            body_bytes: 1 << 20,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(20),
            answer_time: Duration::from_secs(120),
            send_time: Duration::from_secs(20),
        }
    }
}

/// Pause after the kernel refused a connection: it is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Server {
    limits: Limits,
    handler: Handler,
    connections: Cell<usize>,
    requests: Cell<usize>,
}

/// Accepts connections for ever.
pub async fn serve(mut listener: Listener, limits: Limits, handler: Handler) {
    let server = Rc::new(Server { limits, handler, connections: Cell::new(0), requests: Cell::new(0) });
    loop {
        match listener.accept().await {
            Ok(stream) if server.connections.get() < limits.connections => {
                let server = server.clone();
                let counted = Counted::new(&server, |server| &server.connections);
                drop(ironpage_io::spawn(async move {
                    server.connection(stream).await;
                    drop(counted);
                }));
            }
            Ok(stream) => debug!("{}: refused, there are {} HTTP connections already", stream.peer(), limits.connections),
            Err(error) => {
                warn!("{error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Server {
    async fn connection(self: &Rc<Self>, stream: Stream) {
        let peer = stream.peer().to_string();
        let phase = Rc::new(Phase { deadline: Cell::new(now() + self.limits.head_time), changed: Notify::new() });
        let service = hyper::service::service_fn(|request| {
            let (server, phase) = (self.clone(), phase.clone());
            async move { Ok::<_, Infallible>(server.request(request, &phase).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            // Some clients end their direction once the request is sent.
            .half_close(true)
            .max_header_size(self.limits.head_bytes)
            // hyper's least is 8 KiB; it bounds what is read ahead of the body.
            .max_buf_size(self.limits.head_bytes.max(8 << 10) + 8192)
            .serve_connection(Socket::new(stream), service);
        let (mut connection, mut late) = (pin!(connection), pin!(phase.late()));
        poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(result) => {
                if let Err(error) = result {
                    // Whoever asks garbage would fill the log.
                    debug!("{peer}: {error}");
                }
                Poll::Ready(())
            }
            Poll::Pending => late.as_mut().poll(cx),
        })
        .await;
    }

    async fn request(self: Rc<Self>, request: hyper::Request<Incoming>, phase: &Phase) -> hyper::Response<Whole> {
        let limits = self.limits;
        // The body's own time-out answers; this one is for a client that then takes no answer.
        phase.ends_in(limits.body_time + limits.send_time);
        let (head, body) = request.into_parts();
        // Pages from anywhere can have a browser on this machine send requests here, and it says where they are from.
        if head.headers.contains_key(hyper::header::ORIGIN) {
            return encode(Response::error(403, "bad_request", "requests of web pages are not served: this one has an Origin"));
        }
        let response = match timeout(limits.body_time, collect(body, limits.body_bytes)).await {
            Ok(Ok(body)) => {
                let (path, query) = (head.uri.path().to_string(), head.uri.query().unwrap_or_default().to_string());
                let request = Request { method: head.method, path, query, body };
                phase.ends_in(limits.answer_time + limits.send_time);
                self.answer(request).await
            }
            Ok(Err(response)) => response,
            Err(_) => {
                Response::error(408, "bad_request", format!("the request's body took more than {} s", limits.body_time.as_secs()))
            }
        };
        phase.ends_in(limits.send_time);
        encode(response)
    }

    async fn answer(self: &Rc<Self>, request: Request) -> Response {
        if self.requests.get() >= self.limits.requests {
            let text = format!("{} requests are under way already; try again", self.limits.requests);
            return Response::error(503, "unavailable", text);
        }
        let counted = Counted::new(self, |server| &server.requests);
        let handling = (self.handler)(request);
        let answer = ironpage_io::spawn(async move {
            let response = handling.await;
            drop(counted);
            response
        });
        match timeout(self.limits.answer_time, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Response::error(503, "unavailable", "the daemon is stopping"),
            Err(_) => {
                let seconds = self.limits.answer_time.as_secs();
                Response::error(504, "unavailable", format!("not done within {seconds} s; it goes on, look again later"))
            }
        }
    }
}

/// Counts a connection or request while it lives.
struct Counted {
    server: Rc<Server>,
    counter: fn(&Server) -> &Cell<usize>,
}

impl Counted {
    fn new(server: &Rc<Server>, counter: fn(&Server) -> &Cell<usize>) -> Counted {
        counter(server).set(counter(server).get() + 1);
        Counted { server: server.clone(), counter }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = (self.counter)(&self.server);
        counter.set(counter.get() - 1);
    }
}

/// When the connection ends if nothing more happens on it.
struct Phase {
    deadline: Cell<Instant>,
    changed: Notify,
}

impl Phase {
    fn ends_in(&self, time: Duration) {
        self.deadline.set(now() + time);
        self.changed.notify_all();
    }

    async fn late(&self) {
        loop {
            let (mut changed, mut until) = (pin!(self.changed.notified()), pin!(sleep_until(self.deadline.get())));
            let late = poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                until.as_mut().poll(cx).map(|()| true)
            });
            if late.await {
                return;
            }
        }
    }
}

/// The whole body, or the answer to one that is too long or cut short.
async fn collect(mut body: Incoming, max: usize) -> Result<Vec<u8>, Response> {
    let too_long = || Response::error(413, "bad_request", format!("the request's body has more than {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| Response::error(400, "bad_request", format!("the request's body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn encode(response: Response) -> hyper::Response<Whole> {
    let has_body = !response.body.is_empty();
    let mut encoded = hyper::Response::new(Whole(has_body.then(|| response.body.into())));
    *encoded.status_mut() = hyper::StatusCode::from_u16(response.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = encoded.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(allow) = response.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    encoded
}

/// A body in one piece.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
