//! The WAL a fresh data directory starts from: its segment up to X, and one checkpoint record at X.

use super::paths::DataDir;
use crate::client::{Client, Identity, Peer};
use crate::error::{AtPath, Error, Result};
use ironpage_layout::lsn::WAL_PAGE_SIZE;
use ironpage_layout::postgres::wal::checkpoint::CheckpointWal;
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::walstream::{WalData, WalStart};
use ironpage_layout::{Lsn, Term};
use std::io::Write;
use std::time::Duration;
use zerocopy::little_endian::{U32, U64};

/// Longest silence of a safekeeper.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// WAL from `from` to `until`, which is committed, from the first of `peers` that gives it.
pub fn read(peers: &[Peer], identity: Identity, term: Term, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    if from >= until {
        return Ok(Vec::new());
    }
    let mut reasons = Vec::new();
    for peer in peers {
        match read_from(peer, identity, term, Upto::Commit, from, until) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(Error::Endpoint(format!("no safekeeper gives the WAL from {from} to {until}: {}", reasons.join("; "))))
}

/// What a safekeeper gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Upto {
    Commit,
    /// All that is on its disk, as part of the log of the term that is given.
    Flush,
}

/// WAL that one safekeeper knows to be committed.
pub fn read_committed(peer: &Peer, identity: Identity, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    read_from(peer, identity, Term(0), Upto::Commit, from, until)
}

/// WAL that one safekeeper holds, which has accepted `term` and no higher one.
pub fn read_flushed(peer: &Peer, identity: Identity, term: Term, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    read_from(peer, identity, term, Upto::Flush, from, until)
}

fn read_from(peer: &Peer, identity: Identity, term: Term, upto: Upto, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    let mut client = Client::connect(peer, Role::WalReader, identity, SILENCE_MAX)?;
    let start = WalStart {
        from: U64::new(from.0),
        until: U64::new(until.0),
        uncommitted: U32::new(u32::from(upto == Upto::Flush)),
        reserved: U32::ZERO,
    };
    client.send(Kind::WalStart, 1, term, |out| start.encode(out))?;
    let mut bytes: Vec<u8> = Vec::with_capacity(until.since(from) as usize);
    // A keepalive with nothing new says that this one does not have it: a quorum has, ask the next.
    let mut keepalives = 0;
    while from + (bytes.len() as u64) < until {
        let (header, payload) = client.receive()?;
        match header.kind {
            Kind::WalData => {
                let (head, wal) = WalData::decode_prefix(&payload).map_err(|error| peer.wire(error))?;
                let (expected, got) = (from + bytes.len() as u64, Lsn(head.begin_lsn.get()));
                if got != expected || wal.len() as u64 > until.since(expected) {
                    return Err(Error::Endpoint(format!(
                        "{} sent {} bytes of WAL from {got}, asked for {expected}",
                        peer.name,
                        wal.len()
                    )));
                }
                bytes.extend_from_slice(wal);
            }
            Kind::WalKeepalive if keepalives < 3 => keepalives += 1,
            Kind::WalKeepalive => return Err(Error::Endpoint(format!("{} does not have it", peer.name))),
            other => return Err(client.unexpected(other, "WalData")),
        }
    }
    Ok(bytes)
}

/// `prefix` without the whole pages of zeros it may begin with: what lies before a timeline's own WAL is not kept.
pub fn without_leading_zeros(prefix: &[u8]) -> &[u8] {
    let zero_pages = prefix.chunks_exact(WAL_PAGE_SIZE as usize).take_while(|page| page.iter().all(|byte| *byte == 0)).count();
    prefix.get(zero_pages * WAL_PAGE_SIZE as usize..).unwrap_or_default()
}

/// Puts the WAL a server starts with into its data directory.
pub fn write(data_dir: &DataDir, wal: &CheckpointWal) -> Result<()> {
    for (name, bytes) in wal.files() {
        let path = data_dir.path.join("pg_wal").join(name);
        data_dir.owner.create_file(&path)?.write_all(bytes).at("write", &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_never_kept_are_no_prefix() {
        let page = WAL_PAGE_SIZE as usize;
        let mut wal = vec![0; 3 * page + 100];
        wal[page + 5] = 1;
        assert_eq!(without_leading_zeros(&wal).len(), 2 * page + 100);
        assert_eq!(without_leading_zeros(&[0; 100]).len(), 100);
        assert_eq!(without_leading_zeros(&[]), [] as [u8; 0]);
    }
}
