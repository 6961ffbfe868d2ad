//! Workers as 16-bit numbers, and how long each one's cache can be trusted to remember.
//!
//! Forgetting a worker empties its slot: every entry that names the slot stops counting at once, and the slot is used
//! again only after all such entries have expired. Slot 0 means nobody.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::ids::WorkerId;

/// Ticks of a time to live: ages are told to 1/64 of it.
pub const TTL_TICKS: u16 = 64;
/// Times to live that a worker's cache may be learned to remember. A larger factor keeps and shares entries for longer that hardly any worker holds.
pub const LEARNED_MAX: u16 = 10;
/// Nothing older than this counts, in ticks. 16 bits wrap only after a hundred of them.
const KEPT_TICKS: u16 = TTL_TICKS * LEARNED_MAX;

/// A prediction below this many bytes teaches nothing: engines cache whole blocks only.
const LESSON_BYTES_MIN: u64 = 1024;

/// What an answer says of a worker's cache, where it says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lesson {
    /// It does not remember for as long as was believed.
    Forgets,
    /// It remembers for longer than half of what is believed.
    Remembers,
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct Slots {
    by_worker: HashMap<WorkerId, u16>,
    /// `slots[i]` is slot `i + 1`.
    slots: Vec<Slot>,
    free: VecDeque<(u16, u16)>,
}

#[derive(Debug)]
struct Slot {
    worker: Option<WorkerId>,
    /// Entries older than this many ticks do not count for this worker: a time to live, until its answers teach otherwise.
    horizon: AtomicU16,
}

impl Slots {
    /// The slot of a worker that has one.
    #[must_use]
    pub fn of(&self, worker: WorkerId) -> Option<u16> {
        self.by_worker.get(&worker).copied()
    }

    /// The slot of a worker, made if need be; `None` when all 65,535 are taken (its prompts are not remembered then).
    pub fn assign(&mut self, worker: WorkerId, tick: u16) -> Option<u16> {
        if let Some(slot) = self.of(worker) {
            return Some(slot);
        }
        let fresh = Slot { worker: Some(worker), horizon: AtomicU16::new(TTL_TICKS) };
        let is_ready = |(_, freed): &(u16, u16)| tick.wrapping_sub(*freed) > KEPT_TICKS;
        let slot = if let Some((slot, _)) = self.free.pop_front_if(|it| is_ready(it)) {
            self.slots[usize::from(slot) - 1] = fresh;
            slot
        } else {
            let slot = u16::try_from(self.slots.len() + 1).ok()?;
            self.slots.push(fresh);
            slot
        };
        self.by_worker.insert(worker, slot);
        Some(slot)
    }

    /// Nothing this worker held counts any longer.
    pub fn forget(&mut self, worker: WorkerId, tick: u16) {
        if let Some(slot) = self.by_worker.remove(&worker) {
            self.slots[usize::from(slot) - 1].worker = None;
            self.free.push_back((slot, tick));
        }
    }

    /// Who is behind an entry of this age, if it still counts.
    #[must_use]
    pub fn worker(&self, slot: u16, age: u16) -> Option<WorkerId> {
        let slot = self.slots.get(usize::from(slot).wrapping_sub(1))?;
        slot.worker.filter(|_| age <= slot.horizon.load(Relaxed))
    }

    /// What a worker's cache really held, against a belief of `age` ticks; `None`: that teaches nothing.
    pub fn learn(&self, slot: u16, age: u16, expected_bytes: u64, held_bytes: u64) -> Option<Lesson> {
        let horizon = self.slots.get(usize::from(slot).wrapping_sub(1))?.horizon.load(Relaxed);
        if expected_bytes < LESSON_BYTES_MIN {
            return None;
        }
        let lesson = if held_bytes * 2 < expected_bytes && age > 1 {
            Lesson::Forgets
        } else if held_bytes * 4 >= expected_bytes * 3 && age >= horizon / 2 {
            Lesson::Remembers
        } else {
            return None;
        };
        self.take(slot, age, lesson);
        Some(lesson)
    }

    /// A cache that forgot shortens its horizon half way to that age (one answer may be an accident, several are not); one that
    /// remembered lengthens it slowly. One tick always counts, so a worker that only seemed to forget can show that it does not.
    pub fn take(&self, slot: u16, age: u16, lesson: Lesson) {
        let Some(slot) = self.slots.get(usize::from(slot).wrapping_sub(1)) else { return };
        let horizon = slot.horizon.load(Relaxed);
        let learned = match lesson {
            Lesson::Forgets if age > 1 => horizon.midpoint(age.min(horizon) - 1),
            Lesson::Remembers if age >= horizon / 2 => horizon + (horizon / 8).max(1),
            Lesson::Forgets | Lesson::Remembers => return,
        };
        slot.horizon.store(learned.clamp(1, KEPT_TICKS), Relaxed);
    }
}
