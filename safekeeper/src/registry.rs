//! All timelines of a safekeeper. Each is loaded when it is first used and unloaded when nobody has used it
//! for a while: a cold timeline is a directory and nothing else.

use crate::context::Context;
use crate::control::{self, Properties};
use crate::deletion;
use crate::error::{Error, Result};
use crate::limits::{TICK, UNLOAD_TICKS};
use crate::proposer_service::can_be_record_end;
use crate::timeline::Timeline;
use ironpage_daemon::{error, info};
use ironpage_io::sync::Notify;
use ironpage_io::{fs, time};
use ironpage_layout::lsn::WAL_PAGE_SIZE;
use ironpage_layout::wire::admin::TimelineCreate;
use ironpage_layout::{TenantId, TimelineId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

type Id = (TenantId, TimelineId);

pub struct Registry {
    dir: PathBuf,
    pub context: Rc<Context>,
    timelines: RefCell<HashMap<Id, Entry>>,
    changed: Notify,
}

enum Entry {
    /// Somebody creates or loads it: wait for a change, look again.
    Busy,
    Loaded(Rc<Timeline>),
}

/// Keeps others from creating or loading the same timeline.
struct Claim<'a> {
    registry: &'a Registry,
    id: Id,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut timelines = self.registry.timelines.borrow_mut();
        if matches!(timelines.get(&self.id), Some(Entry::Busy)) {
            timelines.remove(&self.id);
        }
        self.registry.changed.notify_all();
    }
}

impl Registry {
    pub fn new(dir: &Path, context: Rc<Context>) -> Registry {
        Registry { dir: dir.to_path_buf(), context, timelines: RefCell::default(), changed: Notify::new() }
    }

    /// The timeline, loaded if it was not.
    pub async fn get(&self, tenant: TenantId, timeline: TimelineId) -> Result<Rc<Timeline>> {
        let id = (tenant, timeline);
        let claim = match self.claim(id).await {
            Ok(claim) => claim,
            Err(loaded) => return Ok(loaded),
        };
        let dir = self.timeline_dir(id);
        if !fs::exists(dir.join(control::FILE_NAME)).await? {
            return Err(Error::NotFound { tenant, timeline });
        }
        let loaded = Timeline::load(&dir, self.context.clone()).await?;
        let properties = &loaded.properties;
        if (properties.tenant, properties.timeline) != id {
            let path = dir.join(control::FILE_NAME);
            let why = format!("it is of timeline {} of tenant {}", properties.timeline, properties.tenant);
            return Err(Error::DamagedControl { path, why });
        }
        self.timelines.borrow_mut().insert(id, Entry::Loaded(loaded.clone()));
        drop(claim);
        Ok(loaded)
    }

    /// Makes a timeline durable here, with the WAL before its start. A repeat with the same properties succeeds.
    pub async fn create(&self, create: &TimelineCreate, prefix: &[u8]) -> Result<()> {
        let wanted = Properties::from(create);
        check_create(create, prefix.len() as u64)?;
        match self.get(create.tenant, create.timeline).await {
            Ok(timeline) => return compare(&timeline.properties, &wanted),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let id = (create.tenant, create.timeline);
        let claim = match self.claim(id).await {
            Ok(claim) => claim,
            Err(loaded) => return compare(&loaded.properties, &wanted),
        };
        let dir = self.timeline_dir(id);
        if fs::exists(dir.join(control::FILE_NAME)).await? {
            return compare(&control::read(&dir).await?.properties, &wanted);
        }
        // Or its marker would take the new one along.
        deletion::finish(&dir).await?;
        if let Err(error) = Timeline::create(&dir, &wanted, prefix).await {
            // A full disk gets its space back.
            let _ = fs::remove_dir_all(&dir).await;
            return Err(error);
        }
        drop(claim);
        info!("timeline {} of tenant {}: created as '{}' at {}", wanted.timeline, wanted.tenant, wanted.name, wanted.start_lsn);
        Ok(())
    }

    /// Removes a timeline, durably: its connections end, storage work under way ends, its files go. One that is not there is
    /// removed already. After an error it serves nobody; a repeat or a restart goes on.
    pub async fn delete(&self, tenant: TenantId, timeline: TimelineId) -> Result<()> {
        let id = (tenant, timeline);
        let (claim, loaded) = loop {
            match self.claim(id).await {
                Ok(claim) => break (claim, None),
                Err(loaded) => {
                    let mut timelines = self.timelines.borrow_mut();
                    // The claim came back with it just now; only an await could let somebody else change that.
                    if let Some(entry @ Entry::Loaded(_)) = timelines.get_mut(&id) {
                        *entry = Entry::Busy;
                        break (Claim { registry: self, id }, Some(loaded));
                    }
                }
            }
        };
        if let Some(loaded) = &loaded {
            loaded.delete().await;
        }
        let deleted = deletion::delete(&self.timeline_dir(id)).await;
        if let (Err(_), Some(loaded)) = (&deleted, loaded) {
            // Stopped as it is, and not to be loaded again: what is on disk is not known.
            self.timelines.borrow_mut().insert(id, Entry::Loaded(loaded));
        }
        drop(claim);
        if deleted? {
            info!("timeline {timeline} of tenant {tenant}: deleted");
        }
        Ok(())
    }

    /// Ends deletions that a crash ended early.
    pub async fn finish_deletions(&self) -> Result<()> {
        for tenant in fs::read_dir(&self.dir).await? {
            if tenant.parse::<TenantId>().is_err() {
                continue;
            }
            for timeline in fs::read_dir(self.dir.join(&tenant)).await? {
                if timeline.parse::<TimelineId>().is_err() {
                    continue;
                }
                match deletion::finish(&self.dir.join(&tenant).join(&timeline)).await {
                    Ok(true) => info!("timeline {timeline} of tenant {tenant}: its deletion had begun and is done"),
                    Ok(false) => {}
                    // It is gone all the same; the next start tries again.
                    Err(error) => error!("timeline {timeline} of tenant {tenant}: files of it are left: {error}"),
                }
            }
        }
        Ok(())
    }

    /// Ids of all timelines on disk, loaded or not.
    pub async fn list(&self) -> Result<Vec<Id>> {
        let mut ids = Vec::new();
        for tenant in fs::read_dir(&self.dir).await? {
            let Ok(tenant_id) = tenant.parse() else { continue };
            for timeline in fs::read_dir(self.dir.join(&tenant)).await? {
                let Ok(timeline_id) = timeline.parse() else { continue };
                if fs::exists(self.dir.join(&tenant).join(&timeline).join(control::FILE_NAME)).await? {
                    ids.push((tenant_id, timeline_id));
                }
            }
        }
        Ok(ids)
    }

    /// Reads every control file, so that a damaged one is known at start and not at first use.
    pub async fn inspect(&self) -> Result<usize> {
        let ids = self.list().await?;
        for id in &ids {
            if let Err(error) = control::read(&self.timeline_dir(*id)).await {
                error!("timeline {} of tenant {} cannot be used: {error}", id.1, id.0);
            }
        }
        Ok(ids.len())
    }

    /// Looks after loaded timelines for ever.
    pub async fn upkeep(&self) {
        loop {
            time::sleep(TICK).await;
            self.tick();
        }
    }

    /// Has commit_lsn persisted where it moved, and unloads what has not been used for `UNLOAD_TICKS` calls.
    fn tick(&self) {
        for timeline in self.loaded() {
            timeline.persist_commit(1);
            // Held by the map and by the list of this loop.
            let idle = Rc::strong_count(&timeline) == 2 && !timeline.at_work() && timeline.stopped().is_none();
            let ticks = if idle { timeline.idle_ticks.get() + 1 } else { 0 };
            timeline.idle_ticks.set(ticks);
            if ticks >= UNLOAD_TICKS {
                let properties = &timeline.properties;
                self.timelines.borrow_mut().remove(&(properties.tenant, properties.timeline));
                info!("timeline {}: not in use, unloaded", properties.timeline);
            } else if ticks == 1 {
                timeline.rest();
            }
        }
    }

    /// Persists what a restart would otherwise have to find out, and waits for storage work to end.
    pub async fn settle(&self) {
        for timeline in self.loaded() {
            timeline.persist_commit(1);
        }
        for timeline in self.loaded() {
            timeline.settled().await;
        }
    }

    fn loaded(&self) -> Vec<Rc<Timeline>> {
        let timelines = self.timelines.borrow();
        let loaded = timelines.values().filter_map(|entry| match entry {
            Entry::Loaded(timeline) => Some(timeline.clone()),
            Entry::Busy => None,
        });
        loaded.collect()
    }

    /// The right to create or load a timeline, or, as the error, the timeline somebody else has loaded.
    async fn claim(&self, id: Id) -> std::result::Result<Claim<'_>, Rc<Timeline>> {
        loop {
            let changed = self.changed.notified();
            match self.timelines.borrow_mut().entry(id) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(Entry::Busy);
                    return Ok(Claim { registry: self, id });
                }
                std::collections::hash_map::Entry::Occupied(entry) => {
                    if let Entry::Loaded(timeline) = entry.get() {
                        return Err(timeline.clone());
                    }
                }
            }
            changed.await;
        }
    }

    fn timeline_dir(&self, (tenant, timeline): Id) -> PathBuf {
        self.dir.join(tenant.to_string()).join(timeline.to_string())
    }
}

fn check_create(create: &TimelineCreate, prefix: u64) -> Result<()> {
    let timeline = create.timeline;
    let bad = |why| Error::BadCreate { timeline, why };
    if create.postgres_version / 10_000 != 15 {
        return Err(Error::PostgresVersion { version: create.postgres_version });
    }
    let start = create.start_lsn;
    if !can_be_record_end(start) {
        return Err(bad("start_lsn is not where a record can end"));
    }
    if create.prev_record_lsn >= start {
        return Err(bad("prev_record_lsn does not lie before start_lsn"));
    }
    if prefix > 0 && (prefix > start.segment_offset() || !(start.0 - prefix).is_multiple_of(WAL_PAGE_SIZE)) {
        return Err(bad("the WAL prefix does not start at a page of start_lsn's segment"));
    }
    if create.name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '=') {
        return Err(bad("the name has blanks, control characters or '='"));
    }
    Ok(())
}

fn compare(ours: &Properties, wanted: &Properties) -> Result<()> {
    let differs = [
        (ours.tenant != wanted.tenant, "tenant"),
        (ours.system_id != wanted.system_id, "system identifier"),
        (ours.start_lsn != wanted.start_lsn, "start LSN"),
        (ours.prev_record_lsn != wanted.prev_record_lsn, "previous record"),
        (ours.postgres_version != wanted.postgres_version, "Postgres version"),
    ];
    match differs.iter().find(|(differs, _)| *differs) {
        Some((_, property)) => Err(Error::Exists { timeline: ours.timeline, property }),
        None => Ok(()),
    }
}

#[cfg(test)]
// /proc is no data of ours.
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use ironpage_io::driver::simulator::{Disk, Faults, Simulator};
    use ironpage_layout::{Lsn, NodeId};
    use std::time::Duration;

    fn creation() -> TimelineCreate {
        TimelineCreate {
            tenant: TenantId([1; 16]),
            timeline: TimelineId([2; 16]),
            start_lsn: Lsn(0x0100_0000),
            prev_record_lsn: Lsn(0x00FF_FF00),
            system_id: 5,
            postgres_version: 150_000,
            name: "main".into(),
            readable_lsn: Lsn::INVALID,
            kind: 0,
            prefix_length: 0,
        }
    }

    /// The power fails somewhere in a deletion, and somewhere in the start after it: the timeline is whole or gone, gone if
    /// that was said, and once gone it stays so and can be made anew.
    #[test]
    fn a_deletion_that_the_power_cuts_short_leaves_all_or_nothing() {
        let (mut whole, mut cut_short) = (0, 0);
        for seed in 1..=60u64 {
            let (dir, disk, create) = (PathBuf::from("/safekeeper"), Disk::new(), creation());
            let (tenant, timeline) = (create.tenant, create.timeline);
            let simulator = |part: u64| {
                let faults = Faults { failed_syncs: if (1..=2).contains(&part) { 300 } else { 0 }, ..Faults::default() };
                Box::new(Simulator::new(seed * 10 + part, disk.clone(), faults))
            };
            let registry = || Registry::new(&dir, Rc::new(Context::new(NodeId(1), Vec::new())));
            let created = ironpage_io::run_on(simulator(0), || async {
                fs::create_dir_all(&dir).await.unwrap();
                registry().create(&create, &[]).await.unwrap();
            });
            created.unwrap();
            let said = ironpage_io::run_on(simulator(1), || async {
                let registry = registry();
                // Half of them with a timeline in memory.
                let loaded = if seed % 2 == 0 { registry.get(tenant, timeline).await.ok() } else { None };
                let deleting = time::timeout(Duration::from_micros(seed * 22), registry.delete(tenant, timeline)).await;
                if let (Some(loaded), Ok(_)) = (loaded, &deleting) {
                    assert!(matches!(loaded.check_running(), Err(Error::Deleted { .. })));
                    let another = registry.get(tenant, timeline).await.ok();
                    assert!(another.is_none_or(|another| Rc::ptr_eq(&another, &loaded)), "two of one timeline");
                }
                matches!(deleting, Ok(Ok(())))
            });
            let said = said.unwrap();
            disk.crash(seed);
            let starting = ironpage_io::run_on(simulator(2), || async {
                time::timeout(Duration::from_micros(seed * 10), registry().finish_deletions()).await.is_ok()
            });
            cut_short += u32::from(!starting.unwrap());
            disk.crash(seed + 1000);
            let gone = ironpage_io::run_on(simulator(3), || async {
                let registry = registry();
                registry.finish_deletions().await.unwrap();
                match registry.get(tenant, timeline).await {
                    Err(Error::NotFound { .. }) => true,
                    Ok(found) => found.position().flush_lsn != create.start_lsn,
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            });
            let gone = gone.unwrap();
            assert!(gone || !said, "seed {seed}: it was said to be deleted");
            whole += u32::from(!gone);
            disk.crash(seed + 2000);
            let again = ironpage_io::run_on(simulator(4), || async {
                let registry = registry();
                registry.finish_deletions().await.unwrap();
                assert_eq!(registry.get(tenant, timeline).await.is_err(), gone, "seed {seed}");
                registry.delete(tenant, timeline).await.unwrap();
                registry.delete(tenant, timeline).await.unwrap();
                registry.create(&create, &[]).await.unwrap();
                registry.finish_deletions().await.unwrap();
                registry.get(tenant, timeline).await.map(|found| found.position().flush_lsn)
            });
            assert_eq!(again.unwrap().unwrap(), create.start_lsn, "seed {seed}");
        }
        assert!(whole > 3 && cut_short > 3, "{whole} were whole, {cut_short} starts were cut short");
    }

    #[test]
    fn a_timeline_nobody_uses_is_a_directory_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("ironpage-registry-{}", std::process::id()));
        let create = creation();
        ironpage_io::run(ironpage_io::Config::default(), || async {
            fs::create_dir_all(&dir).await.unwrap();
            let registry = Registry::new(&dir, Rc::new(Context::new(NodeId(1), Vec::new())));
            registry.create(&create, &[]).await.unwrap();
            assert!(registry.loaded().is_empty(), "creating does not load");
            let used = registry.get(create.tenant, create.timeline).await.unwrap();
            for _ in 0..UNLOAD_TICKS * 2 {
                registry.tick();
            }
            assert_eq!(registry.loaded().len(), 1);
            drop(used);
            for _ in 0..UNLOAD_TICKS {
                assert_eq!(registry.loaded().len(), 1);
                registry.tick();
            }
            assert!(registry.loaded().is_empty());
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let open = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            assert_eq!(open.filter(|path| path.starts_with(&dir)).count(), 0);
            let again = registry.get(create.tenant, create.timeline).await.unwrap();
            assert_eq!(again.position().flush_lsn, create.start_lsn);
            fs::remove_dir_all(&dir).await.unwrap();
        })
        .unwrap();
    }
}
