//! Administration of both daemons, on `Admin` connections.

use super::{WireError, payload};
use crate::id::{NodeId, TenantId, Term, TimelineId};
use crate::lsn::{Lsn, WAL_SEGMENT_SIZE};
use zerocopy::little_endian::{U32, U64};

/// Longest branch name in bytes: Postgres's own limit for names (NAMEDATALEN - 1).
pub const MAX_NAME: usize = 63;

payload! {
    RawTimelineCreate, 80 {
        tenant: [u8; 16],
        timeline: [u8; 16],
        start_lsn: U64,
        prev_record_lsn: U64,
        system_id: U64,
        postgres_version: U32,
        name_length: U32,
        readable_lsn: U64,
        kind: U32,
        prefix_length: U32,
    }
}

/// `TimelineCreate::kind` of an ordinary branch.
pub const KIND_BRANCH: u32 = 0;
/// `TimelineCreate::kind` of a branch that follows a server which is not ours.
pub const KIND_FOLLOW: u32 = 3;

/// Makes a timeline. A repeat with the same properties succeeds; with others it is `Exists`. The name is a label: a repeat
/// may have another.
///
/// To a safekeeper the last `prefix_length` bytes of WAL before `start_lsn` follow in `TimelinePrefix` frames, none if it is 0;
/// the timeline exists once `TimelineCreated` has answered the last of them. To a pageserver `prefix_length` is 0; `ImportItem`
/// frames and an `ImportEnd` follow, and the timeline exists once `TimelineCreated` has answered that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineCreate {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    /// Start of the record that ends at `start_lsn`.
    pub prev_record_lsn: Lsn,
    pub system_id: u64,
    /// PG_VERSION_NUM.
    pub postgres_version: u32,
    /// Name of the branch.
    pub name: String,
    /// Pageserver: below it the imported pages are not those of one moment (a base backup before its end), and nothing may
    /// be read or branched. 0 for `start_lsn`; else not below it.
    pub readable_lsn: Lsn,
    /// Pageserver: what kind of branch it becomes, `KIND_BRANCH` or `KIND_FOLLOW`.
    pub kind: u32,
    /// Safekeeper: bytes of WAL that follow, from a WAL page boundary of `start_lsn`'s segment to `start_lsn`. What lies
    /// before them in the segment reads as zeros.
    pub prefix_length: u32,
}

/// Longest prefix of WAL a timeline can be given: less than its segment.
pub const MAX_PREFIX: u32 = WAL_SEGMENT_SIZE as u32 - 1;

impl TimelineCreate {
    pub fn encode(&self, out: &mut Vec<u8>) {
        RawTimelineCreate {
            tenant: self.tenant.0,
            timeline: self.timeline.0,
            start_lsn: U64::new(self.start_lsn.0),
            prev_record_lsn: U64::new(self.prev_record_lsn.0),
            system_id: U64::new(self.system_id),
            postgres_version: U32::new(self.postgres_version),
            name_length: U32::new(self.name.len() as u32),
            readable_lsn: U64::new(self.readable_lsn.0),
            kind: U32::new(self.kind),
            prefix_length: U32::new(self.prefix_length),
        }
        .encode(out);
        out.extend_from_slice(self.name.as_bytes());
    }

    pub fn decode(payload: &[u8]) -> Result<TimelineCreate, WireError> {
        let bad = |why| WireError::BadPayload { what: "TimelineCreate", why };
        let (raw, name) = RawTimelineCreate::decode_prefix(payload)?;
        if name.is_empty() || name.len() > MAX_NAME || name.len() != raw.name_length.get() as usize {
            return Err(bad("the name is empty, over 63 bytes, or not of the length given"));
        }
        if raw.prefix_length.get() > MAX_PREFIX {
            return Err(bad("the WAL prefix is longer than a segment"));
        }
        if raw.readable_lsn.get() != 0 && raw.readable_lsn.get() < raw.start_lsn.get() {
            return Err(bad("it is readable before it starts"));
        }
        if ![KIND_BRANCH, KIND_FOLLOW].contains(&raw.kind.get()) {
            return Err(bad("unknown kind of branch"));
        }
        Ok(TimelineCreate {
            tenant: TenantId(raw.tenant),
            timeline: TimelineId(raw.timeline),
            start_lsn: Lsn(raw.start_lsn.get()),
            prev_record_lsn: Lsn(raw.prev_record_lsn.get()),
            system_id: raw.system_id.get(),
            postgres_version: raw.postgres_version.get(),
            name: std::str::from_utf8(name).map_err(|_| bad("the name is not UTF-8"))?.to_string(),
            readable_lsn: Lsn(raw.readable_lsn.get()),
            kind: raw.kind.get(),
            prefix_length: raw.prefix_length.get(),
        })
    }
}

payload! {
    /// WAL of a new timeline's prefix from `begin_lsn` on follows, `MAX_WAL_CHUNK` bytes at most. In order, without gaps.
    TimelinePrefix, 8 { begin_lsn: U64 }
}

payload! {
    /// The timeline is durable here. Nothing follows.
    TimelineCreated, 8 { reserved: U64 }
}

payload! {
    /// Removes a timeline from a safekeeper; one that is not there is removed already. Nothing follows.
    TimelineDelete, 32 { tenant: [u8; 16], timeline: [u8; 16] }
}

payload! {
    /// The timeline is gone, and would be after a crash. Nothing follows.
    TimelineDeleted, 8 { reserved: U64 }
}

payload! {
    /// Ends an import.
    ImportEnd, 16 {
        /// How many items were sent.
        items: U64,
        /// As in `TimelineCreate`, for those who learn it only at the end of their base backup; the greater of both counts.
        readable_lsn: U64,
    }
}

payload! {
    /// Asks for the state of all timelines. Answered by `StatusReply`.
    Status, 8 { reserved: U64 }
}

/// A daemon's state, as UTF-8 text of `key=value` lines: one line per timeline and counter group, so
/// that it can grow without a new layout. Fields are space-separated; values have no spaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusReply {
    pub node: NodeId,
    pub timelines: Vec<TimelineStatus>,
    /// Process-wide counters by name.
    pub counters: Vec<(String, u64)>,
}

/// A timeline as one daemon sees it; what does not concern that daemon is 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TimelineStatus {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub name: String,
    pub term: Term,
    /// Safekeeper: end of flushed WAL.
    pub flush_lsn: Lsn,
    /// Safekeeper: end of committed WAL.
    pub commit_lsn: Lsn,
    /// Pageserver: end of the last record ingested.
    pub last_record_lsn: Lsn,
    /// Pageserver: all before it is in layer files.
    pub disk_consistent_lsn: Lsn,
    /// Pageserver: bytes of all relations at `last_record_lsn`.
    pub logical_size: u64,
    /// Why the timeline stopped, empty if it runs. May contain spaces; it ends its line.
    pub stopped: String,
}

impl StatusReply {
    pub fn encode(&self, out: &mut Vec<u8>) {
        use std::fmt::Write;
        let mut text = format!("node={}\n", self.node);
        for t in &self.timelines {
            let _ = writeln!(
                text,
                "timeline={} tenant={} name={} term={} flush_lsn={} commit_lsn={} last_record_lsn={} disk_consistent_lsn={} logical_size={} stopped={}",
                t.timeline,
                t.tenant,
                t.name,
                t.term,
                t.flush_lsn,
                t.commit_lsn,
                t.last_record_lsn,
                t.disk_consistent_lsn,
                t.logical_size,
                t.stopped.replace('\n', " ")
            );
        }
        for (name, value) in &self.counters {
            let _ = writeln!(text, "counter={name} value={value}");
        }
        out.extend_from_slice(text.as_bytes());
    }

    pub fn decode(payload: &[u8]) -> Result<StatusReply, WireError> {
        let bad = |why| WireError::BadPayload { what: "StatusReply", why };
        let text = std::str::from_utf8(payload).map_err(|_| bad("not UTF-8"))?;
        let mut reply = StatusReply { node: NodeId(0), timelines: Vec::new(), counters: Vec::new() };
        for line in text.lines() {
            let mut timeline = TimelineStatus::default();
            let mut counter = (String::new(), 0);
            let (line, stopped) = line.split_once(" stopped=").unwrap_or((line, ""));
            for field in line.split(' ') {
                let (key, value) = field.split_once('=').ok_or(bad("a field without '='"))?;
                let number = || value.parse::<u64>().map_err(|_| bad("not a number"));
                let lsn = || value.parse::<Lsn>().map_err(|_| bad("not an LSN"));
                match key {
                    "node" => reply.node = NodeId(number()?),
                    "timeline" => timeline.timeline = value.parse().map_err(|_| bad("not a timeline id"))?,
                    "tenant" => timeline.tenant = value.parse().map_err(|_| bad("not a tenant id"))?,
                    "name" => timeline.name = value.to_string(),
                    "term" => timeline.term = Term(number()?),
                    "flush_lsn" => timeline.flush_lsn = lsn()?,
                    "commit_lsn" => timeline.commit_lsn = lsn()?,
                    "last_record_lsn" => timeline.last_record_lsn = lsn()?,
                    "disk_consistent_lsn" => timeline.disk_consistent_lsn = lsn()?,
                    "logical_size" => timeline.logical_size = number()?,
                    "counter" => counter.0 = value.to_string(),
                    "value" => counter.1 = number()?,
                    _ => {}
                }
            }
            if line.starts_with("timeline=") {
                timeline.stopped = stopped.to_string();
                reply.timelines.push(timeline);
            } else if line.starts_with("counter=") {
                reply.counters.push(counter);
            }
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_and_states_round_trip() {
        let create = TimelineCreate {
            tenant: TenantId([1; 16]),
            timeline: TimelineId([2; 16]),
            start_lsn: Lsn(0x1000028),
            prev_record_lsn: Lsn(0x1000000),
            system_id: 9,
            postgres_version: 150020,
            name: "main".into(),
            readable_lsn: Lsn(0x1000100),
            kind: 3,
            prefix_length: MAX_PREFIX,
        };
        let mut bytes = Vec::new();
        create.encode(&mut bytes);
        assert_eq!(TimelineCreate::decode(&bytes), Ok(create.clone()));
        let mut longer = Vec::new();
        TimelineCreate { prefix_length: MAX_PREFIX + 1, ..create }.encode(&mut longer);
        assert!(TimelineCreate::decode(&longer).is_err(), "more WAL than a segment holds");
        assert!(TimelineCreate::decode(&bytes[..bytes.len() - 1]).is_err());

        let timeline = TimelineStatus {
            timeline: TimelineId([2; 16]),
            name: "main".into(),
            term: Term(3),
            last_record_lsn: Lsn(77),
            stopped: "record of rmgr 99 at 0/1".into(),
            ..TimelineStatus::default()
        };
        let reply = StatusReply { node: NodeId(4), timelines: vec![timeline], counters: vec![("getpages".into(), 12)] };
        bytes.clear();
        reply.encode(&mut bytes);
        assert_eq!(StatusReply::decode(&bytes), Ok(reply));
    }
}
