//! What the command line asks of one safekeeper: to make a timeline, and to remove one.

use crate::client::{Client, Identity, Peer};
use crate::error::Result;
use ironpage_layout::lsn::WAL_PAGE_SIZE;
use ironpage_layout::wire::admin::{TimelineCreate, TimelineDelete, TimelinePrefix};
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{Kind, MAX_WAL_CHUNK};
use ironpage_layout::{Lsn, Term};
use std::time::Duration;

/// How long a safekeeper may take to make a timeline durable, or to remove it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where a new timeline starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    pub lsn: Lsn,
    /// Start of the record that ends there.
    pub prev_record_lsn: Lsn,
}

/// A connection for administration; `patience` bounds the hello.
pub fn connect(peer: &Peer, identity: Identity, patience: Duration) -> Result<Client> {
    let client = Client::connect(peer, Role::Admin, identity, patience)?;
    client.set_timeouts(TIMEOUT)?;
    Ok(client)
}

/// Makes a timeline with `wal`, which ends at its start and begins in the same segment. Safe to repeat.
pub fn create_timeline(mut client: Client, identity: Identity, name: &str, start: Start, wal: &[u8]) -> Result<()> {
    let prefix = without_leading_zeros(start.lsn, wal);
    let create = TimelineCreate {
        tenant: identity.tenant,
        timeline: identity.timeline,
        start_lsn: start.lsn,
        prev_record_lsn: start.prev_record_lsn,
        system_id: identity.system_id,
        postgres_version: identity.postgres_version,
        name: name.to_string(),
        readable_lsn: Lsn::INVALID,
        kind: 0,
        prefix_length: prefix.len() as u32,
    };
    client.send(Kind::TimelineCreate, 1, Term(0), |out| create.encode(out))?;
    let mut begin = start.lsn.0 - prefix.len() as u64;
    for chunk in prefix.chunks(MAX_WAL_CHUNK) {
        client.send(Kind::TimelinePrefix, 1, Term(0), |out| {
            TimelinePrefix { begin_lsn: begin.into() }.encode(out);
            out.extend_from_slice(chunk);
        })?;
        begin += chunk.len() as u64;
    }
    client.expect(Kind::TimelineCreated, "TimelineCreated").map(drop)
}

/// Removes a timeline; succeeds if it is not there.
pub fn delete_timeline(peer: &Peer, identity: Identity) -> Result<()> {
    let delete = TimelineDelete { tenant: identity.tenant.0, timeline: identity.timeline.0 };
    let mut client = connect(peer, identity, TIMEOUT)?;
    client.send(Kind::TimelineDelete, 1, Term(0), |out| delete.encode(out))?;
    client.expect(Kind::TimelineDeleted, "TimelineDeleted").map(drop)
}

/// `wal`, which ends at `end`, from the first page on that has a bit set: what lies before reads as zeros anyway.
fn without_leading_zeros(end: Lsn, wal: &[u8]) -> &[u8] {
    let begin = Lsn(end.0 - wal.len() as u64);
    let Some(first) = wal.iter().position(|byte| *byte != 0) else { return &[] };
    let page = (begin + first as u64).page_start().max(begin);
    debug_assert!(page == begin || page.0.is_multiple_of(WAL_PAGE_SIZE));
    wal.get(page.since(begin) as usize..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_zeros_before_the_first_record_are_left_out() {
        let end = Lsn(0x0100_6010);
        let mut wal = vec![0; 0x6010];
        assert!(without_leading_zeros(end, &wal).is_empty());
        wal[0x2005] = 1;
        assert_eq!(without_leading_zeros(end, &wal), &wal[0x2000..]);
        wal[0] = 1;
        assert_eq!(without_leading_zeros(end, &wal), &wal[..]);
        assert!(without_leading_zeros(end, &[]).is_empty());
    }
}
