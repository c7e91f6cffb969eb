//! The ways around the commit gate that need more than a psql: the extended protocol, what ends a session from outside,
//! what stock Postgres flushes even under synchronous_commit = off, and primaries that stand still while another starts.

use crate::crash::{assert_all_there, commits_during};
use ironpage_tests::{Cluster, Outcome, alive, signal, wait_until};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// A client that speaks the protocol itself, and sees each message as it comes.
struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    pid: i32,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

impl Wire {
    fn connect(cluster: &Cluster) -> Wire {
        let address = cluster.process("postgres", "main").listen.remove(0);
        let mut wire = Wire { stream: TcpStream::connect(address).unwrap(), input: Vec::new(), pid: 0 };
        let startup = message(0, b"\0\x03\0\0user\0postgres\0database\0postgres\0\0");
        wire.stream.write_all(&startup[1..]).unwrap();
        loop {
            match wire.next(LONG) {
                Some((b'K', key)) => wire.pid = i32::from_be_bytes(key[..4].try_into().unwrap()),
                Some((b'Z', _)) => return wire,
                Some((b'E', error)) => panic!("{}", String::from_utf8_lossy(&error)),
                Some(_) => {}
                None => panic!("no connection"),
            }
        }
    }

    /// Parse, Bind, Execute, Sync.
    fn send(&mut self, sql: &str) {
        let parse = message(b'P', format!("\0{sql}\0\0\0").as_bytes());
        let bytes = [parse, message(b'B', &[0; 8]), message(b'E', &[0; 5]), message(b'S', &[])].concat();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message; `None` if none comes within `limit`, or ever.
    fn next(&mut self, limit: Duration) -> Option<(u8, Vec<u8>)> {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        loop {
            if let Some(length) = self.input.get(1..5) {
                let end = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.input.len() >= end {
                    let frame: Vec<u8> = self.input.drain(..end).collect();
                    return Some((frame[0], frame[5..].to_vec()));
                }
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Kinds of all messages until none comes for `limit`, or the server is ready for the next query.
    fn heard(&mut self, limit: Duration) -> String {
        let mut kinds = String::new();
        while let Some((kind, _)) = self.next(limit) {
            kinds.push(kind as char);
            if kind == b'Z' {
                break;
            }
        }
        kinds
    }
}

fn up(name: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.set_and_restart(&[("ironpage.fence_after_ms", "600000")]);
    cluster
}

fn take_quorum(cluster: &Cluster) {
    for safekeeper in [cluster.nth("safekeeper", 0), cluster.nth("safekeeper", 1)] {
        cluster.kill(&safekeeper);
    }
}

#[test]
fn a_session_that_ends_while_it_commits_has_said_nothing() {
    let cluster = up("gate-extended");
    cluster.sql("create table t(i int)");
    let mut operator = cluster.session();
    let mut patient = Wire::connect(&cluster);
    let mut terminated = Wire::connect(&cluster);
    take_quorum(&cluster);
    patient.send("insert into t values (1)");
    terminated.send("insert into t values (2)");
    assert_eq!((patient.heard(SHORT), terminated.heard(SHORT)), (String::new(), String::new()));
    operator.must(&format!("select pg_terminate_backend({})", terminated.pid));
    assert_eq!(terminated.heard(LONG), "", "told to a session that was terminated");
    cluster.start();
    assert_eq!(patient.heard(LONG), "12CZ");

    take_quorum(&cluster);
    patient.send("insert into t values (3)");
    assert_eq!(patient.heard(SHORT), "");
    let postmaster = cluster.process("postgres", "main").pid.unwrap();
    signal(postmaster, libc::SIGQUIT);
    assert_eq!(patient.heard(LONG), "", "told to a session at an immediate stop, as when fenced");
    cluster.start();
    assert_eq!(cluster.sql("select count(*) from t where i = 1"), "1");
}

#[test]
fn every_kind_of_commit_waits_for_the_quorum() {
    let cluster = up("gate-kinds");
    cluster.sql("create table t(i int)");
    cluster.sql("create procedure p() language plpgsql as 'begin insert into t values (1); commit; end'");
    cluster.sql("create table dropped(i int)");
    // The index waits for who writes to its table, and a prepared transaction does until it is finished.
    cluster.sql("create table other(i int)");
    let off = "set synchronous_commit = off";
    let kinds: [(&[&str], &str); 14] = [
        (&[], "call p()"),
        (&[], "do 'begin insert into t values (2); commit; end'"),
        (&["begin", "insert into t values (3)"], "commit and chain"),
        (&["begin", "savepoint a", "insert into t values (4)", "release a"], "commit"),
        (&[], "insert into t values (5)\\; insert into t values (6)"),
        (&["begin", off, "insert into t values (7)", "set local synchronous_commit = on"], "commit"),
        (&["set synchronous_commit = local"], "insert into t values (8)"),
        (&["set synchronous_commit = remote_write"], "insert into t values (9)"),
        (&[], "select lo_create(0)"),
        (&[], "notify somebody"),
        (&[], "create index concurrently on t(i)"),
        // What stock Postgres flushes at once whatever synchronous_commit is.
        (&[off], "drop table dropped"),
        (&[off], "create database d"),
        (&[off, "begin", "insert into other values (10)"], "prepare transaction 'ten'"),
    ];
    let mut sessions: Vec<_> = kinds
        .iter()
        .map(|(before, _)| {
            let mut session = cluster.session();
            before.iter().for_each(|sql| _ = session.must(sql));
            session
        })
        .collect();
    let mut asynchronous = cluster.session();
    asynchronous.must(off);
    let mut reader = cluster.session();
    take_quorum(&cluster);
    for (session, (_, last)) in sessions.iter_mut().zip(&kinds) {
        session.send(last);
    }
    for (session, (_, last)) in sessions.iter_mut().zip(&kinds) {
        assert_eq!(session.answer(Duration::from_millis(200)), Outcome::Waiting, "{last}");
    }
    assert_eq!(asynchronous.run("insert into t values (11)", SHORT), Outcome::Success(String::new()));
    // Others see what asked for a quorum only when it is there; 'local' and 'off' keep their stock meaning.
    assert_eq!(reader.must("select string_agg(i::text, ',' order by i) from t"), "8,11");
    cluster.start();
    for (session, (_, last)) in sessions.iter_mut().zip(&kinds) {
        assert!(matches!(session.answer(LONG), Outcome::Success(_)), "{last}");
    }
    assert_eq!(reader.must("select count(*) from t"), "10");
}

/// Processes of a postmaster whose title contains `title`.
pub fn children(postmaster: i32, title: &str) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid: &i32| {
        let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&name).contains(title)
    })
    .collect()
}

#[test]
fn a_primary_whose_walproposer_stood_still_acknowledges_nothing_later() {
    let cluster = Cluster::up("stalled-primary");
    cluster.sql("create table acked(i bigint primary key)");
    let old = cluster.process("postgres", "main").pid.unwrap();
    let walproposer = children(old, "walproposer");
    assert_eq!(walproposer.len(), 1, "{walproposer:?}");
    let told = commits_during(&cluster, 1, || {
        wait_until("some commits", Duration::from_secs(30), || {
            cluster.sql("select count(*) from acked").parse::<u64>().unwrap() > 100
        });
        signal(walproposer[0], libc::SIGSTOP);
        cluster.must(&["endpoint", "start", "second", "--branch", "main"]);
        let mut second = cluster.session_on("second");
        second.must("insert into acked values (1)");
        // What was on its way to the safekeepers, or in its memory, comes too late.
        signal(walproposer[0], libc::SIGCONT);
        wait_until("the old postmaster is gone", Duration::from_secs(10), || !alive(old));
        second.must("insert into acked values (2)");
    });
    let mut second = cluster.session_on("second");
    assert_eq!(second.must("select count(*) from acked where i < 10"), "2");
    cluster.must(&["endpoint", "stop", "second"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_all_there(&cluster, &told);
    assert_eq!(cluster.sql("select count(*) from acked where i < 10"), "2");
}

#[test]
fn a_safekeeper_that_stood_still_through_elections_ends_up_with_the_one_history() {
    let cluster = Cluster::up("stalled-safekeeper");
    cluster.sql("create table acked(i bigint primary key)");
    let mut told = std::collections::BTreeSet::new();
    for round in 1..=crate::amount(3, 12) {
        let stalled = cluster.nth("safekeeper", round as usize % 3);
        signal(stalled.pid.unwrap(), libc::SIGSTOP);
        told.extend(commits_during(&cluster, round, || {
            let before = cluster.sql("select count(*) from acked").parse::<u64>().unwrap();
            wait_until("commits of two safekeepers", Duration::from_secs(30), || {
                cluster.sql("select count(*) from acked").parse::<u64>().unwrap() > before + 200
            });
            cluster.kill(&cluster.process("postgres", "main"));
            // The stalled one has a tail of the old term, or nothing of it; half of the elections it misses.
            if round % 2 == 0 {
                signal(stalled.pid.unwrap(), libc::SIGCONT);
            }
        }));
        cluster.wait_ready(LONG);
        assert_all_there(&cluster, &told);
        signal(stalled.pid.unwrap(), libc::SIGCONT);
        cluster.wait_safekeepers_level(LONG);
    }
    // Each pair of safekeepers is a quorum that knows all of it.
    for down in 0..3 {
        let victim = cluster.nth("safekeeper", down);
        cluster.kill(&victim);
        cluster.kill(&cluster.process("postgres", "main"));
        cluster.wait_ready(LONG);
        assert_all_there(&cluster, &told);
        cluster.start();
        cluster.wait_safekeepers_level(LONG);
    }
}
