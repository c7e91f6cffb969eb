//! Tests of sockets on the real ring.

use std::path::PathBuf;
use std::time::Duration;

use super::{Listener, Stream};
use crate::error::Errno;
use crate::time::timeout;
use crate::{Config, IoError, run, spawn, yield_now};

const SOON: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(20);

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ironpage-io-{}-{name}.sock", std::process::id()))
}

/// Answers each 32-byte request by `answer` bytes of its first byte.
async fn serve(stream: Stream, answer: usize) -> usize {
    let (mut reader, mut writer) = stream.split();
    let (mut requests, mut served, mut out) = (Vec::new(), 0, Vec::new());
    loop {
        let (result, back) = reader.read(requests, 64 << 10).await;
        requests = back;
        if result.unwrap() == 0 {
            assert!(requests.is_empty());
            return served;
        }
        let whole = requests.len() / 32 * 32;
        for request in requests[..whole].chunks(32) {
            out.clear();
            out.resize(answer, request[0]);
            let (result, back) = writer.write_all(out).await;
            result.unwrap();
            out = back;
            served += 1;
        }
        requests.drain(..whole);
    }
}

async fn ask(stream: &mut Stream, byte: u8, answer: usize) {
    let (result, _) = stream.write_all(vec![byte; 32]).await;
    result.unwrap();
    let mut got = Vec::new();
    while got.len() < answer {
        let wanted = answer - got.len();
        assert_ne!(stream.read_into(&mut got, wanted).await.unwrap(), 0);
    }
    assert!(got.iter().all(|received| *received == byte));
}

#[test]
fn frames_go_to_and_fro_over_tcp_and_unix() {
    run(Config::default(), || async {
        let path = socket_path("echo");
        let tcp = Listener::bind_tcp("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = Listener::bind_unix(&path).unwrap();
        assert_eq!(unix.local_addr(), None);
        const CLIENTS: usize = 40;
        const FRAMES: usize = 50;
        let servers: Vec<_> = [tcp, unix]
            .into_iter()
            .map(|mut listener| {
                spawn(async move {
                    let mut connections = Vec::new();
                    for _ in 0..CLIENTS {
                        connections.push(spawn(serve(listener.accept().await.unwrap(), 8192)));
                    }
                    for connection in connections {
                        assert_eq!(connection.await.unwrap(), FRAMES);
                    }
                })
            })
            .collect();
        let clients: Vec<_> = (0..2 * CLIENTS)
            .map(|number| {
                let path = path.clone();
                spawn(async move {
                    let mut stream = match number % 2 {
                        0 => Stream::connect_tcp(address, PATIENCE).await.unwrap(),
                        _ => Stream::connect_unix(path).await.unwrap(),
                    };
                    for frame in 0..FRAMES {
                        ask(&mut stream, (number + frame) as u8, 8192).await;
                    }
                })
            })
            .collect();
        for task in clients.into_iter().chain(servers) {
            task.await.unwrap();
        }
        assert!(!path.exists());
    })
    .unwrap();
}

#[test]
fn a_dropped_read_loses_nothing() {
    run(Config::default(), || async {
        let (mut near, mut far) = pair().await;
        assert!(timeout(SOON, near.read(Vec::new(), 100)).await.is_err());
        let mut gathered = b"kept ".to_vec();
        assert!(timeout(SOON, near.read_into(&mut gathered, 100)).await.is_err());
        let (result, _) = far.write_all(b"hello world".to_vec()).await;
        result.unwrap();
        assert_eq!(near.read_into(&mut gathered, 5).await.unwrap(), 5);
        assert_eq!(gathered, b"kept hello");
        let (result, bytes) = near.read(b"and".to_vec(), 100).await;
        assert_eq!((result.unwrap(), &bytes[..]), (6, &b"and world"[..]));
        // The end too.
        assert!(timeout(SOON, near.read(Vec::new(), 100)).await.is_err());
        far.shutdown_write();
        assert_eq!(near.read(Vec::new(), 100).await.0.unwrap(), 0);
        assert_eq!(near.read(Vec::new(), 100).await.0.unwrap(), 0);
        // The other direction is still open.
        near.write_all(b"x".to_vec()).await.0.unwrap();
        assert_eq!(far.read(Vec::new(), 100).await.1, b"x");
    })
    .unwrap();
}

#[test]
fn a_dropped_write_is_completed_before_the_next() {
    run(Config::default(), || async {
        let (mut near, mut far) = pair().await;
        let large = 32 << 20;
        assert!(timeout(SOON, near.write_all(vec![1; large])).await.is_err());
        let writer = spawn(async move {
            near.write_all(vec![2; 10]).await.0.unwrap();
            drop(near);
        });
        let mut got = Vec::new();
        while far.read_into(&mut got, 1 << 20).await.unwrap() > 0 {}
        writer.await.unwrap();
        assert_eq!(got.len(), large + 10);
        assert!(got[..large].iter().all(|byte| *byte == 1) && got[large..].iter().all(|byte| *byte == 2));
    })
    .unwrap();
}

#[test]
fn shutdown_ends_a_read_in_another_task_and_a_drop_ends_the_peer() {
    run(Config::default(), || async {
        let (near, mut far) = pair().await;
        let (mut reader, writer) = near.split();
        let reading = spawn(async move { reader.read(Vec::new(), 10).await.0.unwrap() });
        yield_now().await;
        writer.shutdown();
        assert_eq!(reading.await.unwrap(), 0);
        assert_eq!(far.read(Vec::new(), 10).await.0.unwrap(), 0);
        // With a read in flight, whose task is aborted.
        let (near, mut far) = pair().await;
        let (mut reader, writer) = near.split();
        let reading = spawn(async move { reader.read(Vec::new(), 10).await.0 });
        yield_now().await;
        drop(writer);
        reading.abort();
        assert_eq!(far.read(Vec::new(), 10).await.0.unwrap(), 0);
        let error = loop {
            if let Err(error) = far.write_all(vec![0; 1 << 16]).await.0 {
                break error;
            }
        };
        assert!(error.is_disconnected(), "{error}");
        assert_eq!(far.write_all(vec![1]).await.0.unwrap_err().to_string(), error.to_string());
    })
    .unwrap();
}

#[test]
fn a_dropped_accept_loses_no_connection() {
    run(Config::default(), || async {
        let mut listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
        assert!(timeout(SOON, listener.accept()).await.is_err());
        let mut client = Stream::connect_tcp(listener.local_addr().unwrap(), PATIENCE).await.unwrap();
        yield_now().await;
        let mut server = listener.accept().await.unwrap();
        server.write_all(b"welcome".to_vec()).await.0.unwrap();
        assert_eq!(client.read(Vec::new(), 100).await.1, b"welcome");
    })
    .unwrap();
}

#[test]
fn errors_name_the_address() {
    run(Config::default(), || async {
        let listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = Listener::bind_tcp(address).err().unwrap();
        assert_eq!(error.errno(), Some(Errno(libc::EADDRINUSE)));
        assert_eq!(error.to_string(), format!("listen on {address}: Address already in use (os error 98)"));
        drop(listener);
        let error = Stream::connect_tcp(address.to_string(), PATIENCE).await.err().unwrap();
        assert_eq!(error.to_string(), format!("connect to {address}: Connection refused (os error 111)"));
        let error = Listener::bind_tcp("nonsense").err().unwrap();
        assert!(matches!(error, IoError::Address { .. }), "{error}");
        let error = Stream::connect_unix(socket_path("missing")).await.err().unwrap();
        assert!(error.is_not_found());
        let error = Stream::connect_unix("x".repeat(200)).await.err().unwrap();
        assert_eq!(error.errno(), Some(Errno(libc::ENAMETOOLONG)));
    })
    .unwrap();
}

#[test]
fn a_unix_socket_of_a_dead_process_is_replaced_and_a_live_one_not() {
    run(Config::default(), || async {
        let path = socket_path("stale");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Listener::bind_unix(&path).unwrap();
        let error = Listener::bind_unix(&path).err().unwrap();
        assert_eq!(error.errno(), Some(Errno(libc::EADDRINUSE)));
        assert!(error.to_string().contains("stale.sock"));
        drop(live);
        assert!(!path.exists());
    })
    .unwrap();
}

#[test]
fn a_connect_without_answer_times_out() {
    run(Config::default(), || async {
        // A listener of std with a full backlog drops further handshakes.
        let listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // SAFETY: plain system call on an open descriptor.
        unsafe { libc::listen(listener.raw(), 0) };
        let mut queued = Vec::new();
        let error = loop {
            match Stream::connect_tcp(address, Duration::from_millis(50)).await {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, IoError::TimedOut { .. }) && error.to_string().contains(&address.to_string()), "{error}");
    })
    .unwrap();
}

async fn pair() -> (Stream, Stream) {
    let mut listener = Listener::bind_tcp("127.0.0.1:0").unwrap();
    let near = Stream::connect_tcp(listener.local_addr().unwrap(), PATIENCE).await.unwrap();
    (near, listener.accept().await.unwrap())
}
