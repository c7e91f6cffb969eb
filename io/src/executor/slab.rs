//! Operations between submission and the kernel's last word on them.

use std::task::Waker;

use super::operation::{Outcome, Payload};
use crate::driver::{Completion, Op, Token};

/// Tokens have 31 bits for the generation.
const GENERATION_MASK: u32 = u32::MAX >> 1;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for room; the kernel knows nothing of it.
    Queued,
    /// The kernel may use its memory.
    InFlight,
    /// All its completions are in.
    Done,
}

pub(super) struct Entry {
    pub(super) op: Op,
    pub(super) stage: Stage,
    pub(super) payload: Box<dyn Payload>,
    pub(super) waker: Option<Waker>,
    /// The future is gone; free the entry at completion.
    pub(super) orphan: bool,
    outcome: Outcome,
    outstanding: u8,
}

/// What a completion led to. The caller acts on it when the slab is no longer borrowed.
pub(super) enum Completed {
    /// More parts are to come.
    Partly,
    Wake(Option<Waker>),
    Orphan(Box<dyn Payload>, Outcome),
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// No method drops a payload or calls a waker: either could call back into the core.
#[derive(Default)]
pub(super) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    bounded_in_flight: usize,
}

impl Slab {
    pub(super) fn insert(&mut self, op: Op, payload: Box<dyn Payload>) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        assert!(slot != u32::MAX, "more operations than tokens");
        let place = &mut self.slots[slot as usize];
        place.entry = Some(Entry {
            op,
            stage: Stage::Queued,
            payload,
            waker: None,
            orphan: false,
            outcome: Outcome::default(),
            outstanding: op.parts(),
        });
        Token { slot, generation: place.generation }
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if slot.generation != token.generation {
            return None;
        }
        slot.entry.as_mut()
    }

    /// Takes an entry out that the kernel does not use; None if it does or there is none.
    pub(super) fn remove(&mut self, token: Token) -> Option<(Stage, Box<dyn Payload>, Outcome)> {
        if self.get(token)?.stage == Stage::InFlight {
            return None;
        }
        let slot = &mut self.slots[token.slot as usize];
        let entry = slot.entry.take()?;
        // A token of the old generation names nothing any more, so a late cancel cannot hit the next user.
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(token.slot);
        Some((entry.stage, entry.payload, entry.outcome))
    }

    pub(super) fn mark_in_flight(&mut self, token: Token) {
        if let Some(entry) = self.get(token) {
            debug_assert!(entry.stage == Stage::Queued);
            entry.stage = Stage::InFlight;
            let bounded = !entry.op.is_unbounded();
            self.in_flight += 1;
            self.bounded_in_flight += usize::from(bounded);
        }
    }

    pub(super) fn complete(&mut self, completion: &Completion) -> Completed {
        let Some(entry) = self.get(completion.token) else {
            // Every token in flight has its entry, so this is a broken driver; nothing can be said
            // about whose memory is in use.
            panic!("completion of an operation that is not in flight: {completion:?}");
        };
        assert!(entry.stage == Stage::InFlight, "completion of an operation not submitted: {completion:?}");
        if completion.part == 0 {
            entry.outcome.result = completion.result;
            entry.outcome.more_ready = completion.more_ready;
        } else {
            entry.outcome.sync = completion.result;
        }
        entry.outstanding -= 1;
        if entry.outstanding > 0 {
            return Completed::Partly;
        }
        entry.stage = Stage::Done;
        let (orphan, waker, bounded) = (entry.orphan, entry.waker.take(), !entry.op.is_unbounded());
        self.in_flight -= 1;
        self.bounded_in_flight -= usize::from(bounded);
        if orphan && let Some((_, payload, outcome)) = self.remove(completion.token) {
            return Completed::Orphan(payload, outcome);
        }
        Completed::Wake(waker)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Operations in flight that end by themselves.
    pub(super) fn bounded_in_flight(&self) -> usize {
        self.bounded_in_flight
    }

    /// Tokens of the operations in flight that may wait for ever.
    pub(super) fn unbounded_in_flight(&self) -> Vec<Token> {
        let waits =
            |slot: &Slot| slot.entry.as_ref().is_some_and(|entry| entry.stage == Stage::InFlight && entry.op.is_unbounded());
        let token = |(index, slot): (usize, &Slot)| Token { slot: index as u32, generation: slot.generation };
        self.slots.iter().enumerate().filter(|(_, slot)| waits(slot)).map(token).collect()
    }
}

impl Drop for Slab {
    /// A core waits for its operations before it drops the slab. Should that have failed, memory the
    /// kernel may still write to must never be free for others.
    fn drop(&mut self) {
        if self.in_flight > 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}
