//! Real sockets on a real ring; the client sends bytes as a bad one may.

use super::{Handler, Limits, Request, Response, serve};
use ironpage_io::net::{Listener, Stream};
use ironpage_io::time::{now, sleep};
use ironpage_io::{Config, run, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

fn limits() -> Limits {
    Limits {
        connections: 4,
        requests: 2,
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(300),
        answer_time: Duration::from_millis(500),
        send_time: Duration::from_millis(500),
        ..Limits::default()
    }
}

fn echo() -> Handler {
    Rc::new(|request: Request| {
        Box::pin(async move {
            if request.path == "/slow" {
                sleep(Duration::from_secs(1)).await;
            }
            let text = format!("{} {} {} {}", request.method, request.path, request.query, request.body.len());
            Response::json(200, &text)
        })
    })
}

fn start(limits: Limits, handler: Handler) -> std::net::SocketAddr {
    let listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(spawn(serve(listener, limits, handler)));
    address
}

/// Sends `bytes` and reads to the end of the answer.
async fn exchange(address: std::net::SocketAddr, bytes: impl Into<Vec<u8>>) -> String {
    let mut stream = Stream::connect_tcp(address, PATIENCE).await.unwrap();
    let (sent, _) = stream.write_all(bytes.into()).await;
    let mut answer = Vec::new();
    while let Ok(1..) = stream.read_into(&mut answer, 1 << 16).await {}
    let _ = sent;
    String::from_utf8(answer).unwrap()
}

fn post(path: &str, body: usize) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {body}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    bytes
}

#[test]
fn requests_are_answered_and_bounded() {
    run(Config::default(), || async {
        let address = start(limits(), echo());
        let answer = exchange(address, "GET /a/b?c=d HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\"GET /a/b c=d 0\""), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("content-type: application/json"), "{answer}");
        let answer = exchange(address, post("/", 1 << 20)).await;
        assert!(answer.ends_with("\"POST /  1048576\""), "{answer}");
        // The answer comes through although most of the body was never read.
        let answer = exchange(address, post("/", (1 << 20) + 1)).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(exchange(address, post("/", 32 << 20)).await.starts_with("HTTP/1.1 413"));
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = exchange(address, format!("{chunked}3\r\nabc\r\n0\r\n\r\n")).await;
        assert!(answer.ends_with("\"POST /  3\""), "{answer}");
        let long = format!("{chunked}200000\r\n{}\r\n0\r\n\r\n", "x".repeat(2 << 20));
        assert!(exchange(address, long).await.starts_with("HTTP/1.1 413"));
        let answer = exchange(address, format!("{chunked}zz\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let answer = exchange(address, format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(40_000))).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        let answer = exchange(address, format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(40_000))).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(exchange(address, "\x16\x03\x01\x02\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let from_a_page = "POST / HTTP/1.1\r\nHost: x\r\nOrigin: https://elsewhere\r\nContent-Length: 2\r\n\r\n{}";
        assert!(exchange(address, from_a_page).await.starts_with("HTTP/1.1 403"));
        assert!(exchange(address, "GET / HTTP/2.0\r\n\r\n").await.starts_with("HTTP/1.1 "));
    })
    .unwrap();
}

#[test]
fn slow_clients_and_slow_answers_have_an_end() {
    run(Config::default(), || async {
        let address = start(limits(), echo());
        let began = now();
        assert_eq!(exchange(address, "GET / HTTP/1.1\r\nHo").await, "");
        assert!(began.elapsed() < PATIENCE);
        let answer = exchange(address, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc").await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let answer = exchange(address, "GET /slow HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("unavailable"), "{answer}");
        // The two slots are taken by what was given up on; when it has ended there is room again.
        let slow = || spawn(exchange(address, "GET /slow HTTP/1.1\r\n\r\n"));
        let tasks = [slow(), slow(), slow()];
        let mut busy = 0;
        for task in tasks {
            busy += usize::from(task.await.unwrap().starts_with("HTTP/1.1 503"));
        }
        assert!(busy >= 1);
        let until = now() + PATIENCE;
        while !exchange(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200") {
            assert!(now() < until);
        }
    })
    .unwrap();
}

#[test]
fn more_connections_than_allowed_are_closed() {
    run(Config::default(), || async {
        let address = start(Limits { connections: 1, head_time: PATIENCE, ..limits() }, echo());
        let held = Stream::connect_tcp(address, PATIENCE).await.unwrap();
        assert_eq!(exchange(address, "GET / HTTP/1.1\r\n\r\n").await, "");
        drop(held);
        let until = now() + PATIENCE;
        while !exchange(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200") {
            assert!(now() < until);
        }
    })
    .unwrap();
}

#[test]
fn a_request_goes_on_without_its_client() {
    run(Config::default(), || async {
        let done = Rc::new(Cell::new(0));
        let counted = done.clone();
        let handler: Handler = Rc::new(move |_| {
            let done = counted.clone();
            Box::pin(async move {
                sleep(Duration::from_millis(100)).await;
                done.set(done.get() + 1);
                Response::json(200, &())
            })
        });
        let address = start(limits(), handler);
        let mut stream = Stream::connect_tcp(address, PATIENCE).await.unwrap();
        stream.write_all(post("/", 3)).await.0.unwrap();
        sleep(Duration::from_millis(30)).await;
        drop(stream);
        let until = now() + PATIENCE;
        while done.get() == 0 {
            assert!(now() < until);
            sleep(Duration::from_millis(5)).await;
        }
    })
    .unwrap();
}
