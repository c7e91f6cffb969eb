//! Something else listens where a daemon did: whoever connects there gets garbage, and takes no harm.

use super::frames::*;
use super::{assert_no_panic, commits_survive, log_of};
use crate::crash::assert_all_there;
use ironpage_tests::{Cluster, Outcome, Process, eventually, wait_until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What comes back to a hello, one after the other.
fn answers() -> Vec<Vec<u8>> {
    let node = [&1u16.to_le_bytes()[..], &[0; 6], &9u64.to_le_bytes()].concat();
    let welcome = frame(HELLO_REPLY, 0, &node);
    let behind = |bytes: Vec<u8>| [welcome.clone(), bytes].concat();
    let mut flipped = welcome.clone();
    flipped[40] ^= 1;
    let mut huge = frame(PAGES, 0, &[0; 24]);
    huge[8..12].fill(0xFF);
    vec![
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(),
        vec![0; 10_000],
        flipped,
        sealed(welcome[..40].to_vec()),
        frame(HELLO_REPLY, 0, &[0xFF; 16]),
        frame(ERROR, 0, &[]),
        frame(ERROR, 0, &[0xEE, 0xEE, b'?']),
        frame(PAGES, 0, &[0xFF; 24]),
        behind(vec![0xA5; 5000]),
        behind(sealed(huge)),
        behind(frame(0x10, 0, &[0; 3])),
        behind(frame(0x10, 0, &[0; 48])),
        behind(frame(PAGES, 0, &[0; 24])),
        behind(frame(0x33, 0, &[0xFF; 3])),
        behind(frame(WAL_DATA, 0, &[0xFF; 24])),
        behind(frame(ERROR, 0, &[0; 1])),
    ]
}

/// Answers every connection at a daemon's address until it is dropped.
struct Impostor {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
}

impl Impostor {
    /// In the place of a daemon, which is killed.
    fn of(process: &Process, cluster: &Cluster) -> Impostor {
        cluster.kill(process);
        // The kernel takes a killed process apart in its own time.
        let listener = eventually("the port is free", Duration::from_secs(30), || TcpListener::bind(&process.listen[0]).ok());
        listener.set_nonblocking(true).unwrap();
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let state = (stop.clone(), served.clone());
        let thread = std::thread::spawn(move || {
            let answers = answers();
            while !state.0.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => answer(stream, &answers[state.1.fetch_add(1, Ordering::Relaxed) % answers.len()]),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Impostor { thread: Some(thread), stop, served }
    }

    /// Waits until it has given each answer twice.
    fn wait_served(&self) {
        let wanted = 2 * answers().len();
        wait_until("the impostor is asked", Duration::from_secs(120), || self.served.load(Ordering::Relaxed) >= wanted);
    }
}

fn answer(mut stream: TcpStream, bytes: &[u8]) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(bytes);
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn garbage_from_a_safekeepers_address_stops_neither_commits_nor_ingest() {
    let cluster = Cluster::up("impostor-safekeeper");
    cluster.sql("create table acked(i bigint primary key)");
    let postgres = cluster.process("postgres", "main");
    let pageserver = cluster.nth("pageserver", 0);
    let told = commits_survive(&cluster, 1, || {
        let impostor = Impostor::of(&cluster.nth("safekeeper", 0), &cluster);
        impostor.wait_served();
    });
    cluster.start();
    cluster.wait_safekeepers_level(Duration::from_secs(30));
    assert_eq!(cluster.process("postgres", "main").pid, postgres.pid);
    assert_eq!(cluster.nth("pageserver", 0).pid, pageserver.pid);
    // An election among two and something else.
    let impostor = Impostor::of(&cluster.nth("safekeeper", 1), &cluster);
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_all_there(&cluster, &told);
    drop(impostor);
    cluster.start();
    assert_no_panic(&cluster);
}

#[test]
fn garbage_from_the_pageservers_address_is_waited_out() {
    let cluster = Cluster::up("impostor-pageserver");
    cluster.set_and_restart(&[("shared_buffers", "1MB"), ("ironpage.cache_size", "4MB")]);
    cluster.sql("create table t as select g i, repeat('x', 700) pad from generate_series(1, 20000) g");
    cluster.sql("checkpoint");
    let fetched = cluster.counter("fetches");
    wait_until("blocks have left the cache", Duration::from_secs(60), || {
        assert_eq!(cluster.sql("select count(*), sum(i) from t"), "20000|200010000");
        cluster.counter("fetches") > fetched + 500
    });
    let postgres = cluster.process("postgres", "main");
    let mut reader = cluster.session();
    let impostor = Impostor::of(&cluster.nth("pageserver", 0), &cluster);
    reader.send("select count(*), sum(i) from t");
    impostor.wait_served();
    assert!(matches!(reader.answer(Duration::from_millis(100)), Outcome::Waiting | Outcome::Failed(_)));
    drop(impostor);
    cluster.start();
    let answer = reader.answer(Duration::from_secs(60));
    let right = Outcome::Success("20000|200010000".into());
    assert!(answer == right || matches!(answer, Outcome::Failed(_)), "{answer:?}");
    assert_eq!(cluster.sql("select count(*), sum(i) from t"), "20000|200010000");
    assert_eq!(cluster.process("postgres", "main").pid, postgres.pid, "{}", log_of(&postgres.log));
    assert_no_panic(&cluster);
}
