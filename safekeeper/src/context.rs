//! What every part of the daemon shares.

use ironpage_consensus::ConnId;
use ironpage_daemon::cli::Address;
use ironpage_layout::NodeId;
use std::cell::Cell;

/// The daemon's identity, its peers and its counters.
pub struct Context {
    pub node: NodeId,
    pub peers: Vec<Address>,
    pub counters: Counters,
    /// Prefixes of new timelines in memory.
    pub prefixes: Cell<usize>,
    last_conn: Cell<u64>,
}

impl Context {
    pub fn new(node: NodeId, peers: Vec<Address>) -> Context {
        Context { node, peers, counters: Counters::default(), prefixes: Cell::new(0), last_conn: Cell::new(0) }
    }

    /// A number no connection had before.
    pub fn next_conn(&self) -> ConnId {
        self.last_conn.set(self.last_conn.get() + 1);
        ConnId(self.last_conn.get())
    }
}

/// A number that only grows; of one core, so a plain cell.
#[derive(Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What the daemon counts, by the names `Status` reports.
        #[derive(Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter),* }

        impl Counters {
            /// All counters by name.
            pub fn all(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($name).to_string(), self.$name.get())),*]
            }
        }
    };
}

counters! {
    /// Bytes of WAL taken in.
    appended_bytes,
    /// Append frames handled, heartbeats included.
    appends,
    /// Flushes of WAL; appends over flushes is what group commit gains.
    flushes,
    /// Control files written.
    control_writes,
    /// Bytes of WAL sent to readers.
    streamed_bytes,
    /// Bytes of WAL pulled from peers.
    recovered_bytes,
    /// Connections welcomed.
    connections,
    /// Connections that ended with an error of the other side's making.
    connections_refused,
}
