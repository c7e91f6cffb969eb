//! Strangers at the ports of the daemons.

use super::frames::*;
use super::{assert_no_panic, commits_survive, timeline_dir};
use ironpage_tests::{Cluster, Process};

/// Frames that are none, what the answer must speak of, and where they come: first, or behind a good hello.
fn garbage(good: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        bytes
    };
    vec![
        ("another protocol", b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(), "IRPG"),
        ("zeros", vec![0; 4096], "IRPG"),
        ("a Postgres client", [&[0, 0, 0, 8, 4, 210, 22, 47][..], &[0; 40]].concat(), "IRPG"),
        ("an unknown kind", sealed(with(&|bytes| bytes[4..6].copy_from_slice(&[0xFF, 0x7F]))), "unknown kind"),
        ("a reserved field", sealed(with(&|bytes| bytes[6] = 1)), "reserved"),
        ("a huge length", sealed(with(&|bytes| bytes[8..12].fill(0xFF))), "4294967295 bytes"),
        (
            "a length just too long",
            sealed(with(&|bytes| bytes[8..12].copy_from_slice(&(4u32 << 20 | 1).to_le_bytes()))),
            "4194305",
        ),
        ("a flipped bit of the CRC", with(&|bytes| bytes[13] ^= 0x10), "CRC"),
        ("a flipped bit of the payload", with(&|bytes| *bytes.last_mut().unwrap() ^= 1), "CRC"),
        ("a flipped bit of the term", with(&|bytes| bytes[24] ^= 1), "CRC"),
    ]
}

fn daemons(cluster: &Cluster) -> Vec<Process> {
    cluster.status().processes.into_iter().filter(|process| process.kind != "postgres").collect()
}

fn identity(cluster: &Cluster) -> Identity {
    let dir = timeline_dir(&cluster.nth("pageserver", 0).data_dir);
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_string();
    Identity {
        tenant: id(&name(dir.parent().unwrap())),
        timeline: id(&name(&dir)),
        system_id: cluster.sql("select system_identifier from pg_control_system()").parse().unwrap(),
        postgres_version: cluster.sql("show server_version_num").parse().unwrap(),
    }
}

fn role_of(process: &Process) -> u16 {
    if process.kind == "safekeeper" { WAL_READER } else { PAGE_READER }
}

#[test]
fn frames_that_are_none_are_refused_and_disturb_nobody() {
    let cluster = Cluster::up("bad-frames");
    cluster.sql("create table acked(i bigint primary key)");
    let us = identity(&cluster);
    let before = daemons(&cluster);
    commits_survive(&cluster, 1, || {
        for daemon in &before {
            let address = &daemon.listen[0];
            for (what, bytes, answer) in garbage(&us.hello(ADMIN)) {
                let what = format!("{what} to {}", daemon.name);
                let mut stranger = Stranger::connect(address);
                stranger.send(&bytes);
                stranger.expect_refusal(PROTOCOL, answer, &what);
            }
            for (what, bytes, answer) in garbage(&frame(STATUS, 0, &[0; 8])) {
                let what = format!("{what} behind a hello to {}", daemon.name);
                let mut stranger = Stranger::connect(address);
                stranger.send(&us.hello(ADMIN));
                stranger.expect(HELLO_REPLY, &what);
                stranger.send(&bytes);
                stranger.expect_refusal(PROTOCOL, answer, &what);
            }
            hellos_that_are_none(daemon, &us);
            requests_that_are_none(daemon, &us);
            // Who stops in the middle of a frame, or says nothing at all, is no reason for an answer.
            for length in [0, 1, 31, 32, 60] {
                let mut stranger = Stranger::connect(address);
                stranger.send(&us.hello(ADMIN)[..length]);
                stranger.end();
                while stranger.reply("a hello cut short").is_some() {}
            }
        }
    });
    assert_same_processes(&before, &daemons(&cluster));
    assert_no_panic(&cluster);
}

fn assert_same_processes(before: &[Process], after: &[Process]) {
    let pids = |all: &[Process]| all.iter().map(|process| process.pid).collect::<Vec<_>>();
    assert_eq!(pids(before), pids(after), "a daemon ended");
    assert!(after.iter().all(|process| process.state == "running"), "{after:?}");
}

fn hellos_that_are_none(daemon: &Process, us: &Identity) {
    let with = |at: usize, bytes: &[u8]| {
        let mut hello = us.hello(ADMIN);
        hello[32 + at..32 + at + bytes.len()].copy_from_slice(bytes);
        sealed(hello)
    };
    let short = frame(HELLO, 0, &us.hello(ADMIN)[32..95]);
    let cases = [
        ("no hello first", frame(STATUS, 0, &[0; 8]), "Hello"),
        ("another version", with(0, &[2]), "protocol version"),
        ("an unknown role", with(2, &[9]), "role"),
        ("a token that is not there", with(52, &[200]), "token"),
        ("a short hello", short, "too short"),
    ];
    for (what, bytes, answer) in cases {
        let what = format!("{what} to {}", daemon.name);
        let mut stranger = Stranger::connect(&daemon.listen[0]);
        stranger.send(&bytes);
        stranger.expect_refusal(PROTOCOL, answer, &what);
    }
}

/// Good frames that make no sense where they come: an error or an end, and the daemon lives.
fn requests_that_are_none(daemon: &Process, us: &Identity) {
    let kinds =
        [0x10u16, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32, 0x33, 0x40, 0x41, 0x42, 0x50, 0x52, 0x53];
    let payloads: [&[u8]; 4] = [&[], &[0xFF; 7], &[0xFF; 48], &[0xFF; 4096]];
    for role in [ADMIN, role_of(daemon)] {
        for kind in kinds {
            for payload in payloads {
                let what = format!("kind {kind:#x} with {} bytes as role {role} to {}", payload.len(), daemon.name);
                let mut stranger = Stranger::connect(&daemon.listen[0]);
                stranger.send(&us.hello(role));
                stranger.expect(HELLO_REPLY, &what);
                stranger.send(&frame(kind, 0, payload));
                stranger.end();
                if let Some(reply) = stranger.reply(&what) {
                    assert!(!reply.error(&what).1.is_empty(), "{what}");
                }
            }
        }
    }
}

#[test]
fn clients_of_others_are_told_so() {
    let cluster = Cluster::up("bad-tenant");
    // The second start of the endpoint: the first one's term is over.
    cluster.set_and_restart(&[("autovacuum", "off")]);
    cluster.sql("create table acked(i bigint primary key)");
    let us = identity(&cluster);
    let before = daemons(&cluster);
    commits_survive(&cluster, 1, || {
        for daemon in &before {
            let own = role_of(daemon);
            let foreign = if own == PAGE_READER { WAL_READER } else { PAGE_READER };
            let other = |tenant: u8, timeline: u8| {
                let mut other = us;
                other.tenant[0] ^= tenant;
                other.timeline[0] ^= timeline;
                other
            };
            let hex = |bytes: [u8; 16]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let stranger_tenant = hex(other(1, 0).tenant);
            let stranger_timeline = hex(other(0, 1).timeline);
            let cases = [
                ("another tenant", other(1, 0).hello(own), NOT_FOUND, stranger_tenant.clone()),
                ("another timeline", other(0, 1).hello(own), NOT_FOUND, stranger_timeline),
                ("another cluster", Identity { system_id: 5, ..us }.hello(own), REFUSED, "system identifier".into()),
                ("another Postgres", Identity { postgres_version: 160_004, ..us }.hello(own), UNSUPPORTED, "16".into()),
                ("a role of others", us.hello(foreign), REFUSED, "address".into()),
            ];
            for (what, hello, code, answer) in cases {
                let what = format!("{what} to {}", daemon.name);
                let mut stranger = Stranger::connect(&daemon.listen[0]);
                stranger.send(&hello);
                stranger.expect_refusal(code, &answer, &what);
            }
            if daemon.kind == "safekeeper" {
                let mut stranger = Stranger::connect(&daemon.listen[0]);
                stranger.send(&other(1, 0).hello(PROPOSER));
                stranger.expect_refusal(NOT_FOUND, &stranger_tenant, "a proposer of another tenant");
                old_proposer(daemon, &us);
                wal_beyond_commit(daemon, &us);
            } else {
                old_compute(daemon, &us);
            }
        }
    });
    assert_same_processes(&before, &daemons(&cluster));
    assert_no_panic(&cluster);
}

/// Whoever had an earlier term gets neither a vote nor its WAL in.
fn old_proposer(daemon: &Process, us: &Identity) {
    let what = format!("term 1 to {}", daemon.name);
    let mut stranger = Stranger::connect(&daemon.listen[0]);
    stranger.send(&us.hello(PROPOSER));
    stranger.expect(HELLO_REPLY, &what);
    let greeting = stranger.expect(0x10, &what);
    assert!(greeting.term >= 2, "{what}: {greeting:?}");
    stranger.send(&frame(VOTE_REQUEST, 1, &[0; 8]));
    let vote = stranger.expect(VOTE_REPLY, &what);
    assert!(vote.payload[0] == 0 && vote.term >= 2, "{what}: {vote:?}");
    let begin = vote.payload[16..24].to_vec();
    stranger.send(&frame(APPEND, 1, &[&begin[..], &begin, b"WAL of nobody"].concat()));
    let answer = stranger.reply(&what).unwrap_or_else(|| panic!("{what}: closed without a word"));
    assert!(answer.term >= 2 && (answer.kind == 0x15 || answer.error(&what).0 == FENCED), "{what}: {answer:?}");
}

/// A reader gets no further than what is committed, wherever it begins.
fn wal_beyond_commit(daemon: &Process, us: &Identity) {
    let what = format!("WAL from far away to {}", daemon.name);
    let mut stranger = Stranger::connect(&daemon.listen[0]);
    stranger.send(&us.hello(WAL_READER));
    stranger.expect(HELLO_REPLY, &what);
    let start = |from: u64, uncommitted: u32| {
        [&from.to_le_bytes()[..], &u64::MAX.to_le_bytes(), &uncommitted.to_le_bytes(), &[0; 4]].concat()
    };
    stranger.send(&frame(WAL_START, 0, &start(8, 0)));
    let (code, text) = stranger.expect(ERROR, &what).error(&what);
    assert!(code == OUT_OF_RANGE && text.contains("0/8"), "{what}: {code} {text}");
    stranger.send(&frame(WAL_START, 0, &start(u64::MAX - 7, 0)));
    let answer = stranger.reply(&what).unwrap();
    assert!(answer.kind != WAL_DATA, "{what}: {answer:?}");
}

/// A compute of an earlier term reads nothing.
fn old_compute(daemon: &Process, us: &Identity) {
    let what = "pages for term 1";
    let mut stranger = Stranger::connect(&daemon.listen[0]);
    stranger.send(&us.hello(PAGE_READER));
    stranger.expect(HELLO_REPLY, what);
    // pg_class of database 5, block 0.
    let words = [1663u32, 5, 1259, 0, 0, 1].map(u32::to_le_bytes).concat();
    let request = |count: u32| [&words[..20], &count.to_le_bytes(), &[0; 16], &1000u32.to_le_bytes(), &[0; 4]].concat();
    stranger.send(&frame(GET_PAGES, 1, &request(1)));
    let reply = stranger.expect(ERROR, what);
    assert!(reply.error(what).0 == FENCED && reply.term >= 2, "{reply:?}");
    let term = reply.term;
    for count in [0, 129, u32::MAX] {
        let mut stranger = Stranger::connect(&daemon.listen[0]);
        stranger.send(&us.hello(PAGE_READER));
        stranger.expect(HELLO_REPLY, what);
        stranger.send(&frame(GET_PAGES, term, &request(count)));
        let reply = stranger.reply(what).unwrap_or_else(|| panic!("{count} pages: closed without a word"));
        assert_ne!(reply.kind, PAGES, "{count} pages");
        let (_, text) = reply.error(what);
        assert!(!text.is_empty(), "{count} pages");
    }
    let mut admin = Stranger::connect(&daemon.listen[0]);
    admin.send(&us.hello(ADMIN));
    admin.expect(HELLO_REPLY, what);
    admin.send(&frame(BASE_BACKUP, 1, &[&[0; 8][..], &1000u32.to_le_bytes(), &[0; 4]].concat()));
    let (code, text) = admin.expect(ERROR, "a base backup for term 1").error(what);
    assert!(code == FENCED && !text.is_empty(), "a base backup for term 1: {code} {text}");
}
