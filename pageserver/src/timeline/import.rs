//! A timeline in the making, from the items of a base backup.

use super::{Timeline, TimelineError, Timelines};
use crate::ingest::Head;
use crate::store::{Store, TimelineRecord};
use ironpage_daemon::{info, warn};
use ironpage_io::fs;
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{Key, Lsn, TenantId, TimelineId, Value};
use std::path::PathBuf;
use std::rc::Rc;

/// An import under way. Nobody sees the timeline before [`Import::finish`]; one that is not finished must be
/// given up with [`Import::abandon`], and if the process ends first, the next start removes what it left.
pub struct Import {
    timelines: Timelines,
    name: (TenantId, TimelineId),
    dir: PathBuf,
    store: Store,
    head: Head,
    items: u64,
}

impl Import {
    pub(super) async fn begin(timelines: Timelines, record: TimelineRecord) -> Result<Import, TimelineError> {
        if record.postgres_version / 10_000 != 15 {
            return Err(TimelineError::PostgresVersion { found: record.postgres_version });
        }
        let (start_lsn, prev_record_lsn) = (record.start_lsn, record.prev_record_lsn);
        if prev_record_lsn >= start_lsn || start_lsn.align_up() != start_lsn {
            return Err(TimelineError::StartLsn { start_lsn, prev_record_lsn });
        }
        let name = (record.tenant, record.timeline);
        if !timelines.shared().importing.borrow_mut().insert(name) {
            return Err(TimelineError::Busy { timeline: record.timeline });
        }
        let dir = timelines.shared().config.dir.join(name.0.to_string()).join(name.1.to_string());
        match start(&timelines, &dir, record).await {
            Ok((store, head)) => Ok(Import { timelines, name, dir, store, head, items: 0 }),
            Err(error) => {
                timelines.shared().importing.borrow_mut().remove(&name);
                Err(error)
            }
        }
    }

    /// Takes the next item.
    pub async fn item(&mut self, item: &Item<'_>) -> Result<(), TimelineError> {
        self.store.ready_for_writes().await?;
        self.items += 1;
        let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| self.store.put(key, lsn, &value);
        let result = self.head.import(item, self.store.timeline().start_lsn, &mut sink);
        result.map_err(|error| TimelineError::Item { item: self.items, why: error.to_string() })
    }

    /// Makes the timeline durable, then visible.
    pub async fn finish(&mut self, items_sent: u64) -> Result<Rc<Timeline>, TimelineError> {
        if items_sent != self.items {
            return Err(TimelineError::Incomplete { sent: items_sent, received: self.items });
        }
        self.store.flush().await?;
        let timeline = Timeline::open(self.store.clone(), self.timelines.worker().clone()).await?;
        info!("timeline {} ({}) is imported at {}", self.name.1, timeline.record().name, timeline.store().last_record_lsn());
        self.timelines.add(timeline.clone());
        self.timelines.shared().importing.borrow_mut().remove(&self.name);
        Ok(timeline)
    }

    /// Removes what is there of a timeline that will not be finished.
    pub async fn abandon(self) {
        let Import { timelines, name, dir, store, .. } = self;
        drop(store);
        if let Err(error) = fs::remove_dir_all(&dir).await {
            warn!("cannot remove an import that was cut off: {error}; the next start tries again");
        }
        timelines.shared().importing.borrow_mut().remove(&name);
    }
}

async fn start(timelines: &Timelines, dir: &PathBuf, record: TimelineRecord) -> Result<(Store, Head), TimelineError> {
    if fs::exists(dir).await? {
        fs::remove_dir_all(dir).await?;
    }
    fs::create_dir_all(dir).await?;
    for parent in [dir.parent(), Some(timelines.shared().config.dir.as_path())].into_iter().flatten() {
        fs::sync_dir(parent).await?;
    }
    let head = Head::new(record.start_lsn, record.prev_record_lsn);
    let store = Store::create(dir, record, timelines.shared().config.store.clone()).await?;
    Ok((store, head))
}
