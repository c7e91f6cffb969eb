//! Three safekeepers: one that lags pulls from the others what its leader does not have.

// The tests are no daemon: std's calls are right here.
#![allow(clippy::disallowed_methods)]

mod common;

use common::client::Client;
use common::wal::{self, Random, START};
use common::{Daemon, TestDir, free_port};
use ironpage_layout::postgres::wal::build::WalWriter;
use ironpage_layout::{Lsn, Term};
use std::time::Instant;

struct Cluster {
    dir: TestDir,
    ports: [u16; 3],
    daemons: [Option<Daemon>; 3],
}

impl Cluster {
    fn start(name: &str) -> Cluster {
        let dir = TestDir::new(name);
        let ports = [free_port(), free_port(), free_port()];
        let mut cluster = Cluster { dir, ports, daemons: [None, None, None] };
        for index in 0..3 {
            cluster.start_one(index);
            Client::admin(cluster.get(index).address).create(&wal::create()).unwrap();
        }
        cluster
    }

    fn start_one(&mut self, index: usize) {
        let peers: Vec<u16> = (0..3).filter(|peer| *peer != index).map(|peer| self.ports[peer]).collect();
        let dir = self.dir.0.join(index.to_string());
        self.daemons[index] = Some(Daemon::start_as(&dir, index as u64 + 1, self.ports[index], &peers));
    }

    fn get(&self, index: usize) -> &Daemon {
        self.daemons[index].as_ref().unwrap()
    }

    /// A leader of `term` at member `index`.
    fn elect(&self, index: usize, term: u64, history: &[(u64, Lsn)]) -> Client {
        let (mut proposer, _, _) = Client::proposer(self.get(index).address);
        assert!(proposer.vote(term).unwrap().1.granted);
        assert_eq!(proposer.elected(term, history).unwrap().0, Term(term));
        proposer
    }
}

fn append_all(proposer: &mut Client, term: u64, writer: &WalWriter, from: Lsn, end: Lsn) {
    let mut at = from;
    while at < end {
        let to = (at + 700_000).min(end);
        proposer.append(term, at, from, wal::slice(writer, at, to));
        at = to;
    }
    proposer.wait_flushed(end).unwrap();
}

/// Heartbeats until the member has all before `end`, as a leader does.
fn wait_caught_up(proposer: &mut Client, term: u64, end: Lsn) {
    let deadline = Instant::now() + common::PATIENCE;
    loop {
        proposer.append(term, end, Lsn(0), &[]);
        let (known, reply) = proposer.append_reply().unwrap();
        assert_eq!(known, Term(term));
        if reply.flush_lsn.get() >= end.0 {
            assert_eq!(reply.record_end.get(), end.0);
            return;
        }
        assert!(Instant::now() < deadline, "still at {:#X}", reply.flush_lsn.get());
        std::thread::yield_now();
    }
}

#[test]
fn a_laggard_pulls_from_whoever_has_it() {
    let mut cluster = Cluster::start("peers");
    let mut writer = wal::writer();
    let end = *wal::fill(&mut writer, &mut Random(11), 20 << 20).last().unwrap();
    let first = [(1, START)];
    // Members 0 and 1 have it all; member 2 has the beginning, and ends within a record.
    for index in 0..2 {
        append_all(&mut cluster.elect(index, 1, &first), 1, &writer, START, end);
    }
    append_all(&mut cluster.elect(2, 1, &first), 1, &writer, START, START + 1_000_001);

    // Term 2 begins at X = end. Member 0 is away: nobody there answers.
    drop(cluster.daemons[0].take());
    let second = [(1, START), (2, end)];
    let mut leader = cluster.elect(2, 2, &second);
    leader.append(2, end, Lsn(0), &[]);
    assert!(leader.append_reply().unwrap().1.flush_lsn.get() < end.0);
    // Member 1 has the bytes, but gives them only once it knows that they are of term 2's log.
    cluster.daemons[2].as_mut().unwrap().wait_for_log("cannot be had");
    let _elsewhere = cluster.elect(1, 2, &second);
    wait_caught_up(&mut leader, 2, end);
    // From there on the leader itself has it.
    let more = *wal::fill(&mut writer, &mut Random(12), 1 << 20).last().unwrap();
    append_all(&mut leader, 2, &writer, end, more);
    leader.append(2, more, more, &[]);
    assert_eq!(leader.append_reply().unwrap().1.commit_lsn.get(), more.0);
    let there = Client::reader(cluster.get(2).address).read_wal(0, START, more, 0).unwrap();
    assert!(there == wal::slice(&writer, START, more));
}

#[test]
fn a_member_with_an_empty_disk_and_one_that_was_killed_catch_up() {
    let mut cluster = Cluster::start("empty");
    let mut writer = wal::writer();
    let end = *wal::fill(&mut writer, &mut Random(21), 40 << 20).last().unwrap();
    let history = [(1, START), (3, end)];
    append_all(&mut cluster.elect(0, 1, &[(1, START)]), 1, &writer, START, end);
    let _donor = cluster.elect(0, 3, &history);
    // Member 1 never saw any of it. Killed in the middle, it goes on after a restart by itself.
    drop(cluster.elect(1, 3, &history));
    let recovered = |status: ironpage_layout::wire::admin::StatusReply| status.timelines[0].flush_lsn;
    while recovered(cluster.get(1).status()) == START {
        std::thread::yield_now();
    }
    cluster.daemons[1].take().unwrap().kill();
    cluster.start_one(1);
    let deadline = Instant::now() + common::PATIENCE;
    while recovered(cluster.get(1).status()) < end {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let there = Client::reader(cluster.get(1).address).read_wal(3, START, end, 1).unwrap();
    assert!(there == wal::slice(&writer, START, end));
}

#[test]
fn a_member_with_another_history_is_cut_and_refilled() {
    let cluster = Cluster::start("diverged");
    let mut good = wal::writer();
    let ends = wal::fill(&mut good, &mut Random(31), 4 << 20);
    let (middle, end) = (ends[ends.len() / 2], *ends.last().unwrap());
    append_all(&mut cluster.elect(0, 1, &[(1, START)]), 1, &good, START, middle);
    append_all(&mut cluster.elect(0, 3, &[(1, START), (3, middle)]), 3, &good, middle, end);
    // Member 2 followed a leader of term 2 that nobody else heard of.
    let mut lone = wal::writer();
    let lone_end = *wal::fill(&mut lone, &mut Random(32), 20 << 20).last().unwrap();
    append_all(&mut cluster.elect(2, 2, &[(2, START)]), 2, &lone, START, lone_end);

    let history = [(1, START), (3, middle), (4, end)];
    let _donor = cluster.elect(0, 4, &history);
    let mut leader = cluster.elect(2, 4, &history);
    wait_caught_up(&mut leader, 4, end);
    let there = Client::reader(cluster.get(2).address).read_wal(4, START, end, 1).unwrap();
    assert!(there == wal::slice(&good, START, end));
}
