//! Kills, torn tails, lost votes: what was acknowledged is there after a restart, and nothing else is.

// The tests are no daemon: std's calls are right here.
#![allow(clippy::disallowed_methods)]

mod common;

use common::client::Client;
use common::wal::{self, Random, START, TENANT, TIMELINE};
use common::{Daemon, TestDir};
use ironpage_layout::lsn::segment_file_name;
use ironpage_layout::postgres::wal::build::WalWriter;
use ironpage_layout::wire::ErrorCode;
use ironpage_layout::{Lsn, Term};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(TENANT.to_string()).join(TIMELINE.to_string()).join(segment_file_name(number))
}

/// Wins `term` at `at`, behind what `history` says.
fn elect(daemon: &Daemon, term: u64, history: &mut Vec<(u64, Lsn)>, at: Lsn) -> Client {
    let (mut proposer, _, _) = Client::proposer(daemon.address);
    assert!(proposer.vote(term).unwrap().1.granted);
    history.push((term, at));
    let (known, reply) = proposer.elected(term, history).unwrap();
    assert_eq!((known, reply.record_end.get()), (Term(term), at.0));
    proposer
}

fn append_all(proposer: &mut Client, term: u64, writer: &WalWriter, from: Lsn, end: Lsn, commit: Lsn) {
    let mut at = from;
    while at < end {
        let to = (at + 500_000).min(end);
        proposer.append(term, at, commit, wal::slice(writer, at, to));
        at = to;
    }
    proposer.wait_flushed(end).unwrap();
}

/// Everything from `end` on, in the files, is zeros.
fn assert_nothing_behind(dir: &Path, end: Lsn) {
    let mut number = end.segment();
    while let Ok(file) = std::fs::read(segment_path(dir, number)) {
        let from = if number == end.segment() { end.segment_offset() as usize } else { 0 };
        assert!(file[from..].iter().all(|byte| *byte == 0), "segment {number} holds something behind {end}");
        number += 1;
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = TestDir::new("kill9");
    let mut random = Random(20261122);
    let mut writer = wal::writer();
    let mut history = Vec::new();
    let mut daemon = Daemon::start(&dir.0);
    Client::admin(daemon.address).create(&wal::create()).unwrap();
    let mut at = START;
    for round in 1..=12u64 {
        let mut proposer = elect(&daemon, round, &mut history, at);
        wal::fill(&mut writer, &mut random, 10 << 20);
        let goal = writer.position();
        // Far more than one flush is on its way when the daemon dies.
        let mut stream = proposer.stream.try_clone().unwrap();
        let wal = wal::slice(&writer, at, goal).to_vec();
        let chunk = random.below(200_000) as usize + 1;
        let begin = at;
        let sender = std::thread::spawn(move || {
            for (index, bytes) in wal.chunks(chunk).enumerate() {
                let mut frame = Vec::new();
                let append = ironpage_layout::wire::append::Append {
                    begin_lsn: (begin.0 + (index * chunk) as u64).into(),
                    commit_lsn: begin.0.into(),
                };
                ironpage_layout::wire::encode_frame(&mut frame, ironpage_layout::wire::Kind::Append, 1, Term(round), |out| {
                    append.encode(out);
                    out.extend_from_slice(bytes);
                });
                if std::io::Write::write_all(&mut stream, &frame).is_err() {
                    return;
                }
            }
        });
        let acks = random.below(6);
        let mut acked = at;
        for _ in 0..=acks {
            let Ok((_, reply)) = proposer.append_reply() else { break };
            acked = Lsn(reply.record_end.get());
            if reply.flush_lsn.get() == goal.0 {
                break;
            }
        }
        daemon.kill();
        // What was sent before the death still counts.
        while let Ok(Some(frame)) = proposer.try_receive() {
            let reply = ironpage_layout::wire::append::AppendReply::decode(&frame.payload).unwrap();
            acked = acked.max(Lsn(reply.record_end.get()));
        }
        sender.join().unwrap();
        daemon = Daemon::start(&dir.0);
        let (_, term, greeting) = Client::proposer(daemon.address);
        assert_eq!(term, Term(round));
        assert!(greeting.flush_lsn >= acked, "round {round}: {acked} was acknowledged, {} is there", greeting.flush_lsn);
        assert!(greeting.flush_lsn <= goal && greeting.record_end == greeting.flush_lsn);
        let there = Client::reader(daemon.address).read_wal(round, START, greeting.flush_lsn, 1).unwrap();
        assert!(there == wal::slice(&writer, START, greeting.flush_lsn), "round {round}: other bytes than were sent");
        assert_nothing_behind(&dir.0, greeting.flush_lsn);
        at = greeting.flush_lsn;
        // The next leader writes other WAL from there on.
        let mut kept = wal::writer();
        replay(&mut kept, &writer, at);
        writer = kept;
    }
}

/// Makes `into` hold the records of `from` up to `end`.
fn replay(into: &mut WalWriter, from: &WalWriter, end: Lsn) {
    use ironpage_layout::postgres::wal::{Next, Verify, WalStream};
    let mut stream = WalStream::new(from.start(), Verify::Crc);
    stream.feed(from.start(), wal::slice(from, from.start(), end)).unwrap();
    while let Next::Record(record) = stream.next_record().unwrap() {
        into.append(record.bytes[17], record.bytes[16], 0, &record.bytes[24..]);
    }
    assert_eq!(into.position(), end);
}

#[test]
fn a_vote_survives_kill_9() {
    let dir = TestDir::new("vote");
    let daemon = Daemon::start(&dir.0);
    Client::admin(daemon.address).create(&wal::create()).unwrap();
    let (mut proposer, _, _) = Client::proposer(daemon.address);
    assert!(proposer.vote(7).unwrap().1.granted);
    daemon.kill();
    let daemon = Daemon::start(&dir.0);
    let (mut rival, term, _) = Client::proposer(daemon.address);
    assert_eq!(term, Term(7));
    for term in [3, 7] {
        let (known, vote) = rival.vote(term).unwrap();
        assert!(!vote.granted && known == Term(7), "a second vote in term {term}");
    }
    assert!(rival.vote(8).unwrap().1.granted);
}

#[test]
fn a_torn_tail_is_cleared() {
    let dir = TestDir::new("torn");
    let mut writer = wal::writer();
    let mut random = Random(5);
    let ends = wal::fill(&mut writer, &mut random, 3 << 20);
    let cut = ends[ends.len() - 40];
    let end = *ends.last().unwrap();
    let mut history = Vec::new();
    let daemon = Daemon::start(&dir.0);
    Client::admin(daemon.address).create(&wal::create()).unwrap();
    let mut proposer = elect(&daemon, 1, &mut history, START);
    append_all(&mut proposer, 1, &writer, START, cut, START);
    drop(proposer);
    daemon.kill();
    // Part of what a larger write would have brought: its first block is missing, later ones are there,
    // and the segment behind it holds remains of who knows what.
    let file = std::fs::OpenOptions::new().write(true).open(segment_path(&dir.0, cut.segment())).unwrap();
    let hole = Lsn((cut.0 + 4096) & !4095);
    file.write_all_at(wal::slice(&writer, hole, end), hole.segment_offset()).unwrap();
    std::fs::write(segment_path(&dir.0, cut.segment() + 1), vec![0xA5; 16 << 20]).unwrap();

    let daemon = Daemon::start(&dir.0);
    let (_, _, greeting) = Client::proposer(daemon.address);
    assert_eq!(greeting.flush_lsn, cut);
    assert_nothing_behind(&dir.0, cut);
    // It goes on from there, and a restart finds that too.
    let mut proposer = elect(&daemon, 2, &mut history, cut);
    append_all(&mut proposer, 2, &writer, cut, end, cut);
    daemon.kill();
    let daemon = Daemon::start(&dir.0);
    assert_eq!(Client::proposer(daemon.address).2.record_end, end);
    assert!(Client::reader(daemon.address).read_wal(2, START, end, 1).unwrap() == wal::slice(&writer, START, end));
}

#[test]
fn a_new_leader_cuts_what_it_does_not_have() {
    let dir = TestDir::new("cut");
    let mut old = wal::writer();
    let mut random = Random(6);
    let ends = wal::fill(&mut old, &mut random, 40 << 20);
    let (commit, cut, end) = (ends[ends.len() / 8], ends[ends.len() / 4], *ends.last().unwrap());
    let mut history = Vec::new();
    let daemon = Daemon::start(&dir.0);
    Client::admin(daemon.address).create(&wal::create()).unwrap();
    let mut first = elect(&daemon, 1, &mut history, START);
    append_all(&mut first, 1, &old, START, end, commit);

    let (mut second, term, greeting) = Client::proposer(daemon.address);
    assert_eq!((term, greeting.flush_lsn, greeting.commit_lsn), (Term(1), end, commit));
    // Below what is committed nobody cuts.
    assert!(second.vote(2).unwrap().1.granted);
    let refused = second.elected(2, &[(2, START)]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Protocol);
    // The old leader is told of the higher term by its next message.
    first.append(1, end, commit, &[]);
    assert_eq!(first.append_reply().unwrap().0, Term(2));

    let mut follower = Client::reader(daemon.address);
    let mut second = elect(&daemon, 3, &mut history, cut);
    assert_nothing_behind(&dir.0, cut);
    let fenced = follower.read_wal(1, START, end, 1).unwrap_err();
    assert_eq!(fenced.code, ErrorCode::Fenced);
    let mut new = wal::writer();
    replay(&mut new, &old, cut);
    wal::fill(&mut new, &mut Random(77), 30 << 20);
    let new_end = new.position();
    append_all(&mut second, 3, &new, cut, new_end, new_end);
    assert!(follower.read_wal(3, START, new_end, 1).unwrap() == wal::slice(&new, START, new_end));
    daemon.kill();
    let daemon = Daemon::start(&dir.0);
    let (_, term, greeting) = Client::proposer(daemon.address);
    assert_eq!((term, greeting.record_end), (Term(3), new_end));
    assert_eq!(greeting.history.0, [(Term(1), START), (Term(3), cut)]);
    assert!(Client::reader(daemon.address).read_wal(3, START, new_end, 1).unwrap() == wal::slice(&new, START, new_end));
}

#[test]
fn wal_may_end_anywhere_around_page_and_segment_boundaries() {
    let dir = TestDir::new("boundaries");
    let mut history = Vec::new();
    let mut daemon = Daemon::start(&dir.0);
    let mut create = wal::create();
    // Shortly before a segment ends; what is in the segment before that reads as zeros.
    create.start_lsn = Lsn(0x01FF_E000);
    create.prev_record_lsn = Lsn(0x01FF_DF00);
    create.prefix_length = 0;
    Client::admin(daemon.address).create(&create).unwrap();
    let mut writer = WalWriter::new(create.start_lsn, create.prev_record_lsn, wal::SYSTEM_ID);
    let (mut at, mut term) = (create.start_lsn, 0);
    // 24 bytes of header and 2 of main data make records of 32 bytes and more, in steps of 8.
    for size in [0usize, 6, 70, 4000, 4050, 7900, 100, 0, 8, 16, 24, 8100, 3, 8129, 8137, 16_000, 40] {
        let (_, end) = writer.append(0, 0x20, 0, &ironpage_layout::postgres::wal::build::main_data_payload(&vec![3; size]));
        term += 1;
        let mut proposer = elect(&daemon, term, &mut history, at);
        append_all(&mut proposer, term, &writer, at, end, at);
        drop(proposer);
        daemon.kill();
        daemon = Daemon::start(&dir.0);
        assert_eq!(Client::proposer(daemon.address).2.record_end, end, "a record of {size} bytes at {at}");
        let there = Client::reader(daemon.address).read_wal(term, create.start_lsn, end, 1).unwrap();
        assert!(there == wal::slice(&writer, create.start_lsn, end));
        at = end;
    }
    assert!(at.segment() == 2);
}
