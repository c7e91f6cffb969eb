//! The layers of a timeline, by slot.

use super::Layer;
use ironpage_layout::layer::slot_of;
use ironpage_layout::{Key, Lsn};
use std::ops::RangeInclusive;
use std::rc::Rc;

/// What the manifest names. Order within a slot is by sequence, oldest first.
pub struct LayerSet {
    slot_bits: u8,
    slots: Vec<Vec<Rc<Layer>>>,
}

impl LayerSet {
    pub fn new(slot_bits: u8) -> LayerSet {
        LayerSet { slot_bits, slots: (0..1usize << slot_bits).map(|_| Vec::new()).collect() }
    }

    pub fn add(&mut self, layer: Layer) {
        let slot = &mut self.slots[usize::from(layer.record().slot.0)];
        slot.push(Rc::new(layer));
        slot.sort_by_key(|layer| layer.record().sequence);
    }

    pub fn all(&self) -> impl Iterator<Item = &Rc<Layer>> {
        self.slots.iter().flatten()
    }

    /// Layers that may hold versions of `key` above `above` and up to `lsn`, newest flush first.
    pub fn of_key(&self, key: Key, above: Lsn, lsn: Lsn) -> Vec<Rc<Layer>> {
        let slot = &self.slots[usize::from(slot_of(key, self.slot_bits).0)];
        let may_hold = |layer: &&Rc<Layer>| {
            let record = layer.record();
            record.lsn_max > above && record.lsn_min <= lsn && (record.key_min..=record.key_max).contains(&key)
        };
        slot.iter().rev().filter(may_hold).cloned().collect()
    }

    /// Layers of any slot that may hold versions of keys in the range, up to `lsn`.
    pub fn of_range(&self, keys: &RangeInclusive<Key>, lsn: Lsn) -> Vec<Rc<Layer>> {
        let may_hold = |layer: &&Rc<Layer>| {
            let record = layer.record();
            record.lsn_min <= lsn && record.key_min <= *keys.end() && record.key_max >= *keys.start()
        };
        self.all().filter(may_hold).cloned().collect()
    }
}
