//! The world of a simulation: three safekeepers, leaders that come and go, a network and disks that fail.
//! Time and chance come from the seed alone.

mod leader;
mod node;
mod oracle;
mod random;
mod wal;

use ironpage_consensus::ConnId;
use ironpage_consensus::proposer::{Action, Message, Stage};
use ironpage_layout::{Lsn, Term};
use leader::Leader;
use node::{FromNode, Node, ToNode};
use oracle::Oracle;
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use wal::START;

const NODES: usize = 3;

/// How often what goes wrong, in thousandths.
#[derive(Clone, Copy)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    /// Of each round of mischief (every 20 ms): what it may do.
    pub node_crash: u64,
    pub all_crash: u64,
    pub leader_death: u64,
    pub new_leader: u64,
    pub worker_restart: u64,
    pub partition: u64,
    pub heal: u64,
    /// How long the faults go on.
    pub duration_ms: u64,
}

enum Event {
    ToNode { node: usize, conn: ConnId, message: ToNode },
    FromNode { conn: ConnId, message: FromNode },
    WorkDone { node: usize, boot: u64 },
    Pull { node: usize, boot: u64 },
    Pulled { node: usize, boot: u64, term: Term, begin: Lsn, wal: Vec<u8> },
    Restart { node: usize },
    Step { leader: usize },
    Mischief,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(usize),
    Leader(usize),
}

pub struct World {
    random: Random,
    faults: Option<Faults>,
    now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    nodes: Vec<Node>,
    leaders: Vec<Leader>,
    conns: BTreeMap<ConnId, (usize, usize)>,
    cut: BTreeSet<(Place, Place)>,
    oracle: Oracle,
    seen: Seen,
    /// Who asked for votes in which term.
    stood: BTreeMap<Term, BTreeSet<usize>>,
}

/// What a run came to, so that a test can tell that something happened at all.
pub struct Outcome {
    pub terms: usize,
    pub committed_bytes: u64,
    pub seen: Seen,
}

/// How often what the protocol is there for came up.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Candidates that lost to another one.
    pub lost: u64,
    /// Terms in which nobody won although two or more stood for it.
    pub split: u64,
    /// Logs that had to be cut.
    pub cuts: u64,
    /// Power cuts within such a cut.
    pub crashes_in_cut: u64,
    /// Pieces of WAL taken from peers.
    pub pulled: u64,
    /// Power cuts while WAL from peers was missing, some of it there.
    pub crashes_in_recovery: u64,
}

impl Seen {
    pub fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("elections lost", self.lost),
            ("votes split", self.split),
            ("logs cut", self.cuts),
            ("crashes in a cut", self.crashes_in_cut),
            ("pieces pulled from peers", self.pulled),
            ("crashes in a recovery", self.crashes_in_recovery),
        ]
    }
}

impl World {
    /// Runs one seed: faults first, then peace, in which a new leader must commit.
    pub fn run(seed: u64, faults: Faults) -> Outcome {
        let mut world = World {
            random: Random(seed),
            faults: Some(faults),
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            leaders: Vec::new(),
            conns: BTreeMap::new(),
            cut: BTreeSet::new(),
            oracle: Oracle::new(),
            seen: Seen::default(),
            stood: BTreeMap::new(),
        };
        world.new_leader();
        world.after(20, Event::Mischief);
        world.go_on_until(faults.duration_ms, |_| false);
        world.peace();
        let split = world.stood.iter().filter(|(term, who)| who.len() > 1 && !world.oracle.has_winner(**term)).count();
        let nodes = world.nodes.iter().map(|node| node.seen).fold(world.seen, |sum, node| Seen {
            cuts: sum.cuts + node.cuts,
            crashes_in_cut: sum.crashes_in_cut + node.crashes_in_cut,
            pulled: sum.pulled + node.pulled,
            crashes_in_recovery: sum.crashes_in_recovery + node.crashes_in_recovery,
            ..sum
        });
        Outcome {
            terms: world.oracle.terms_won(),
            committed_bytes: world.oracle.committed.end().since(START),
            seen: Seen { split: split as u64, ..nodes },
        }
    }

    /// After the last fault a leader is elected, commits, and all nodes end up with its log.
    fn peace(&mut self) {
        self.faults = None;
        self.cut.clear();
        for leader in &mut self.leaders {
            leader.dead = true;
        }
        for node in 0..NODES {
            if self.nodes[node].acceptor.is_none() {
                self.after(1, Event::Restart { node });
            }
        }
        // What is still under way arrives; nobody is left to answer.
        self.go_on_until(self.now + 1000, |_| false);
        let deadline = self.now + 20_000;
        self.new_leader();
        self.go_on_until(deadline, |world| world.leaders.last().is_some_and(|leader| leader.wal.is_some()));
        let before = self.oracle.committed.end();
        self.go_on_until(deadline, |world| world.oracle.committed.end().since(before) > 2000);
        let id = self.leaders.len() - 1;
        self.leaders[id].stop_writing(self.now);
        self.take_actions(id);
        let end = self.leaders[id].flushed;
        self.go_on_until(deadline, |world| {
            world.nodes.iter().all(|node| node.acceptor.as_ref().is_some_and(|acceptor| acceptor.commit_lsn() == end))
        });
        assert!(self.now < deadline, "no leader committed after the faults stopped: {}", self.describe());
        let committed = self.oracle.committed.range(START, end).to_vec();
        assert!(self.nodes.iter().all(|node| node.wal.bytes == committed), "a node's log differs at the end");
    }

    fn describe(&self) -> String {
        let node = |node: &Node| match &node.acceptor {
            None => "down".to_string(),
            Some(it) => format!("term {} flush {} commit {} busy {}", it.term(), it.flush_lsn(), it.commit_lsn(), it.busy()),
        };
        let leaders = self.leaders.iter().filter(|leader| !leader.dead);
        let leaders: Vec<_> = leaders.map(|it| format!("{:?} flushed {}", it.proposer, it.flushed)).collect();
        format!("{:?} {leaders:?}", self.nodes.iter().map(node).collect::<Vec<_>>())
    }

    fn go_on_until(&mut self, deadline: u64, done: impl Fn(&World) -> bool) {
        while self.now < deadline && !done(self) {
            let Some(((at, _), event)) = self.events.pop_first() else {
                return;
            };
            self.now = at;
            self.happen(event);
            if self.sequence.is_multiple_of(16) {
                self.oracle.check(&self.nodes);
            }
        }
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToNode { node, conn, message } => {
                self.nodes[node].receive(conn, message);
                self.look_at(node);
            }
            Event::FromNode { conn, message } => self.leader_receives(conn, message),
            Event::WorkDone { node, boot } if self.nodes[node].boot == boot => {
                self.nodes[node].work_done();
                self.look_at(node);
            }
            Event::Pull { node, boot } if self.nodes[node].boot == boot => self.pull(node),
            Event::Pulled { node, boot, term, begin, wal } if self.nodes[node].boot == boot => {
                self.nodes[node].recovered(term, begin, &wal);
                self.look_at(node);
            }
            Event::WorkDone { .. } | Event::Pull { .. } | Event::Pulled { .. } => {}
            Event::Restart { node } => {
                if self.nodes[node].acceptor.is_none() {
                    self.nodes[node].start();
                }
            }
            Event::Step { leader } => self.step(leader),
            Event::Mischief => self.mischief(),
        }
    }

    /// Sends what a node said, starts the clock of what its disk does.
    fn look_at(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        let boot = node.boot;
        for (conn, message) in std::mem::take(&mut node.replies) {
            let Some((leader, _)) = self.conns.get(&conn).copied() else {
                continue;
            };
            self.send(Place::Node(id), Place::Leader(leader), move || Event::FromNode { conn, message: message.clone() });
        }
        if std::mem::take(&mut self.nodes[id].work_began) {
            let slow = self.random.chance(50);
            let delay = self.random.between(0, if slow { 150 } else { 6 });
            self.after(delay, Event::WorkDone { node: id, boot });
        }
        if self.nodes[id].wants.take().is_some() {
            self.after(1, Event::Pull { node: id, boot });
        }
    }

    /// A node that lags asks a peer, until it has what it needs.
    fn pull(&mut self, id: usize) {
        let boot = self.nodes[id].boot;
        let Some(recovery) = self.nodes[id].acceptor.as_ref().and_then(|acceptor| acceptor.recovery()) else {
            return;
        };
        let peer = self.random.below(NODES);
        let serves = |acceptor: &ironpage_consensus::Acceptor| {
            acceptor.may_serve_uncommitted(recovery.term) && acceptor.flush_lsn() >= recovery.until
        };
        if peer != id && self.nodes[peer].acceptor.as_ref().is_some_and(serves) {
            let until = Lsn(self.random.between(recovery.from.0, recovery.until.0));
            let wal = self.nodes[peer].wal.range(recovery.from, until).to_vec();
            let (begin, term) = (recovery.from, recovery.term);
            self.send(Place::Node(peer), Place::Node(id), move || Event::Pulled {
                node: id,
                boot,
                term,
                begin,
                wal: wal.clone(),
            });
        }
        self.after(10, Event::Pull { node: id, boot });
    }

    fn send(&mut self, from: Place, to: Place, event: impl Fn() -> Event) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let Some(faults) = self.faults else {
            self.after(1, event());
            return;
        };
        if self.random.chance(faults.loss) {
            return;
        }
        let copies = if self.random.chance(faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let late = self.random.chance(faults.reorder);
            let delay = if late { self.random.between(2, 400) } else { 2 };
            self.after(delay, event());
        }
    }

    fn new_leader(&mut self) {
        let leader = Leader::new(NODES, &mut self.random);
        self.leaders.push(leader);
        let leader = self.leaders.len() - 1;
        self.after(1, Event::Step { leader });
    }

    /// A leader's clock.
    fn step(&mut self, id: usize) {
        let leader = &mut self.leaders[id];
        if leader.dead {
            return;
        }
        if leader.launched() && (self.faults.is_none() || self.random.chance(300)) {
            leader.resume(&mut self.random, self.now);
        }
        leader.write(&mut self.random, self.now);
        leader.proposer.tick(self.now, &mut leader.actions);
        for member in 0..NODES {
            let waits = self.leaders[id].proposer.stage(member) == Stage::Absent;
            if self.leaders[id].conns[member].is_none() || (waits && self.random.chance(50)) {
                self.connect(id, member);
            }
        }
        self.take_actions(id);
        self.after(7, Event::Step { leader: id });
    }

    fn connect(&mut self, leader: usize, member: usize) {
        let conn = ConnId(self.conns.len() as u64 + 1);
        self.conns.insert(conn, (leader, member));
        if let Some(old) = self.leaders[leader].conns[member].replace(conn) {
            let gone = move || Event::ToNode { node: member, conn: old, message: ToNode::Gone };
            self.send(Place::Leader(leader), Place::Node(member), gone);
        }
        let hello = move || Event::ToNode { node: member, conn, message: ToNode::Hello };
        self.send(Place::Leader(leader), Place::Node(member), hello);
    }

    fn leader_receives(&mut self, conn: ConnId, message: FromNode) {
        let Some((id, member)) = self.conns.get(&conn).copied() else {
            return;
        };
        let leader = &mut self.leaders[id];
        if leader.dead || leader.conns[member] != Some(conn) {
            return;
        }
        leader.receive(member, message, self.now).unwrap_or_else(|error| panic!("a leader found: {error}"));
        self.take_actions(id);
    }

    fn take_actions(&mut self, id: usize) {
        for action in std::mem::take(&mut self.leaders[id].actions) {
            let leader = &mut self.leaders[id];
            match action {
                Action::Send { member, term, message } => {
                    let Some(conn) = leader.conns[member] else {
                        continue;
                    };
                    let message = match message {
                        Message::VoteRequest => {
                            self.stood.entry(term).or_default().insert(id);
                            ToNode::Vote(term)
                        }
                        Message::Elected(history) => ToNode::Elected(term, history),
                        Message::Append { begin, length, commit } => {
                            let wal = leader.wal.as_ref().filter(|_| length > 0);
                            let wal = wal.map_or(Vec::new(), |wal| wal.range(begin, begin + length as u64).to_vec());
                            ToNode::Append { term, begin, commit, wal }
                        }
                    };
                    let event = move || Event::ToNode { node: member, conn, message: message.clone() };
                    self.send(Place::Leader(id), Place::Node(member), event);
                }
                Action::Disconnect { member, .. } => {
                    leader.conns[member] = None;
                    leader.proposer.disconnected(member);
                }
                Action::Won { term, start } => self.oracle.won(id, term, start),
                Action::Committed(commit) => {
                    let term = leader.term();
                    self.oracle.committed(term, commit, leader.wal.as_ref(), &self.nodes);
                }
                Action::Lost { .. } | Action::Fenced { .. } => {
                    self.seen.lost += u64::from(matches!(action, Action::Lost { .. }));
                    leader.dead = true;
                    if self.faults.is_none() {
                        self.new_leader();
                    }
                }
            }
        }
    }

    fn mischief(&mut self) {
        let Some(faults) = self.faults else {
            return;
        };
        let all = self.random.chance(faults.all_crash);
        for node in 0..NODES {
            if (all || self.random.chance(faults.node_crash)) && self.nodes[node].acceptor.is_some() {
                self.nodes[node].crash(&mut self.random);
                let down = self.random.between(1, 300);
                self.after(down, Event::Restart { node });
            }
            self.nodes[node].persist_commit();
            self.look_at(node);
        }
        let alive: Vec<usize> = (0..self.leaders.len()).filter(|id| !self.leaders[*id].dead).collect();
        for id in &alive {
            if self.random.chance(faults.leader_death) {
                self.leaders[*id].dead = true;
            } else if self.leaders[*id].wal.is_some() && self.random.chance(faults.worker_restart) {
                self.leaders[*id].resume(&mut self.random, self.now);
                self.take_actions(*id);
            }
        }
        if alive.is_empty() || (alive.len() < 4 && self.random.chance(faults.new_leader)) {
            self.new_leader();
        }
        if self.random.chance(faults.heal) {
            self.cut.clear();
        }
        if self.random.chance(faults.partition) {
            self.partition(&alive);
        }
        self.after(20, Event::Mischief);
    }

    /// Cuts a node or a leader off from some others, one way or both.
    fn partition(&mut self, alive: &[usize]) {
        let node = Place::Node(self.random.below(NODES));
        let mut others: Vec<Place> = (0..NODES).map(Place::Node).collect();
        others.extend(alive.iter().map(|id| Place::Leader(*id)));
        for other in others {
            if self.random.chance(400) {
                self.cut.insert((node, other));
            }
            if self.random.chance(400) {
                self.cut.insert((other, node));
            }
        }
    }
}
