//! What must hold whatever happens.

use super::node::Node;
use super::wal::{START, Wal};
use ironpage_consensus::history;
use ironpage_layout::{Lsn, Term};
use std::collections::BTreeMap;

/// The planted bug acknowledges before it knows of records; what must be caught there is the loss.
fn at_record_end(wal: &Wal, commit: Lsn) {
    if !cfg!(feature = "planted-ack-before-flush") {
        assert_eq!(wal.record_end(commit), commit, "committed up to the middle of a record");
    }
}

pub struct Oracle {
    /// All that was ever reported committed.
    pub committed: Wal,
    /// Who won a term, and where it starts.
    won: BTreeMap<Term, (usize, Lsn)>,
    /// How far the leader of a term committed.
    by_term: BTreeMap<Term, Lsn>,
}

impl Oracle {
    pub fn new() -> Oracle {
        Oracle { committed: Wal::new(START), won: BTreeMap::new(), by_term: BTreeMap::new() }
    }

    pub fn terms_won(&self) -> usize {
        self.won.len()
    }

    pub fn has_winner(&self, term: Term) -> bool {
        self.won.contains_key(&term)
    }

    pub fn won(&mut self, leader: usize, term: Term, start: Lsn) {
        let other = self.won.insert(term, (leader, start));
        assert!(other.is_none(), "two leaders of term {term}: {other:?} and {leader}");
        for (older, commit) in self.by_term.range(..term) {
            assert!(*commit <= start, "term {term} starts at {start}, but term {older} committed up to {commit}");
        }
    }

    /// `term`'s leader, whose own WAL is `wal`, reports all before `commit` to be in a quorum.
    pub fn committed(&mut self, term: Term, commit: Lsn, wal: Option<&Wal>, nodes: &[Node]) {
        let start = self.won.get(&term).expect("a leader has won").1;
        for (later, (_, later_start)) in self.won.range(Term(term.0 + 1)..) {
            assert!(commit <= *later_start, "term {term} committed {commit}, term {later} starts at {later_start}");
        }
        self.by_term.entry(term).and_modify(|known| *known = commit.max(*known)).or_insert(commit);
        let before = nodes
            .iter()
            .filter_map(|node| Some((node, node.acceptor.as_ref()?)))
            .find(|(_, acceptor)| acceptor.may_serve_uncommitted(term) && acceptor.flush_lsn() >= start)
            .map(|(node, _)| node.wal.range(START, start));
        if let Some(before) = before {
            self.agree(START, before);
        }
        if let Some(wal) = wal.filter(|_| commit > start && self.committed.end() >= start) {
            assert!(commit <= wal.end());
            self.agree(start, wal.range(start, commit));
        }
        if commit <= self.committed.end() {
            let whole = Wal { base: START, bytes: self.committed.range(START, commit).to_vec() };
            at_record_end(&whole, commit);
        }
    }

    fn agree(&mut self, from: Lsn, bytes: &[u8]) {
        let known = (self.committed.end().since(from) as usize).min(bytes.len());
        assert_eq!(self.committed.range(from, from + known as u64), &bytes[..known], "committed bytes changed from {from} on");
        self.committed.bytes.extend_from_slice(&bytes[known..]);
    }

    /// Looks at all nodes that are up.
    pub fn check(&self, nodes: &[Node]) {
        let up: Vec<_> = nodes.iter().filter_map(|node| Some((node, node.acceptor.as_ref()?))).collect();
        for (node, acceptor) in &up {
            let commit = acceptor.commit_lsn();
            let agreed = commit.min(self.committed.end());
            assert_eq!(node.wal.range(START, agreed), self.committed.range(START, agreed), "a node's committed bytes differ");
            at_record_end(&node.wal, commit);
        }
        let quiet: Vec<_> = up.iter().filter(|(_, acceptor)| !acceptor.busy()).collect();
        for (one, a) in &quiet {
            for (other, b) in &quiet {
                let common = history::common_point(a.history(), one.wal.end().min(other.wal.end()), b.history());
                assert_eq!(
                    one.wal.range(START, common),
                    other.wal.range(START, common),
                    "logs with one history differ before {common}: {:?} {:?}",
                    a.history(),
                    b.history()
                );
            }
        }
    }
}
