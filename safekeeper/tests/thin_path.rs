//! One safekeeper: create, elect, append, acknowledge, stream out, restart.

// The tests are no daemon: std's calls are right here.
#![allow(clippy::disallowed_methods)]

mod common;

use common::client::Client;
use common::wal::{self, Random, START};
use common::{Daemon, TestDir};
use ironpage_layout::{Lsn, Term};
use std::path::PathBuf;
use std::process::Command;

/// Creates the timeline and wins term 1 from `START` on.
fn elect(daemon: &Daemon) -> Client {
    Client::admin(daemon.address).create(&wal::create()).unwrap();
    let (mut proposer, term, greeting) = Client::proposer(daemon.address);
    assert_eq!((term, greeting.flush_lsn, greeting.record_end, greeting.start_lsn), (Term(0), START, START, START));
    assert!(!greeting.granted);
    let (term, vote) = proposer.vote(1).unwrap();
    assert!(vote.granted && term == Term(1));
    let (_, reply) = proposer.elected(1, &[(1, START)]).unwrap();
    assert_eq!(reply.flush_lsn.get(), START.0);
    proposer
}

#[test]
fn wal_goes_in_is_acknowledged_comes_out_and_survives_a_restart() {
    let dir = TestDir::new("thin");
    let daemon = Daemon::start(&dir.0);
    let mut proposer = elect(&daemon);
    let (mut writer, mut random) = (wal::writer(), Random(1));
    // Three segments, in chunks that end anywhere.
    let ends = wal::fill(&mut writer, &mut random, 40 << 20);
    let end = *ends.last().unwrap();
    let mut at = START;
    while at < end {
        let length = (random.below(300_000) + 1).min(end.since(at));
        proposer.append(1, at, START, wal::slice(&writer, at, at + length));
        at = at + length;
    }
    let reply = proposer.wait_flushed(end).unwrap();
    assert_eq!((reply.flush_lsn.get(), reply.record_end.get()), (end.0, end.0));
    // Committed by a heartbeat.
    proposer.append(1, end, end, &[]);
    let (_, reply) = proposer.append_reply().unwrap();
    assert_eq!(reply.commit_lsn.get(), end.0);

    let mut reader = Client::reader(daemon.address);
    assert!(reader.read_wal(0, START, end, 0).unwrap() == wal::slice(&writer, START, end));
    // From the start of the segment the prefix comes too.
    let head = reader.read_wal(0, START.segment_start(), START, 0).unwrap();
    assert!(head == wal::prefix());
    // From the middle, both from memory and from disk.
    for from in [ends[ends.len() / 3], ends[ends.len() - 3]] {
        assert!(reader.read_wal(0, from, end, 0).unwrap() == wal::slice(&writer, from, end));
    }
    drop((reader, proposer));

    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = Daemon::start(&dir.0);
    let status = daemon.status();
    assert_eq!(status.timelines[0].flush_lsn, end);
    assert_eq!(status.timelines[0].commit_lsn, end);
    assert_eq!((status.timelines[0].term, status.timelines[0].name.as_str()), (Term(1), "main"));
    let (_, term, greeting) = Client::proposer(daemon.address);
    assert_eq!((term, greeting.record_end, greeting.history.0), (Term(1), end, vec![(Term(1), START)]));
    assert!(Client::reader(daemon.address).read_wal(0, START, end, 0).unwrap() == wal::slice(&writer, START, end));

    // Byte for byte what pg_wal would hold, and Postgres's own tool reads it.
    let path = dir.0.join(wal::TENANT.to_string()).join(wal::TIMELINE.to_string());
    for segment in 1..=end.segment() {
        let file = std::fs::read(path.join(ironpage_layout::lsn::segment_file_name(segment))).unwrap();
        assert_eq!(file.len(), 16 << 20);
        let first = Lsn(segment << 24).max(START);
        let last = Lsn((segment + 1) << 24).min(end);
        let offset = first.segment_offset() as usize;
        let length = last.since(first) as usize;
        assert!(file[offset..offset + length] == *wal::slice(&writer, first, last));
        assert!(file[offset + length..].iter().all(|byte| *byte == 0));
    }
    let bindir = Command::new("pg_config").arg("--bindir").output().unwrap();
    let waldump = PathBuf::from(String::from_utf8(bindir.stdout).unwrap().trim()).join("pg_waldump");
    let (from, to) = (wal::PREV.to_string(), end.to_string());
    let dump = Command::new(waldump).arg("-p").arg(&path).args(["-s", &from, "-e", &to]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert_eq!(String::from_utf8(dump.stdout).unwrap().lines().count(), ends.len() + 1);
}

#[test]
fn a_reader_follows_what_is_committed_and_no_more() {
    let dir = TestDir::new("follow");
    let daemon = Daemon::start(&dir.0);
    let mut proposer = elect(&daemon);
    let mut writer = wal::writer();
    let ends = wal::fill(&mut writer, &mut Random(2), 100_000);
    let (middle, end) = (ends[ends.len() / 2], *ends.last().unwrap());
    let mut reader = Client::reader(daemon.address);
    reader.start_wal(0, START, Lsn(0), 0);
    let keepalive = |frame: common::client::Frame| {
        ironpage_layout::wire::walstream::WalKeepalive::decode(&frame.payload).unwrap().commit_lsn.get()
    };
    assert_eq!(keepalive(reader.receive().unwrap()), START.0);
    proposer.append(1, START, START, wal::slice(&writer, START, end));
    proposer.wait_flushed(end).unwrap();
    proposer.append(1, end, middle, &[]);
    let mut got = Vec::new();
    while START + (got.len() as u64) < middle {
        let frame = reader.receive().unwrap();
        if frame.header.kind == ironpage_layout::wire::Kind::WalData {
            assert_eq!(frame.header.term, Term(1));
            let (data, bytes) = ironpage_layout::wire::walstream::WalData::decode_prefix(&frame.payload).unwrap();
            assert_eq!(data.term_start_lsn.get(), START.0);
            got.extend_from_slice(bytes);
        }
    }
    assert!(got == wal::slice(&writer, START, middle));
    // Idle, it hears a keepalive, and nothing beyond commit_lsn.
    assert_eq!(keepalive(reader.receive().unwrap()), middle.0);
    // The holder of the term may read on.
    let mut follower = Client::reader(daemon.address);
    assert!(follower.read_wal(1, START, end, 1).unwrap() == wal::slice(&writer, START, end));
    let refused = follower.read_wal(3, START, end, 1).unwrap_err();
    assert_eq!(refused.code, ironpage_layout::wire::ErrorCode::Unavailable);
}

/// How a pageserver asks how far a safekeeper is: it is told at once, and sent no WAL, however much there is.
#[test]
fn a_stream_that_ends_where_it_begins_is_one_keepalive() {
    use ironpage_layout::wire::Kind;
    use ironpage_layout::wire::walstream::WalKeepalive;
    let dir = TestDir::new("position");
    let daemon = Daemon::start(&dir.0);
    let mut proposer = elect(&daemon);
    let mut writer = wal::writer();
    let ends = wal::fill(&mut writer, &mut Random(3), 100_000);
    let (middle, end) = (ends[ends.len() / 2], *ends.last().unwrap());
    proposer.append(1, START, START, wal::slice(&writer, START, end));
    proposer.wait_flushed(end).unwrap();
    proposer.append(1, end, middle, &[]);
    let mut follower = Client::reader(daemon.address);
    follower.read_wal(0, START, middle, 0).unwrap();
    // From where there is more, exactly there, and from where nothing is yet.
    for from in [START, Lsn(START.0 + 1), middle, end, end + 1_000_000] {
        let mut reader = Client::reader(daemon.address);
        reader.start_wal(0, from, from, 0);
        let frame = reader.receive().unwrap();
        assert_eq!(frame.header.kind, Kind::WalKeepalive, "from {from}");
        let keepalive = WalKeepalive::decode(&frame.payload).unwrap();
        assert_eq!((keepalive.commit_lsn.get(), keepalive.flush_lsn.get()), (middle.0, end.0), "from {from}");
    }
}

#[test]
fn acknowledgements_are_coalesced_and_heartbeats_answered() {
    let dir = TestDir::new("coalesce");
    let daemon = Daemon::start(&dir.0);
    let mut proposer = elect(&daemon);
    let mut writer = wal::writer();
    let ends = wal::fill(&mut writer, &mut Random(3), 2 << 20);
    let mut at = START;
    for end in &ends {
        proposer.append(1, at, START, wal::slice(&writer, at, *end));
        at = *end;
    }
    let mut replies = 1;
    while proposer.append_reply().unwrap().1.flush_lsn.get() < at.0 {
        replies += 1;
    }
    assert!(replies < ends.len() / 2, "{replies} replies to {} appends", ends.len());
    let counters = daemon.status().counters;
    let counter = |name: &str| counters.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!(counter("appends"), ends.len() as u64);
    assert_eq!(counter("appended_bytes"), at.since(START));
    assert!(counter("flushes") <= replies as u64);
    for _ in 0..3 {
        proposer.append(1, at, START, &[]);
        assert_eq!(proposer.append_reply().unwrap().1.flush_lsn.get(), at.0);
    }
}

#[test]
fn a_reader_hears_of_an_idle_timeline_every_second_also_when_heartbeats_come() {
    let dir = TestDir::new("keepalive");
    let daemon = Daemon::start(&dir.0);
    let mut proposer = elect(&daemon);
    let mut reader = Client::reader(daemon.address);
    reader.start_wal(0, START, Lsn(0), 0);
    reader.receive().unwrap();
    reader.stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let mut frames = 0;
    for beat in 0..200 {
        proposer.append(1, START, START, &[]);
        proposer.append_reply().unwrap();
        if reader.try_receive().is_ok() {
            frames += 1;
        }
        if frames == 2 {
            assert!(beat > 10, "keepalives without a reason");
            return;
        }
    }
    panic!("{frames} keepalives in 10 s of heartbeats");
}
