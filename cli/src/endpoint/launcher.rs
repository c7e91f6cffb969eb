//! Wins a term for a new start of Postgres, and with it fixes where the WAL ends.
//!
//! The state machine is `ironpage_consensus::Proposer`; here are its sockets: a thread per safekeeper
//! reads, one loop feeds and writes. It is done when a quorum holds all WAL up to the start of the term
//! and knows that it is committed.

use crate::client::{Client, Identity, Peer};
use crate::error::{Error, Result};
use crate::sys::Signals;
use ironpage_consensus::Proposer;
use ironpage_consensus::proposer::{Action, Config, Message};
use ironpage_layout::wire::append::{Append, AppendReply, Elected, TermHistory, VoteReply, VoteRequest};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{Header, Kind, encode_frame};
use ironpage_layout::{Lsn, NodeId, Term};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use zerocopy::little_endian::U64;

/// How long an attempt may go without a quorum of votes; the supervisor makes the next.
const VOTES: Duration = Duration::from_secs(2);
/// How long a quorum may go without bringing the log of the slower ones further.
const RECOVERY: Duration = Duration::from_secs(15);
/// How long a safekeeper may take to connect, or to answer a hello.
const CONNECT: Duration = Duration::from_secs(1);
/// Pause before an unreachable safekeeper is tried again.
const RECONNECT: Duration = Duration::from_millis(50);
/// How long an election that is won waits for the slowest safekeeper: the pageserver may follow that one.
const STRAGGLERS: Duration = Duration::from_millis(100);
/// Events of all safekeepers that may wait to be handled.
const EVENTS_MAX: usize = 64;

/// Why a safekeeper does not help that was not heard from at all.
const NO_ANSWER: &str = "no answer yet";

/// A won term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Won {
    pub term: Term,
    /// End of the WAL: nothing before it will ever change.
    pub start_lsn: Lsn,
    pub history: TermHistory,
}

/// What this supervisor did in elections so far, so that it recognises those of others.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Record {
    /// Highest term asked for.
    asked: Term,
    /// Highest term won.
    pub won: Term,
}

/// Whether a term of another launcher may be ended by ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Asked for by a user: whoever leads is fenced.
    TakeOver,
    /// A restart on our own account: only if nobody has taken over since.
    StayFenced,
}

enum Event {
    Connected { member: usize, writer: TcpStream, node: NodeId, term: Term, greeting: VoteReply },
    Frame { member: usize, header: Header, payload: Vec<u8> },
    Gone { member: usize, why: String },
}

/// Stands for election among `peers`, which keep the timeline of `identity`.
pub fn elect(
    branch: &str,
    peers: &[Peer],
    identity: Identity,
    rule: Rule,
    record: &mut Record,
    signals: &Signals,
) -> Result<Won> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, events) = sync_channel(EVENTS_MAX);
    for (member, peer) in peers.iter().enumerate() {
        let (peer, stop, sender) = (peer.clone(), Arc::clone(&stop), sender.clone());
        std::thread::spawn(move || listen(member, &peer, identity, &stop, &sender));
    }
    drop(sender);
    let config = Config { commit_delay_ms: 0, ..Config::new(peers.len(), identity.system_id) };
    let mut election = Election {
        quorum: config.quorum(),
        proposer: Proposer::launch(config),
        peers,
        began: Instant::now(),
        moved: Instant::now(),
        reached: 0,
        writers: peers.iter().map(|_| None).collect(),
        reasons: peers.iter().map(|_| NO_ANSWER.to_string()).collect(),
    };
    let outcome = election.run(branch, &events, rule, record, signals);
    stop.store(true, Ordering::Relaxed);
    for writer in election.writers.iter().flatten() {
        // The thread that reads from it ends; a socket that is closed already has nothing to shut.
        let _ = writer.shutdown(Shutdown::Both);
    }
    outcome
}

/// Keeps a connection to one safekeeper and reports all it says, until told to stop or nobody listens.
fn listen(member: usize, peer: &Peer, identity: Identity, stop: &AtomicBool, events: &SyncSender<Event>) {
    while !stop.load(Ordering::Relaxed) {
        let why = match converse(member, peer, identity, events) {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        if events.send(Event::Gone { member, why }).is_err() {
            return;
        }
        std::thread::sleep(RECONNECT);
    }
}

/// `Ok` if nobody listens any more.
fn converse(member: usize, peer: &Peer, identity: Identity, events: &SyncSender<Event>) -> Result<()> {
    let mut client = Client::connect(peer, Role::Proposer, identity, CONNECT)?;
    let (header, payload) = client.expect(Kind::Greeting, "Greeting")?;
    let greeting = VoteReply::decode(&payload).map_err(|error| peer.wire(error))?;
    // A safekeeper that recovers WAL from its peers answers when it is done.
    client.set_read_timeout(RECOVERY)?;
    let connected = Event::Connected { member, writer: client.writer()?, node: client.node, term: header.term, greeting };
    if events.send(connected).is_err() {
        return Ok(());
    }
    loop {
        let (header, payload) = client.receive()?;
        if events.send(Event::Frame { member, header, payload }).is_err() {
            return Ok(());
        }
    }
}

struct Election<'a> {
    proposer: Proposer,
    peers: &'a [Peer],
    quorum: usize,
    began: Instant,
    /// When the election last came further, and how far the safekeepers' logs were then, in sum.
    moved: Instant,
    reached: u64,
    writers: Vec<Option<TcpStream>>,
    /// Why each safekeeper does not help, empty if it does.
    reasons: Vec<String>,
}

impl Election<'_> {
    fn run(&mut self, branch: &str, events: &Receiver<Event>, rule: Rule, record: &mut Record, signals: &Signals) -> Result<Won> {
        let mut actions = Vec::new();
        let mut known_at = None;
        loop {
            if signals.take().is_some() {
                return Err(Error::Interrupted);
            }
            let event = match events.recv_timeout(Duration::from_millis(5)) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(self.no_quorum(branch)),
            };
            if let Some(event) = event {
                if let (Rule::StayFenced, Event::Connected { member, term, greeting, .. }) = (rule, &event) {
                    self.check_unfenced(*member, *term, greeting, record)?;
                }
                self.feed(event, &mut actions)?;
            }
            self.proposer.tick(self.now_ms(), &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Send { member, term, message } => {
                        record.asked = record.asked.max(term);
                        self.send(member, term, message);
                    }
                    Action::Disconnect { member, why } => self.drop_member(member, why.to_string()),
                    Action::Won { term, .. } => record.won = record.won.max(term),
                    Action::Committed(_) => {}
                    Action::Lost { seen } | Action::Fenced { seen } => {
                        return Err(Error::Endpoint(format!("lost the election to term {seen}: another endpoint starts too")));
                    }
                }
            }
            if let Some((history, start_lsn)) = self.proposer.leading()
                && self.proposer.commit_lsn_known() >= start_lsn
                && (self.all_told(start_lsn) || known_at.get_or_insert_with(Instant::now).elapsed() > STRAGGLERS)
            {
                let history = history.clone();
                return Ok(Won { term: record.won, start_lsn, history });
            }
            let patience = if self.proposer.leading().is_some() { RECOVERY } else { VOTES };
            self.note_progress();
            if self.moved.elapsed() > patience {
                return Err(self.no_quorum(branch));
            }
        }
    }

    fn note_progress(&mut self) {
        let reached = (0..self.peers.len()).map(|member| self.proposer.flush_lsn(member).0).fold(0, u64::saturating_add);
        if reached > self.reached {
            self.reached = reached;
            self.moved = Instant::now();
        }
    }

    /// Every safekeeper knows `lsn` to be committed, or cannot be reached.
    fn all_told(&self, lsn: Lsn) -> bool {
        self.proposer.all_connected_know(lsn) && !self.reasons.iter().any(|reason| reason == NO_ANSWER)
    }

    fn now_ms(&self) -> u64 {
        // From 1 on: 0 means never to the state machine.
        self.began.elapsed().as_millis() as u64 + 1
    }

    /// A term nobody here asked for, or WAL of a term nobody here won: somebody took over.
    fn check_unfenced(&self, member: usize, term: Term, greeting: &VoteReply, record: &Record) -> Result<()> {
        let written = ironpage_consensus::history::last_term(&greeting.history);
        let name = self.peers.get(member).map_or("a safekeeper", |peer| &peer.name);
        if term > record.asked || written > record.won {
            let seen = term.max(written);
            let message = format!("{name} knows term {seen}, and this endpoint ran with {}: another one took over", record.won);
            return Err(Error::Fenced(message));
        }
        Ok(())
    }

    fn feed(&mut self, event: Event, actions: &mut Vec<Action>) -> Result<()> {
        let now_ms = self.now_ms();
        let (member, fed) = match event {
            Event::Connected { member, writer, node, term, greeting } => {
                self.writers[member] = Some(writer);
                self.reasons[member].clear();
                (member, self.proposer.greeting(member, node, term, greeting, now_ms, actions))
            }
            Event::Gone { member, why } => {
                self.drop_member(member, why);
                return Ok(());
            }
            Event::Frame { member, header, payload } => {
                let wire = |error| self.peers[member].wire(error);
                let fed = match header.kind {
                    Kind::VoteReply => {
                        let reply = VoteReply::decode(&payload).map_err(wire)?;
                        self.proposer.vote_reply(member, header.term, reply, now_ms, actions)
                    }
                    Kind::AppendReply => {
                        let reply = AppendReply::decode(&payload).map_err(wire)?;
                        self.proposer.append_reply(member, header.term, &reply, now_ms, actions)
                    }
                    other => {
                        self.drop_member(member, format!("{} sent a {other:?} frame", self.peers[member].name));
                        return Ok(());
                    }
                };
                (member, fed)
            }
        };
        // A safekeeper of another cluster, or one that breaks an invariant: the election does not go on with it.
        fed.map_err(|error| Error::Endpoint(format!("{}: {error}", self.peers[member].name)))
    }

    fn drop_member(&mut self, member: usize, why: String) {
        self.proposer.disconnected(member);
        self.reasons[member] = why;
        if let Some(writer) = self.writers[member].take() {
            let _ = writer.shutdown(Shutdown::Both);
        }
    }

    fn send(&mut self, member: usize, term: Term, message: Message) {
        let mut frame = Vec::new();
        match message {
            Message::VoteRequest => {
                encode_frame(&mut frame, Kind::VoteRequest, 0, term, |out| VoteRequest { reserved: U64::ZERO }.encode(out));
            }
            Message::Elected(history) => encode_frame(&mut frame, Kind::Elected, 0, term, |out| Elected { history }.encode(out)),
            Message::Append { begin, length, commit } => {
                assert_eq!(length, 0, "a launcher has no WAL to send");
                let append = Append { begin_lsn: U64::new(begin.0), commit_lsn: U64::new(commit.0) };
                encode_frame(&mut frame, Kind::Append, 0, term, |out| append.encode(out));
            }
        }
        let Some(writer) = &mut self.writers[member] else { return };
        if let Err(error) = writer.write_all(&frame) {
            self.drop_member(member, error.to_string());
        }
    }

    fn no_quorum(&self, branch: &str) -> Error {
        let silent = |(peer, reason): (&Peer, &String)| match reason.as_str() {
            "" => None,
            reason if reason.starts_with(&peer.name) => Some(reason.to_string()),
            reason => Some(format!("{} ({}): {reason}", peer.name, peer.address)),
        };
        let reasons: Vec<String> = self.peers.iter().zip(&self.reasons).filter_map(silent).collect();
        let answered = self.reasons.iter().filter(|reason| reason.is_empty()).count();
        let members = self.peers.len();
        let reasons = match reasons.as_slice() {
            [] => "All are connected, but too few have recovered the WAL up to the end of the log".to_string(),
            some => some.join("; "),
        };
        Error::NoQuorum { branch: branch.to_string(), answered, members, needed: self.quorum, reasons }
    }
}
