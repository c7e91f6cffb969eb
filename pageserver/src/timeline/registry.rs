//! All timelines of a pageserver, and the directories they live in: `DIR/<tenant>/<timeline>/`.

use super::{Import, Timeline, TimelineError};
use crate::store::{MANIFEST_NAME, Store, StoreConfig, StoreError, TimelineRecord};
use crate::worker::Worker;
use ironpage_daemon::{info, warn};
use ironpage_io::fs;
use ironpage_layout::{TenantId, TimelineId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What all timelines share.
#[derive(Clone, Debug)]
pub struct TimelinesConfig {
    pub dir: PathBuf,
    pub store: StoreConfig,
}

type Name = (TenantId, TimelineId);

/// Which timelines there should be.
#[derive(Clone, Debug)]
pub enum Known {
    /// Whatever the directory holds.
    All,
    /// What the metadata says.
    These {
        keep: BTreeSet<(TenantId, TimelineId)>,
        /// Were being made, or being deleted, when the process ended: they are removed.
        remove: BTreeSet<(TenantId, TimelineId)>,
    },
}

impl Known {
    fn wants_gone(&self, name: &(TenantId, TimelineId)) -> bool {
        matches!(self, Known::These { remove, .. } if remove.contains(name))
    }

    fn has(&self, name: &(TenantId, TimelineId)) -> bool {
        matches!(self, Known::These { keep, .. } if keep.contains(name)) || matches!(self, Known::All)
    }
}

/// The timelines of this pageserver. A handle; clones are the same.
#[derive(Clone)]
pub struct Timelines {
    shared: Rc<Shared>,
}

pub(super) struct Shared {
    pub config: TimelinesConfig,
    pub worker: Worker,
    open: RefCell<BTreeMap<Name, Rc<Timeline>>>,
    /// Names whose import is under way.
    pub importing: RefCell<BTreeSet<Name>>,
}

impl Timelines {
    /// Opens the timelines in the directory. What an import or a branch that was cut off left there is removed.
    pub async fn open(config: TimelinesConfig, worker: Worker, known: Known) -> Result<Timelines, TimelineError> {
        let shared = Shared { config, worker, open: RefCell::default(), importing: RefCell::default() };
        let timelines = Timelines { shared: Rc::new(shared) };
        let dir = &timelines.shared.config.dir;
        for tenant in ids::<TenantId>(dir).await? {
            let tenant_dir = dir.join(tenant.to_string());
            for timeline in ids::<TimelineId>(&tenant_dir).await? {
                let timeline_dir = tenant_dir.join(timeline.to_string());
                if known.wants_gone(&(tenant, timeline)) {
                    warn!("{}: it was being made or deleted when the process ended; removing it", timeline_dir.display());
                    fs::remove_dir_all(&timeline_dir).await?;
                    continue;
                }
                // A whole timeline is never removed because nobody knows it: it may be what knows it that is lost.
                if !known.has(&(tenant, timeline)) && fs::exists(timeline_dir.join(MANIFEST_NAME)).await? {
                    return Err(TimelineError::Unknown { path: timeline_dir.join(MANIFEST_NAME) });
                }
                timelines.open_one(&timeline_dir).await?;
            }
        }
        Ok(timelines)
    }

    async fn open_one(&self, dir: &Path) -> Result<(), TimelineError> {
        let store = match Store::open(dir, self.shared.config.store.clone()).await {
            Ok(store) => store,
            Err(StoreError::NoManifest { .. }) => {
                warn!("{}: its import never ended; removing it", dir.display());
                fs::remove_dir_all(dir).await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let timeline = Timeline::open(store, self.shared.worker.clone()).await?;
        let record = timeline.record();
        info!("timeline {} ({}) is open at {}", record.timeline, record.name, timeline.store().last_record_lsn());
        self.add(timeline);
        Ok(())
    }

    pub(super) fn add(&self, timeline: Rc<Timeline>) {
        self.shared.open.borrow_mut().insert((timeline.tenant(), timeline.id()), timeline);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub fn get(&self, tenant: TenantId, timeline: TimelineId) -> Option<Rc<Timeline>> {
        self.shared.open.borrow().get(&(tenant, timeline)).cloned()
    }

    pub fn all(&self) -> Vec<Rc<Timeline>> {
        self.shared.open.borrow().values().cloned().collect()
    }

    pub fn worker(&self) -> &Worker {
        &self.shared.worker
    }

    /// Starts to make a timeline; `None` if it is there already with the same properties.
    pub async fn import(&self, record: TimelineRecord) -> Result<Option<Import>, TimelineError> {
        if let Some(there) = self.get(record.tenant, record.timeline) {
            return match difference(there.record(), &record) {
                None => Ok(None),
                Some(what) => Err(TimelineError::Exists { tenant: record.tenant, timeline: record.timeline, what }),
            };
        }
        Import::begin(self.clone(), record).await.map(Some)
    }
}

/// The entries of a directory that are ids; all else in it is none of our business.
async fn ids<T: std::str::FromStr>(dir: &Path) -> Result<Vec<T>, TimelineError> {
    Ok(fs::read_dir(dir).await?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The first property in which two timelines differ.
fn difference(one: &TimelineRecord, other: &TimelineRecord) -> Option<&'static str> {
    [
        ("name", one.name != other.name),
        ("system identifier", one.system_id != other.system_id),
        ("Postgres version", one.postgres_version / 10_000 != other.postgres_version / 10_000),
        ("start LSN", one.start_lsn != other.start_lsn),
    ]
    .into_iter()
    .find_map(|(what, differs)| differs.then_some(what))
}
