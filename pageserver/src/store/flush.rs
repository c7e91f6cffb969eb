//! From memory to layer files: freezing, writing, publishing in the manifest.

use super::{Frozen, Inner, State, Store, StoreError};
use crate::layers::{Layer, count, write_layer};
use crate::memory::MemoryLayer;
use ironpage_io::{fs, sync::Notify, time, yield_now};
use ironpage_layout::layer::manifest::{LayerRecord, Manifest, TimelineRecord};
use ironpage_layout::layer::{LayerId, slot_of};
use ironpage_layout::{Key, Slot};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Frozen memory layers at most; with as many, and the open one full, ingest waits.
pub(super) const FROZEN_MAX: usize = 2;
/// Keys sorted before other tasks get their turn.
const SORTED_PER_TURN: usize = 16 << 10;
/// How long the flusher waits if nothing gets old.
const FOREVER: Duration = Duration::from_secs(1 << 30);

impl State {
    /// Whether the open layer may be frozen now: there is room, and no record is half put.
    fn can_freeze(&self) -> bool {
        self.failure.is_none() && self.frozen.len() < FROZEN_MAX && self.put_lsn_max <= self.last_record_lsn
    }

    /// Whether something changed that a flush would save.
    fn is_changed(&self) -> bool {
        self.changed_at.is_some() || !self.published
    }
}

impl Store {
    /// Freezes the open layer if its time has come and it may be done.
    pub(super) fn freeze_if_due(&self) {
        let due = {
            let state = self.inner.state.borrow();
            let full = state.open.bytes() > self.inner.config.memory_bytes_max;
            (full || state.freeze_wanted) && state.can_freeze()
        };
        if due {
            self.freeze();
        }
    }

    fn freeze(&self) {
        let changed = self.inner.state.borrow().is_changed();
        let hook = self.inner.freeze_hook.borrow().clone();
        if let Some(hook) = hook.filter(|_| changed) {
            hook(self);
        }
        let state = &mut *self.inner.state.borrow_mut();
        assert!(state.put_lsn_max <= state.last_record_lsn, "a freeze hook puts at the last record");
        state.frozen.push_back(Rc::new(Frozen {
            memory: std::mem::take(&mut state.open),
            last_record_lsn: state.last_record_lsn,
            prev_record_lsn: state.prev_record_lsn,
        }));
        state.changed_at = None;
        state.freeze_wanted = false;
        state.freezes += 1;
        self.inner.changed.notify_all();
    }

    /// Makes everything up to the last record at the time of the call durable in layer files.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let wanted = {
            let state = &mut *self.inner.state.borrow_mut();
            if state.is_changed() || !state.open.is_empty() {
                state.freeze_wanted = true;
                state.publish = true;
                state.freezes + 1
            } else {
                state.freezes
            }
        };
        self.inner.changed.notify_all();
        self.freeze_if_due();
        loop {
            let notified = self.inner.changed.notified();
            {
                let state = self.inner.state.borrow();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.flushes >= wanted {
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    /// Returns once there is room for more values; at once unless flushing lags behind. To be called between
    /// records. An error if the store can't flush any more.
    pub async fn ready_for_writes(&self) -> Result<(), StoreError> {
        loop {
            self.freeze_if_due();
            let notified = self.inner.changed.notified();
            {
                let state = self.inner.state.borrow();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.frozen.len() < FROZEN_MAX || state.open.bytes() <= self.inner.config.memory_bytes_max {
                    return Ok(());
                }
            }
            count(&self.inner.counters.write_waits, 1);
            notified.await;
        }
    }

    /// Ends all flushing: no file of the store is written once this has returned. What reads find they find on.
    pub async fn close(&self) {
        self.inner.state.borrow_mut().failure.get_or_insert(StoreError::Closed);
        self.inner.changed.notify_all();
        loop {
            let notified = self.inner.changed.notified();
            if !self.inner.state.borrow().flushing {
                return;
            }
            notified.await;
        }
    }

    /// Writes the oldest frozen layer and publishes it. A failure poisons the store.
    async fn flush_oldest(&self, frozen: Rc<Frozen>) {
        self.inner.state.borrow_mut().flushing = true;
        let result = self.write_and_publish(&frozen).await;
        let state = &mut *self.inner.state.borrow_mut();
        state.flushing = false;
        match result {
            Ok(()) => {
                state.frozen.pop_front();
                state.flushes += 1;
            }
            Err(_) if state.failure.is_some() => {}
            Err(error) => state.failure = Some(StoreError::Poisoned { reason: Rc::new(error) }),
        }
    }

    async fn write_and_publish(&self, frozen: &Frozen) -> Result<(), StoreError> {
        let inner = &*self.inner;
        let sequence = {
            let state = &mut *inner.state.borrow_mut();
            state.next_sequence += 1;
            state.next_sequence - 1
        };
        let keys = sorted_keys(&frozen.memory, inner.slot_bits).await;
        let mut records = Vec::new();
        let mut written = Ok(());
        for part in keys.chunk_by(|a, b| a.0 == b.0) {
            written = self.write_part(frozen, sequence, part, &mut records).await;
            if written.is_err() {
                break;
            }
        }
        if written.is_ok() && !records.is_empty() {
            written = fs::sync_dir(&inner.layers_dir).await.map_err(StoreError::from);
        }
        if let Err(error) = written {
            // No manifest names them. Removing them may be what makes room for others.
            let names = records.iter().map(LayerRecord::file_name);
            for path in names.map(|name| inner.layers_dir.join(name)) {
                let _ = fs::remove_file(path).await;
            }
            return Err(error);
        }

        let manifest = {
            let state = inner.state.borrow();
            state.publish.then(|| Manifest {
                timeline: TimelineRecord { readable_lsn: inner.readable_lsn.get(), ..(*inner.timeline).clone() },
                slot_bits: inner.slot_bits,
                disk_consistent_lsn: frozen.last_record_lsn,
                prev_record_lsn: frozen.prev_record_lsn,
                next_sequence: sequence + 1,
                layers: state.layers.all().map(|layer| *layer.record()).chain(records.iter().copied()).collect(),
            })
        };
        // From here on the manifest on disk may name the new files even if this fails: they stay.
        if let Some(manifest) = &manifest {
            fs::write_atomic(&inner.manifest_path, &manifest.encode()).await?;
        }
        let state = &mut *inner.state.borrow_mut();
        for record in records {
            count(&inner.counters.layer_bytes_written, record.file_length);
            state.layers.add(Layer::new(&inner.layers_dir, inner.timeline.clone(), record));
        }
        if let Some(manifest) = manifest {
            state.published = true;
            state.disk_consistent_lsn = manifest.disk_consistent_lsn;
        }
        Ok(())
    }

    /// Writes one slot's layer and adds its record; on failure its file is removed.
    async fn write_part(
        &self,
        frozen: &Frozen,
        sequence: u64,
        part: &[(Slot, Key)],
        records: &mut Vec<LayerRecord>,
    ) -> Result<(), StoreError> {
        let inner = &*self.inner;
        let Some((slot, _)) = part.first() else { return Ok(()) };
        let keys: Vec<Key> = part.iter().map(|(_, key)| *key).collect();
        let id = LayerId { tenant: inner.timeline.tenant, timeline: inner.timeline.timeline, slot: *slot, sequence };
        // The name says what only the finished layer tells, so it comes last.
        let temporary = inner.layers_dir.join(format!("{:04x}-{sequence:08x}.tmp", slot.0));
        let result = async {
            let header = write_layer(&temporary, id, &frozen.memory, &keys).await?;
            let record = LayerRecord::of(&header);
            fs::rename(&temporary, inner.layers_dir.join(record.file_name())).await?;
            Ok(record)
        };
        match result.await {
            Ok(record) => {
                records.push(record);
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&temporary).await;
                Err(error)
            }
        }
    }
}

/// Writes what is frozen, and freezes what gets old, as long as the store lives and can.
pub(super) async fn flusher(store: Weak<Inner>, changed: Notify) {
    loop {
        let notified = changed.notified();
        let (frozen, wait) = {
            let Some(inner) = store.upgrade() else { return };
            let store = Store { inner };
            let wait = store.age_out();
            store.freeze_if_due();
            let state = store.inner.state.borrow();
            if state.failure.is_some() {
                return;
            }
            (state.frozen.front().cloned(), wait)
        };
        match frozen {
            Some(frozen) => {
                let Some(inner) = store.upgrade() else { return };
                Store { inner }.flush_oldest(frozen).await;
                changed.notify_all();
            }
            None => drop(time::timeout(wait, notified).await),
        }
    }
}

impl Store {
    /// Asks for a freeze if the open layer is old enough; how long to wait else.
    fn age_out(&self) -> Duration {
        let state = &mut *self.inner.state.borrow_mut();
        let Some(changed_at) = state.changed_at.filter(|_| !state.freeze_wanted) else { return FOREVER };
        let left = self.inner.config.memory_age_max.saturating_sub(changed_at.elapsed());
        if left.is_zero() {
            state.freeze_wanted = true;
            return FOREVER;
        }
        left
    }
}

/// All keys, by slot and key. Sorts pieces and merges them, so that reads go on beside it.
async fn sorted_keys(memory: &MemoryLayer, slot_bits: u8) -> Vec<(Slot, Key)> {
    let mut keys: Vec<(Slot, Key)> = memory.keys().map(|key| (Slot(0), key)).collect();
    yield_now().await;
    for turn in keys.chunks_mut(SORTED_PER_TURN) {
        turn.iter_mut().for_each(|(slot, key)| *slot = slot_of(*key, slot_bits));
        turn.sort_unstable();
        yield_now().await;
    }
    let mut pieces: Vec<_> = keys.chunks(SORTED_PER_TURN).map(|piece| piece.iter()).collect();
    let mut heads: BinaryHeap<_> = BinaryHeap::new();
    for (number, piece) in pieces.iter_mut().enumerate() {
        heads.extend(piece.next().map(|key| Reverse((*key, number))));
    }
    let mut sorted = Vec::with_capacity(keys.len());
    while let Some(Reverse((key, number))) = heads.pop() {
        sorted.push(key);
        heads.extend(pieces[number].next().map(|key| Reverse((*key, number))));
        if sorted.len() % SORTED_PER_TURN == 0 {
            yield_now().await;
        }
    }
    sorted
}
