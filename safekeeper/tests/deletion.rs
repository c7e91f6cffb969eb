//! Timelines that are deleted: under their users, at a kill, and again.

// The tests are no daemon: std's calls are right here.
#![allow(clippy::disallowed_methods)]

mod common;

use common::client::{Client, hello};
use common::wal::{self, Random, START, TENANT, TIMELINE};
use common::{Daemon, TestDir};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{ErrorCode, Kind, encode_frame};
use ironpage_layout::{Lsn, Term, TimelineId};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

fn timelines(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join(TENANT.to_string())) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn its_users_are_told_and_nothing_comes_back() {
    let dir = TestDir::new("deleted");
    let daemon = Daemon::start(&dir.0);
    let mut admin = Client::admin(daemon.address);
    for round in 1..=3u64 {
        admin.create(&wal::create()).unwrap();
        let (mut proposer, _, _) = Client::proposer(daemon.address);
        assert!(proposer.vote(round).unwrap().1.granted);
        proposer.elected(round, &[(round, START)]).unwrap();
        let mut writer = wal::writer();
        let end = *wal::fill(&mut writer, &mut Random(round), 12 << 20).last().unwrap();
        // One that follows what is written, and one that has asked for nothing yet.
        let mut follower = Client::reader(daemon.address);
        follower.start_wal(0, START, Lsn(0), 0);
        let mut idle = Client::reader(daemon.address);

        // As fast as the socket takes it: the deletion falls into writes, flushes and a segment that is being prepared.
        let address = daemon.address;
        let mut stream = proposer.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let mut at = START;
            while at < end {
                let next = (at + 200_000).min(end);
                let append = ironpage_layout::wire::append::Append { begin_lsn: at.0.into(), commit_lsn: at.0.into() };
                let mut bytes = Vec::new();
                encode_frame(&mut bytes, Kind::Append, 1, Term(round), |out| {
                    append.encode(out);
                    out.extend_from_slice(wal::slice(&writer, at, next));
                });
                if stream.write_all(&bytes).is_err() {
                    return;
                }
                at = next;
            }
        });
        proposer.wait_flushed(START + (round << 20)).unwrap();
        admin.delete(TIMELINE).unwrap();
        assert!(timelines(&dir.0).is_empty(), "{:?}", timelines(&dir.0));
        let error = loop {
            match proposer.receive() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.code == ErrorCode::NotFound && error.message.contains("was deleted"), "{error}");
        let error = loop {
            match follower.receive() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.code, ErrorCode::NotFound);
        assert_eq!(idle.receive().err().unwrap().code, ErrorCode::NotFound);
        for role in [Role::Proposer, Role::WalReader] {
            assert_eq!(Client::connect(address, &hello(role)).err().unwrap().code, ErrorCode::NotFound);
        }
        writing.join().unwrap();
        admin.delete(TIMELINE).unwrap();
        admin.delete(TimelineId([77; 16])).unwrap();
        assert!(admin.status().timelines.is_empty());
        assert!(timelines(&dir.0).is_empty(), "{:?}", timelines(&dir.0));
    }
    // What was made anew knows nothing of the ones before it.
    admin.create(&wal::create()).unwrap();
    let (_, term, greeting) = Client::proposer(daemon.address);
    assert_eq!((term, greeting.flush_lsn), (Term(0), START));
}

#[test]
fn killed_while_it_deletes_a_timeline_is_whole_or_gone() {
    let dir = TestDir::new("deletions");
    let mut random = Random(11);
    let mut daemon = Daemon::start(&dir.0);
    let (mut said, mut whole) = (0, 0);
    for round in 0..6 {
        let ids: Vec<_> = (1..=8u8).map(|number| TimelineId([number; 16])).collect();
        let mut admin = Client::admin(daemon.address);
        for id in &ids {
            let mut create = wal::create();
            create.timeline = *id;
            admin.create(&create).unwrap();
        }
        // All at once; the kill comes somewhere in between.
        for id in &ids {
            admin.send_delete(*id);
        }
        let expected = random.below(ids.len() as u64) as usize;
        for _ in 0..expected {
            assert_eq!(admin.receive().unwrap().header.kind, Kind::TimelineDeleted);
        }
        std::thread::sleep(Duration::from_micros(random.below(3_000)));
        daemon.kill();
        daemon = Daemon::start(&dir.0);
        let status = daemon.status();
        for (index, id) in ids.iter().enumerate() {
            let there = status.timelines.iter().find(|timeline| timeline.timeline == *id);
            assert_eq!(there.is_some(), timelines(&dir.0).contains(&id.to_string()), "round {round}: files without a timeline");
            match there {
                Some(timeline) => {
                    assert!(index >= expected, "round {round}: {id} was said to be deleted");
                    assert_eq!((timeline.flush_lsn, timeline.stopped.as_str()), (START, ""));
                    whole += 1;
                }
                None => said += 1,
            }
        }
    }
    assert!(said > 0 && whole > 0, "{said} gone, {whole} whole");
}

#[test]
fn a_prefix_of_a_whole_segment_comes_back_byte_for_byte() {
    let dir = TestDir::new("prefix");
    let daemon = Daemon::start(&dir.0);
    // WAL whose last record ends shortly before the end of a segment.
    let mut writer = wal::writer();
    let ends = wal::fill(&mut writer, &mut Random(3), (16 << 20) - 40_000);
    let (prev, start) = (ends[ends.len() - 2], ends[ends.len() - 1]);
    assert_eq!(start.segment(), 1);
    let mut create = wal::create();
    (create.start_lsn, create.prev_record_lsn) = (start, prev);
    let whole = [&wal::prefix(), wal::slice(&writer, START, start)].concat();
    create.prefix_length = whole.len() as u32;
    let begun = Instant::now();
    Client::admin(daemon.address).create_with(&create, &whole).unwrap();
    Client::admin(daemon.address).create_with(&create, &whole).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    let first = start.segment_start();
    assert!(Client::reader(daemon.address).read_wal(0, first, start, 0).unwrap() == whole);
    // Another label is no other timeline.
    create.name = "renamed".into();
    Client::admin(daemon.address).create_with(&create, &whole).unwrap();

    // What is not announced, not in order, or too much.
    create.timeline = TimelineId([5; 16]);
    for (begin, length) in [(first.0 + 1, 100), (first.0, 0), (first.0, (1 << 20) + 1)] {
        let mut admin = Client::admin(daemon.address);
        admin.send(Kind::TimelineCreate, Term(0), |out| create.encode(out));
        admin.send(Kind::TimelinePrefix, Term(0), |out| {
            ironpage_layout::wire::admin::TimelinePrefix { begin_lsn: begin.into() }.encode(out);
            out.resize(out.len() + length, 1);
        });
        assert_eq!(admin.receive().err().unwrap().code, ErrorCode::Protocol);
    }
    // Creations that stop half-way hold up nobody for long, and not all there are.
    let half: Vec<_> = (0..8)
        .map(|_| {
            let mut admin = Client::admin(daemon.address);
            admin.send(Kind::TimelineCreate, Term(0), |out| create.encode(out));
            admin
        })
        .collect();
    let refused = loop {
        let mut admin = Client::admin(daemon.address);
        admin.send(Kind::TimelineCreate, Term(0), |out| create.encode(out));
        admin.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        if let Ok(Some(frame)) = admin.try_receive() {
            break ironpage_layout::wire::RemoteError::decode(&frame.payload).unwrap();
        }
    };
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
    drop(half);
    assert_eq!(daemon.status().timelines.len(), 1);
}
