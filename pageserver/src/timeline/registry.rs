//! All timelines of a pageserver, and the directories they live in: `DIR/<tenant>/<timeline>/`.

use super::{Above, Import, Timeline, TimelineError};
use crate::store::{MANIFEST_NAME, Store, StoreConfig, StoreError, TimelineRecord};
use crate::worker::Worker;
use ironpage_daemon::{info, warn};
use ironpage_io::fs;
use ironpage_layout::{TenantId, TimelineId};
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What all timelines share.
#[derive(Clone, Debug)]
pub struct TimelinesConfig {
    pub dir: PathBuf,
    pub store: StoreConfig,
}

pub(super) type Name = (TenantId, TimelineId);

/// Why something under way came to no end.
pub(super) const GOING_DOWN: &str = "the pageserver is going down";

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
    /// Names that are being made or deleted; with the ancestor, of those that will have one.
    claimed: RefCell<BTreeMap<Name, Option<TimelineId>>>,
}

impl Timelines {
    /// Opens the timelines in the directory. What an import or a branch that was cut off left there is removed.
    pub async fn open(config: TimelinesConfig, worker: Worker, known: Known) -> Result<Timelines, TimelineError> {
        let shared = Shared { config, worker, open: RefCell::default(), claimed: RefCell::default() };
        let timelines = Timelines { shared: Rc::new(shared) };
        let dir = &timelines.shared.config.dir;
        for tenant in ids::<TenantId>(dir).await? {
            let tenant_dir = dir.join(tenant.to_string());
            let mut stores = BTreeMap::new();
            for timeline in ids::<TimelineId>(&tenant_dir).await? {
                let timeline_dir = tenant_dir.join(timeline.to_string());
                if known.wants_gone(&(tenant, timeline)) {
                    warn!("{}: it was being made or deleted when the process ended; removing it", timeline_dir.display());
                    remove_dir(&timeline_dir).await?;
                    continue;
                }
                // A whole timeline is never removed because nobody knows it: it may be what knows it that is lost.
                if !known.has(&(tenant, timeline)) && fs::exists(timeline_dir.join(MANIFEST_NAME)).await? {
                    return Err(TimelineError::Unknown { path: timeline_dir.join(MANIFEST_NAME) });
                }
                if let Some(store) = timelines.open_store(&timeline_dir).await? {
                    stores.insert(timeline, store);
                }
            }
            timelines.open_stores(tenant, stores).await?;
        }
        Ok(timelines)
    }

    async fn open_store(&self, dir: &Path) -> Result<Option<Store>, TimelineError> {
        match Store::open(dir, self.shared.config.store.clone()).await {
            Ok(store) => Ok(Some(store)),
            Err(StoreError::NoManifest { .. }) => {
                warn!("{}: its creation never ended, or its deletion did not; removing it", dir.display());
                remove_dir(dir).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes timelines of a tenant's stores, ancestors first.
    async fn open_stores(&self, tenant: TenantId, mut stores: BTreeMap<TimelineId, Store>) -> Result<(), TimelineError> {
        while !stores.is_empty() {
            let ancestor_of = |store: &Store| store.timeline().ancestor.map(|ancestor| ancestor.timeline);
            let is_next = |store: &Store| ancestor_of(store).is_none_or(|ancestor| self.get(tenant, ancestor).is_some());
            let next: Vec<TimelineId> = stores.iter().filter(|(_, store)| is_next(store)).map(|(id, _)| *id).collect();
            if next.is_empty() {
                // What is left has ancestors that are not there, or in a circle.
                let (timeline, store) = stores.pop_first().unwrap_or_else(|| unreachable!("the loop's condition"));
                let ancestor = ancestor_of(&store).unwrap_or(timeline);
                return Err(StoreError::NoAncestor { timeline, ancestor }.into());
            }
            for id in next {
                let Some(store) = stores.remove(&id) else { continue };
                let above = match ancestor_of(&store).and_then(|ancestor| self.get(tenant, ancestor)) {
                    Some(parent) => {
                        store.set_ancestor(parent.store().clone());
                        Above::Parent(parent)
                    }
                    None => Above::Nothing,
                };
                let timeline = Timeline::open(store, self.shared.worker.clone(), above).await?;
                info!("timeline {id} ({}) is open at {}", timeline.record().name, timeline.store().last_record_lsn());
                self.add(timeline);
            }
        }
        Ok(())
    }

    pub(super) fn add(&self, timeline: Rc<Timeline>) {
        self.shared.open.borrow_mut().insert((timeline.tenant(), timeline.id()), timeline);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Nobody else makes or deletes this timeline until [`Timelines::release`].
    pub(super) fn claim(&self, name: Name, ancestor: Option<TimelineId>) -> Result<(), TimelineError> {
        match self.shared.claimed.borrow_mut().entry(name) {
            Entry::Occupied(_) => Err(TimelineError::Busy { timeline: name.1 }),
            Entry::Vacant(vacant) => {
                vacant.insert(ancestor);
                Ok(())
            }
        }
    }

    pub(super) fn release(&self, name: Name) {
        self.shared.claimed.borrow_mut().remove(&name);
    }

    pub(super) fn dir_of(&self, (tenant, timeline): Name) -> PathBuf {
        self.shared.config.dir.join(tenant.to_string()).join(timeline.to_string())
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

    /// The timelines that came off this one, in order, and those that are just being made.
    pub fn children(&self, tenant: TenantId, timeline: TimelineId) -> Vec<TimelineId> {
        let claimed = self.shared.claimed.borrow();
        let open = self.shared.open.borrow();
        let being_made = claimed.iter().filter(|(name, ancestor)| name.0 == tenant && **ancestor == Some(timeline));
        let there = open.values().filter(|child| {
            child.tenant() == tenant && child.record().ancestor.is_some_and(|ancestor| ancestor.timeline == timeline)
        });
        let children: BTreeSet<TimelineId> = being_made.map(|(name, _)| name.1).chain(there.map(|child| child.id())).collect();
        children.into_iter().collect()
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

    /// Removes a timeline, and its directory durably. Waits and reads that are under way fail, its receiver stops.
    /// One that is not there is no error, so that a deletion can be repeated. Refused while others have it as ancestor.
    pub async fn delete(&self, tenant: TenantId, timeline: TimelineId) -> Result<(), TimelineError> {
        let name = (tenant, timeline);
        let children = self.children(tenant, timeline);
        if !children.is_empty() {
            return Err(TimelineError::HasChildren { timeline, children });
        }
        self.claim(name, None)?;
        // In a task of its own: whoever asked may go away, and the deletion may not stop half-way.
        let timelines = self.clone();
        let deletion = ironpage_io::spawn(async move {
            let result = timelines.delete_claimed(name).await;
            timelines.release(name);
            result
        });
        deletion.await.unwrap_or_else(|_| Err(TimelineError::Unavailable { timeline, why: GOING_DOWN.into() }))
    }

    async fn delete_claimed(&self, name: Name) -> Result<(), TimelineError> {
        let there = self.shared.open.borrow_mut().remove(&name);
        if let Some(timeline) = there {
            timeline.set_deleted();
            timeline.store().close().await;
            info!("timeline {} ({}) is deleted", name.1, timeline.record().name);
        }
        let dir = self.dir_of(name);
        if fs::exists(&dir).await? {
            remove_dir(&dir).await?;
        }
        Ok(())
    }
}

/// Removes a timeline's directory durably. Its manifest goes first: without one, the next start knows what is left of it.
pub(super) async fn remove_dir(dir: &Path) -> Result<(), TimelineError> {
    let manifest = dir.join(MANIFEST_NAME);
    if fs::exists(&manifest).await? {
        fs::remove_file(&manifest).await?;
        fs::sync_dir(dir).await?;
    }
    fs::remove_dir_all(dir).await?;
    if let Some(tenant) = dir.parent() {
        fs::sync_dir(tenant).await?;
    }
    Ok(())
}

/// Makes an empty directory for a timeline's store, whose creation makes it durable in its tenant's; that one is the
/// caller's to make so. What a creation that was cut off left there is removed.
pub(super) async fn new_dir(dir: &Path) -> Result<(), TimelineError> {
    if fs::exists(dir).await? {
        remove_dir(dir).await?;
    }
    Ok(fs::create_dir_all(dir).await?)
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
