//! The connection an import goes through: items, and how far it has come.

use crate::client::{Client, Identity, Peer};
use crate::error::{Error, Result};
use crate::progress;
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::admin::{ImportEnd, TimelineCreate};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::{BlockNumber, Fork, RelTag, Term};
use std::time::{Duration, Instant};
use zerocopy::little_endian::U64;

/// How long the pageserver may take for one step: it flushes what it has before it takes more.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a long import says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// An import under way. Nothing of it is seen before [`Sender::finish`]; a connection that breaks off undoes it.
pub struct Sender {
    client: Client,
    items: u64,
    /// Bytes of relations read so far, of about so many.
    done: u64,
    total: u64,
    told: Instant,
}

impl Sender {
    /// Begins the import of a timeline; `total` is about how many bytes its relations have.
    pub fn begin(peer: &Peer, identity: Identity, create: &TimelineCreate, total: u64) -> Result<Sender> {
        let client = Client::connect(peer, Role::Admin, identity, PATIENCE)?;
        let mut sender = Sender { client, items: 0, done: 0, total, told: Instant::now() };
        sender.send(Kind::TimelineCreate, |out| create.encode(out))?;
        Ok(sender)
    }

    pub fn item(&mut self, item: &Item<'_>) -> Result<()> {
        self.items += 1;
        self.send(Kind::ImportItem, |out| item.encode(out))
    }

    /// Pages of a fork from `block` on. What is not sent is zeros, so zeros are not.
    pub fn pages(&mut self, rel: RelTag, fork: Fork, block: BlockNumber, pages: &[u8]) -> Result<()> {
        if pages.iter().any(|byte| *byte != 0) {
            self.item(&Item::RelPages { rel, fork, block, pages })?;
        }
        self.done += pages.len() as u64;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            progress::line(&format!(
                "  {} of {} imported",
                progress::bytes(self.done),
                progress::bytes(self.total.max(self.done))
            ));
        }
        Ok(())
    }

    /// Ends the import. The timeline is durable when this returns.
    pub fn finish(mut self) -> Result<()> {
        let items = self.items;
        self.send(Kind::ImportEnd, |out| ImportEnd { items: U64::new(items), readable_lsn: U64::ZERO }.encode(out))?;
        self.client.expect(Kind::TimelineCreated, "TimelineCreated").map(drop)
    }

    fn send(&mut self, kind: Kind, payload: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let Err(error) = self.client.send(kind, 1, Term(0), payload) else { return Ok(()) };
        // Whoever refuses an import says why before it closes the connection.
        match self.client.receive() {
            Err(refusal @ Error::Remote { .. }) => Err(refusal),
            _ => Err(error),
        }
    }
}
