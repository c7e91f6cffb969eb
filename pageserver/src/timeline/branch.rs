//! Making a branch.

use super::registry::{GOING_DOWN, Name, new_dir, remove_dir};
use super::{BranchPoint, Timeline, TimelineError, Timelines, read_head};
use crate::receiver::PastWal;
use crate::store::{Ancestor, Store, TimelineRecord};
use ironpage_daemon::cli::Address;
use ironpage_daemon::{info, warn};
use ironpage_layout::history::bucket_of;
use ironpage_layout::{Key, Lsn, TimelineId, Value};
use std::path::Path;
use std::rc::Rc;

/// What a branch is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBranch {
    pub timeline: TimelineId,
    pub name: String,
}

impl Timelines {
    /// Makes the branch: durable, open and readable when this returns. Its receiver is the caller's to start. It is made
    /// to its end, or taken back, also if the caller goes away meanwhile.
    pub async fn branch(
        &self,
        parent: &Rc<Timeline>,
        safekeepers: &[Address],
        branch: NewBranch,
        point: &BranchPoint,
    ) -> Result<Rc<Timeline>, TimelineError> {
        let name = (parent.tenant(), branch.timeline);
        if self.get(name.0, name.1).is_some() {
            return Err(TimelineError::Exists { tenant: name.0, timeline: name.1, what: "origin" });
        }
        self.claim(name, Some(point.ancestor))?;
        let (timelines, safekeepers, point) = (self.clone(), safekeepers.to_vec(), point.clone());
        let making = ironpage_io::spawn(async move {
            let result = timelines.make_branch(name, &safekeepers, branch, &point).await;
            if let Ok(timeline) = &result {
                timelines.add(timeline.clone());
            }
            timelines.release(name);
            result
        });
        making.await.unwrap_or_else(|_| Err(TimelineError::Unavailable { timeline: name.1, why: GOING_DOWN.into() }))
    }

    async fn make_branch(
        &self,
        name: Name,
        safekeepers: &[Address],
        branch: NewBranch,
        point: &BranchPoint,
    ) -> Result<Rc<Timeline>, TimelineError> {
        let (tenant, timeline) = name;
        let ancestor = self.get(tenant, point.ancestor);
        let ancestor = ancestor.ok_or(TimelineError::NotFound { tenant, timeline: point.ancestor })?;
        let record = TimelineRecord {
            tenant,
            timeline,
            name: branch.name,
            start_lsn: point.lsn,
            prev_record_lsn: point.prev_record_lsn,
            readable_lsn: point.lsn,
            ancestor: Some(Ancestor { timeline: point.ancestor, lsn: point.mark }),
            ..ancestor.record().clone()
        };
        let (dir, config) = (self.dir_of(name), &self.shared().config);
        // The tenant's directory is durable: the ancestor is in it.
        new_dir(&dir).await?;
        let begin = (point.mark, point.mark_prev_record_lsn);
        let store = match Store::create_at(&dir, record, begin, config.store.clone()).await {
            Ok(store) => store,
            Err(error) => {
                take_back(&dir).await;
                return Err(error.into());
            }
        };
        store.set_ancestor(ancestor.store().clone());
        let made = if point.mark == point.lsn {
            self.begin_at_mark(&ancestor, &store, point).await
        } else {
            self.begin_behind_mark(&ancestor, &store, safekeepers, point).await
        };
        match made {
            Ok(timeline) => {
                info!(
                    "timeline {timeline_id} ({}) came off timeline {} at {}",
                    timeline.record().name,
                    point.ancestor,
                    point.lsn,
                    timeline_id = name.1
                );
                Ok(timeline)
            }
            Err(error) => {
                store.close().await;
                take_back(&dir).await;
                Err(error)
            }
        }
    }

    /// Nothing is to be done but to copy the mark: the ancestor's, which was only in memory, may never come again.
    async fn begin_at_mark(
        &self,
        ancestor: &Rc<Timeline>,
        store: &Store,
        point: &BranchPoint,
    ) -> Result<Rc<Timeline>, TimelineError> {
        for key in [Key::control(), Key::history(bucket_of(point.mark))] {
            let newest = ancestor.store().values(key, point.mark, Lsn::INVALID).await?.into_iter().next();
            let value = newest.as_ref().filter(|version| version.lsn == point.mark).map(|version| Value::decode(&version.bytes));
            let Some(Ok(value)) = value else { return Err(ancestor.damaged(point.mark, "no mark stands there")) };
            store.put(key, point.mark, &value);
        }
        store.flush().await?;
        let timeline = Timeline::start(store.clone(), self.worker().clone(), Some(ancestor.clone()), None)?;
        let size = ancestor.head().filter(|head| head.last_record_lsn() == point.mark).map(|head| head.logical_size());
        timeline.logical_size_at_start.set(size.or(ancestor.logical_size()));
        Ok(timeline)
    }

    /// Ingests the records from the mark to the point.
    async fn begin_behind_mark(
        &self,
        ancestor: &Rc<Timeline>,
        store: &Store,
        safekeepers: &[Address],
        point: &BranchPoint,
    ) -> Result<Rc<Timeline>, TimelineError> {
        let head = read_head(store, point.mark, point.mark_prev_record_lsn).await?;
        let timeline = Timeline::start(store.clone(), self.worker().clone(), Some(ancestor.clone()), Some(head))?;
        let mut wal = PastWal::new(ancestor, safekeepers);
        let mut stream = timeline.wal_stream();
        while store.last_record_lsn() < point.lsn {
            let at = stream.position();
            let mut bytes = wal.read(at).await?;
            bytes.truncate(usize::try_from(point.lsn.since(at)).unwrap_or(usize::MAX));
            let taken = match stream.feed(at, &bytes) {
                Ok(()) => timeline.ingest(&mut stream).await,
                Err(error) => Err(error.into()),
            };
            match taken {
                Ok(()) if stream.position() == point.lsn && store.last_record_lsn() != point.lsn => {
                    return Err(ancestor.damaged(point.lsn, "no record ends there"));
                }
                Ok(()) => wal.trust(),
                Err(error) if error.is_of_the_stream() => {
                    wal.distrust(error.to_string());
                    stream.rewind();
                }
                Err(error) => return Err(error.into()),
            }
        }
        store.flush().await?;
        timeline.forget_head();
        Ok(timeline)
    }
}

/// Removes what is there of a branch that will not be.
async fn take_back(dir: &Path) {
    if let Err(error) = remove_dir(dir).await {
        warn!("cannot remove a branch that could not be made: {error}; the next start tries again");
    }
}
