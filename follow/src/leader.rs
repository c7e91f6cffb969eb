//! Brings the log to a quorum of safekeepers: wins a term, then proposes what the stream receives.
//!
//! The state machine is `ironpage_consensus::Proposer`; here are its sockets: a thread per safekeeper reads, one loop
//! feeds it and writes. A safekeeper that lacks more than the log still has is helped by a new term: what lies before a
//! term's start they get from each other.

use crate::client::{Client, Identity, Peer};
use crate::error::{Error, Result};
use crate::log::{info, warn};
use ironpage_consensus::Proposer;
use ironpage_consensus::proposer::{Action, Config, Message};
use ironpage_layout::wire::append::{Append, AppendReply, Elected, VoteReply, VoteRequest};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{Header, Kind, encode_frame};
use ironpage_layout::{Lsn, NodeId, Term};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use zerocopy::little_endian::U64;

const CONNECT: Duration = Duration::from_secs(2);
/// A safekeeper that recovers WAL from its peers answers when it is done.
const SILENCE: Duration = Duration::from_secs(60);
const RECONNECT: Duration = Duration::from_millis(200);
/// Longest turn of the loop.
const TURN: Duration = Duration::from_millis(20);
/// A term is not given up for a laggard before this.
const TERM_MIN: Duration = Duration::from_secs(30);
const EVENTS_MAX: usize = 64;

pub enum Event {
    Connected {
        member: usize,
        writer: TcpStream,
        node: NodeId,
        term: Term,
        greeting: VoteReply,
    },
    Frame {
        member: usize,
        header: Header,
        payload: Vec<u8>,
    },
    Gone {
        member: usize,
        why: String,
    },
    /// The stream has something new.
    Woken,
}

/// Where a leader's WAL comes from, and who wants to know what becomes of it.
pub trait Log {
    /// The term is won and everything before `start` is on a quorum; nothing before it will ever change.
    fn ready(&mut self, start: Lsn) -> Result<()>;
    /// End of what there is; `start` while nothing is.
    fn end(&self) -> Option<Lsn>;
    /// Bytes of the log; `None` if it does not have them any more.
    fn read(&self, begin: Lsn, length: usize) -> Option<Vec<u8>>;
    fn committed(&mut self, commit: Lsn);
    /// Called every turn; an error ends everything.
    fn turn(&mut self, quorum: &str) -> Result<()>;
}

/// Why a round ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Another term is needed.
    NewTerm,
}

/// Events of a follower's own threads: those of the safekeepers, and what the stream wakes by.
pub struct Events {
    pub sender: SyncSender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    pub fn new() -> Events {
        let (sender, receiver) = sync_channel(EVENTS_MAX);
        Events { sender, receiver }
    }
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

/// Wins a term among `peers` and leads it. `round` must be fresh events: those of an earlier round's threads would be mistaken.
pub fn lead(peers: &[Peer], identity: Identity, events: &Events, log: &mut dyn Log) -> Result<Ended> {
    let stops: Vec<Arc<AtomicBool>> = peers.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
    for (member, (peer, stop)) in peers.iter().zip(&stops).enumerate() {
        let (peer, stop, sender) = (peer.clone(), Arc::clone(stop), events.sender.clone());
        std::thread::spawn(move || listen(member, &peer, identity, &stop, &sender));
    }
    let config = Config::new(peers.len(), identity.system_id);
    let mut leader = Leader {
        quorum: config.quorum(),
        proposer: Proposer::launch(config),
        peers,
        stops: &stops,
        began: Instant::now(),
        ready: false,
        laggard: false,
        writers: peers.iter().map(|_| None).collect(),
        reasons: peers.iter().map(|_| "no answer yet".to_string()).collect(),
    };
    let outcome = leader.run(events, log);
    for stop in &stops {
        stop.store(true, Ordering::Relaxed);
    }
    for writer in leader.writers.iter().flatten() {
        // The thread that reads from it ends; a socket that is closed already has nothing to shut.
        let _ = writer.shutdown(Shutdown::Both);
    }
    outcome
}

/// Keeps a connection to one safekeeper and reports all it says, until told to stop or nobody listens.
fn listen(member: usize, peer: &Peer, identity: Identity, stop: &AtomicBool, events: &SyncSender<Event>) {
    while !stop.load(Ordering::Relaxed) {
        let why = match converse(member, peer, identity, stop, events) {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        if stop.load(Ordering::Relaxed) || events.send(Event::Gone { member, why }).is_err() {
            return;
        }
        std::thread::sleep(RECONNECT);
    }
}

/// `Ok` if nobody listens any more.
fn converse(member: usize, peer: &Peer, identity: Identity, stop: &AtomicBool, events: &SyncSender<Event>) -> Result<()> {
    let mut client = Client::connect(peer, Role::Proposer, identity, CONNECT)?;
    let (header, payload) = client.receive()?;
    if header.kind != Kind::Greeting {
        return Err(Error::Unexpected { peer: peer.name.clone(), kind: format!("{:?}", header.kind), wanted: "Greeting" });
    }
    let greeting = VoteReply::decode(&payload).map_err(|error| peer.wire(error))?;
    client.set_read_timeout(SILENCE)?;
    let writer = client.writer()?;
    if stop.load(Ordering::Relaxed)
        || events.send(Event::Connected { member, writer, node: client.node, term: header.term, greeting }).is_err()
    {
        return Ok(());
    }
    loop {
        let (header, payload) = client.receive()?;
        if stop.load(Ordering::Relaxed) || events.send(Event::Frame { member, header, payload }).is_err() {
            return Ok(());
        }
    }
}

struct Leader<'a> {
    proposer: Proposer,
    peers: &'a [Peer],
    stops: &'a [Arc<AtomicBool>],
    quorum: usize,
    began: Instant,
    /// The log was told where the term starts.
    ready: bool,
    /// Some safekeeper lacks more than the log has.
    laggard: bool,
    writers: Vec<Option<TcpStream>>,
    /// Why each safekeeper does not help, empty if it does.
    reasons: Vec<String>,
}

impl Leader<'_> {
    fn run(&mut self, events: &Events, log: &mut dyn Log) -> Result<Ended> {
        let mut actions = Vec::new();
        loop {
            let wait = Duration::from_millis(self.proposer.deadline_ms().saturating_sub(self.now_ms())).min(TURN);
            let mut next = events.receiver.recv_timeout(wait).ok();
            let mut taken = 0;
            while let Some(event) = next.take() {
                self.feed(event, &mut actions)?;
                taken += 1;
                next = if taken < EVENTS_MAX { events.receiver.try_recv().ok() } else { None };
            }
            if self.ready
                && let Some(end) = log.end()
            {
                self.proposer.wal_available(end, self.now_ms(), &mut actions);
            }
            self.proposer.tick(self.now_ms(), &mut actions);
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Send { member, term, message } => self.send(member, term, message, log),
                    Action::Disconnect { member, why } => self.drop_member(member, why.to_string()),
                    Action::Won { term, start } => info(&format!("term {term} is won, from {start} on")),
                    Action::Committed(commit) if self.ready => log.committed(commit),
                    Action::Committed(_) => {}
                    Action::Lost { seen } => {
                        info(&format!("the election is lost to term {seen}: another begins"));
                        return Ok(Ended::NewTerm);
                    }
                    Action::Fenced { seen } => {
                        return Err(Error::Refused(format!(
                            "somebody else writes this timeline, in term {seen}: is it followed twice? `ironpage status` shows who runs"
                        )));
                    }
                }
            }
            if !self.ready
                && let Some((_, start)) = self.proposer.leading()
                && self.proposer.commit_lsn_known() >= start
            {
                log.ready(start)?;
                self.ready = true;
                log.committed(self.proposer.commit_lsn());
            }
            if self.laggard && self.began.elapsed() > TERM_MIN {
                return Ok(Ended::NewTerm);
            }
            log.turn(&self.quorum_in_words())?;
        }
    }

    fn now_ms(&self) -> u64 {
        // From 1 on: 0 means never to the state machine.
        self.began.elapsed().as_millis() as u64 + 1
    }

    fn feed(&mut self, event: Event, actions: &mut Vec<Action>) -> Result<()> {
        let now_ms = self.now_ms();
        let (member, fed) = match event {
            Event::Woken => return Ok(()),
            Event::Connected { member, writer, node, term, greeting } => {
                if let (Some(slot), Some(reason)) = (self.writers.get_mut(member), self.reasons.get_mut(member)) {
                    *slot = Some(writer);
                    reason.clear();
                }
                (member, self.proposer.greeting(member, node, term, greeting, now_ms, actions))
            }
            Event::Gone { member, why } => {
                self.drop_member(member, why);
                return Ok(());
            }
            Event::Frame { member, header, payload } => {
                let Some(peer) = self.peers.get(member) else { return Ok(()) };
                let fed = match header.kind {
                    Kind::VoteReply => match VoteReply::decode(&payload) {
                        Ok(reply) => self.proposer.vote_reply(member, header.term, reply, now_ms, actions),
                        Err(error) => return Err(peer.wire(error)),
                    },
                    Kind::AppendReply => match AppendReply::decode(&payload) {
                        Ok(reply) => self.proposer.append_reply(member, header.term, &reply, now_ms, actions),
                        Err(error) => return Err(peer.wire(error)),
                    },
                    other => {
                        self.drop_member(member, format!("it sent a {other:?} frame"));
                        return Ok(());
                    }
                };
                (member, fed)
            }
        };
        // A safekeeper of another cluster, or one that breaks an invariant: nothing goes on with it.
        let name = |member: usize| self.peers.get(member).map_or("a safekeeper", |peer| &peer.name);
        fed.map_err(|error| Error::Refused(format!("{}: {error}", name(member))))
    }

    fn drop_member(&mut self, member: usize, why: String) {
        self.proposer.disconnected(member);
        if let (Some(reason), Some(peer)) = (self.reasons.get_mut(member), self.peers.get(member)) {
            if *reason != why {
                warn(&format!("{}: {why}", peer.name));
            }
            *reason = why;
        }
        if let Some(writer) = self.writers.get_mut(member).and_then(Option::take) {
            let _ = writer.shutdown(Shutdown::Both);
        }
    }

    fn send(&mut self, member: usize, term: Term, message: Message, log: &dyn Log) {
        let mut frame = Vec::new();
        match message {
            Message::VoteRequest => {
                encode_frame(&mut frame, Kind::VoteRequest, 0, term, |out| VoteRequest { reserved: U64::ZERO }.encode(out));
            }
            Message::Elected(history) => encode_frame(&mut frame, Kind::Elected, 0, term, |out| Elected { history }.encode(out)),
            Message::Append { begin, length, commit } => {
                let wal = if length == 0 { Some(Vec::new()) } else { log.read(begin, length) };
                let Some(wal) = wal else {
                    self.laggard = true;
                    if let Some(stop) = self.stops.get(member) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    self.drop_member(
                        member,
                        format!("it lacks WAL from {begin} on, which the others have: it waits for a new term"),
                    );
                    return;
                };
                encode_frame(&mut frame, Kind::Append, 0, term, |out| {
                    Append { begin_lsn: U64::new(begin.0), commit_lsn: U64::new(commit.0) }.encode(out);
                    out.extend_from_slice(&wal);
                });
            }
        }
        let Some(writer) = self.writers.get_mut(member).and_then(Option::as_mut) else { return };
        if let Err(error) = writer.write_all(&frame) {
            self.drop_member(member, error.to_string());
        }
    }

    /// Empty if a quorum answers; who does not otherwise.
    fn quorum_in_words(&self) -> String {
        let silent: Vec<String> = self
            .peers
            .iter()
            .zip(&self.reasons)
            .filter(|(_, reason)| !reason.is_empty())
            .map(|(peer, reason)| format!("{}: {reason}", peer.name))
            .collect();
        let answering = self.peers.len() - silent.len();
        if answering >= self.quorum {
            return String::new();
        }
        format!("{answering} of {} safekeepers answer, {} are needed. {}", self.peers.len(), self.quorum, silent.join("; "))
    }
}
