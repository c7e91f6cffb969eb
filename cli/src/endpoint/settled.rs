//! WAL that is known to be committed, of a timeline that may have no primary.
//!
//! Safekeepers give committed WAL to anybody. But how far that reaches they know from the last primary, and remember a little
//! late: after a crash of all of them it stands before what was committed, until the next election. Then the bytes come
//! from the donor that election would have: of a quorum the one with the newest log, which has all that was ever committed.

use super::wal;
use crate::client::{Client, Identity, Peer};
use crate::error::{Error, Result};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::append::VoteReply;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::{Lsn, Term};
use std::time::Duration;

/// How long a safekeeper may take to say where it stands.
const GREETING: Duration = Duration::from_secs(1);

/// Where one safekeeper stands.
struct Standing<'a> {
    peer: &'a Peer,
    term: Term,
    state: VoteReply,
}

/// WAL from `from` to `until`, which is known to be committed, out of `peers`; `quorum` of all safekeepers decide.
pub fn read(peers: &[Peer], quorum: usize, identity: Identity, from: Lsn, until: Lsn) -> Result<Vec<u8>> {
    let mut reasons = Vec::new();
    let mut standings = Vec::new();
    for peer in peers {
        match greet(peer, identity) {
            Ok(standing) => standings.push(standing),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    for standing in standings.iter().filter(|standing| standing.state.commit_lsn >= until) {
        match wal::read_committed(standing.peer, identity, from, until) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let donor = standings.iter().max_by_key(|standing| {
        let flush_lsn = standing.state.flush_lsn;
        (standing.state.history.term_at(flush_lsn), flush_lsn)
    });
    match donor.filter(|donor| standings.len() >= quorum && donor.state.flush_lsn >= until) {
        Some(donor) => match wal::read_flushed(donor.peer, identity, donor.term, from, until) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => reasons.push(error.to_string()),
        },
        None => {
            let stand = standings.iter().map(|standing| format!("{} has {}", standing.peer.name, standing.state.flush_lsn));
            reasons.extend(stand);
        }
    }
    Err(Error::Endpoint(format!("no safekeeper gives the WAL from {from} to {until}: {}", reasons.join("; "))))
}

/// A greeting is for candidates; this one asks for no vote.
fn greet(peer: &Peer, identity: Identity) -> Result<Standing<'_>> {
    let mut client = Client::connect(peer, Role::Proposer, identity, GREETING)?;
    let (header, payload) = client.expect(Kind::Greeting, "Greeting")?;
    let state = VoteReply::decode(&payload).map_err(|error| peer.wire(error))?;
    Ok(Standing { peer, term: header.term, state })
}
