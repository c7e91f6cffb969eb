//! What the daemon says of itself.

use super::Service;
use ironpage_layout::wire::admin::{StatusReply, TimelineStatus};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Counters of the port, since the start.
#[derive(Default)]
pub struct Counters {
    /// GetPages requests.
    pub getpages: Cell<u64>,
    /// Pages in answers to them.
    pub pages_served: Cell<u64>,
    /// Requests refused because their term was over.
    pub fenced: Cell<u64>,
}

impl Service {
    pub fn status(&self) -> StatusReply {
        let own = &self.shared.counters;
        let redo = self.shared.branches.timelines().worker().counters();
        let mut counters: BTreeMap<String, u64> = [
            ("getpages", own.getpages.get()),
            ("pages_served", own.pages_served.get()),
            ("fenced", own.fenced.get()),
            ("connections", self.shared.connections.get() as u64),
            ("redo_batches", redo.batches),
            ("redo_records", redo.records),
            ("redo_failures", redo.failures),
            ("redo_worker_starts", redo.starts),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        let mut timelines = Vec::new();
        for timeline in self.shared.branches.timelines().all() {
            let (store, record) = (timeline.store(), timeline.record());
            let sums = [
                ("ingest_records".to_string(), timeline.ingest_records()),
                ("ingest_bytes".to_string(), timeline.ingest_bytes()),
            ];
            for (name, value) in store.counters().into_iter().chain(sums) {
                *counters.entry(name).or_default() += value;
            }
            timelines.push(TimelineStatus {
                tenant: record.tenant,
                timeline: record.timeline,
                name: record.name.clone(),
                term: timeline.term(),
                last_record_lsn: store.last_record_lsn(),
                disk_consistent_lsn: store.disk_consistent_lsn(),
                logical_size: timeline.logical_size().unwrap_or_default(),
                stopped: timeline.stopped().map(|stopped| stopped.why).unwrap_or_default(),
                ..TimelineStatus::default()
            });
        }
        StatusReply { node: self.shared.node, timelines, counters: counters.into_iter().collect() }
    }
}
