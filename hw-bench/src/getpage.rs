//! Page reads over the page protocol, driven by our own minimal client.

use crate::client::Client;
use crate::latency::{Random, Summary, closed_loop};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::pages::{Class, GetPages, Pages};
use ironpage_layout::{Lsn, RelTag, TenantId, TimelineId};
use std::time::Duration;
use zerocopy::little_endian::{U32, U64};

/// Whose pages are read, and at which LSN.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub lsn: Lsn,
    pub rel: RelTag,
    pub blocks: u32,
}

/// Uniform single-page reads of the target by `clients` connections, each waiting for its answer.
pub fn random_reads(address: &str, target: Target, clients: usize, time: Duration) -> anyhow::Result<Summary> {
    let start = |number| Ok((Random::new(number), Client::connect(address, Role::PageReader, target.tenant, target.timeline)?));
    closed_loop(clients, time, start, |(random, client)| {
        let request = GetPages {
            tablespace: U32::new(target.rel.tablespace),
            database: U32::new(target.rel.database),
            relation: U32::new(target.rel.relation),
            fork: 0,
            class: Class::Normal as u8,
            reserved: [0; 2],
            block: U32::new(random.below(u64::from(target.blocks)) as u32),
            count: U32::new(1),
            request_lsn: U64::new(target.lsn.0),
            not_modified_since: U64::new(target.lsn.0),
            wait_ms_max: U32::new(10_000),
            reserved2: U32::ZERO,
        };
        let payload = client.ask(Kind::GetPages, |out| request.encode(out), Kind::Pages)?;
        Pages::decode_with(payload)?;
        Ok(())
    })
}
