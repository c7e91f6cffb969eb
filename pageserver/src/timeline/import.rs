//! A timeline in the making, from the items of a base backup.

use super::registry::{new_dir, remove_dir};
use super::{Above, Timeline, TimelineError, Timelines};
use crate::ingest::Head;
use crate::store::{Store, TimelineRecord};
use ironpage_daemon::info;
use ironpage_io::fs;
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{Key, Lsn, TenantId, TimelineId, Value};
use std::path::{Path, PathBuf};
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
        timelines.claim(name, None)?;
        let dir = timelines.dir_of(name);
        match start(&timelines, &dir, record).await {
            Ok((store, head)) => Ok(Import { timelines, name, dir, store, head, items: 0 }),
            Err(error) => {
                timelines.release(name);
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

    /// Makes the timeline durable, then visible. `readable_lsn` counts if it is above that of the record the import began with.
    pub async fn finish(&mut self, items_sent: u64, readable_lsn: Lsn) -> Result<Rc<Timeline>, TimelineError> {
        if items_sent != self.items {
            return Err(TimelineError::Incomplete { sent: items_sent, received: self.items });
        }
        let mut sink = |key: Key, lsn: Lsn, value: Value<'_>| self.store.put(key, lsn, &value);
        self.head.finish_import(&mut sink)?;
        if readable_lsn > self.store.timeline().readable_lsn {
            self.store.set_readable_lsn(readable_lsn);
            self.store.flush().await?;
            // What it is told of itself at the start never changes while it is open.
            self.store = Store::open(&self.dir, self.timelines.shared().config.store.clone()).await?;
        }
        self.store.flush().await?;
        let timeline = Timeline::open(self.store.clone(), self.timelines.worker().clone(), Above::Nothing).await?;
        info!("timeline {} ({}) is imported at {}", self.name.1, timeline.record().name, timeline.store().last_record_lsn());
        self.timelines.add(timeline.clone());
        self.timelines.release(self.name);
        Ok(timeline)
    }

    /// Removes what is there of a timeline that will not be finished. After an error something is still there.
    pub async fn abandon(self) -> Result<(), TimelineError> {
        let Import { timelines, name, dir, store, .. } = self;
        store.close().await;
        drop(store);
        let removed = remove_dir(&dir).await;
        timelines.release(name);
        removed
    }
}

async fn start(timelines: &Timelines, dir: &Path, record: TimelineRecord) -> Result<(Store, Head), TimelineError> {
    new_dir(dir).await?;
    // The tenant's directory may be new.
    fs::sync_dir(&timelines.shared().config.dir).await?;
    let head = Head::new(record.start_lsn, record.prev_record_lsn);
    let store = Store::create(dir, record, timelines.shared().config.store.clone()).await?;
    Ok((store, head))
}
