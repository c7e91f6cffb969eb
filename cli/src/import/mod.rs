//! Stock Postgres into a tenant's first branch: a data directory that was shut down cleanly, streamed to the pageserver
//! item by item. Whatever else can be imported becomes such a directory first; so does the template of `ironpage up`.

mod data_dir;
mod relation_file;
mod sender;
mod walk;

pub use data_dir::DataDirectory;
pub use walk::Report;

use crate::client::{Identity, Peer};
use crate::error::Result;
use ironpage_layout::Lsn;
use ironpage_layout::wire::admin::{KIND_BRANCH, TimelineCreate};
use sender::Sender;

/// Makes a timeline out of `source`, durable and known under `name` when this returns. Safe to repeat.
pub fn timeline(peer: &Peer, identity: Identity, name: &str, source: &DataDirectory) -> Result<Report> {
    let create = TimelineCreate {
        tenant: identity.tenant,
        timeline: identity.timeline,
        start_lsn: source.start_lsn,
        prev_record_lsn: source.prev_record_lsn,
        system_id: identity.system_id,
        postgres_version: identity.postgres_version,
        name: name.to_string(),
        readable_lsn: Lsn::INVALID,
        kind: KIND_BRANCH,
        prefix_length: 0,
    };
    let mut sender = Sender::begin(peer, identity, &create, walk::size_of(source)?)?;
    let report = walk::send(source, &mut sender)?;
    source.check_unchanged()?;
    sender.finish()?;
    Ok(report)
}
