//! What was said lately, so that it is not said again, in two generations of sets: no pass over the entries.

use std::time::Duration;

use hashbrown::HashSet;

/// Entries of a generation: what a table of 2^17 buckets takes, about 1.2 MB. At the limit things are repeated sooner.
const GENERATION_MAX: usize = 114_688;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Recent {
    every: Duration,
    turned: Duration,
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Recent {
    /// Remembers for one to two times `every`.
    pub(super) fn new(every: Duration) -> Self {
        Self { every, turned: Duration::ZERO, young: HashSet::new(), old: HashSet::new() }
    }

    pub(super) fn contains(&self, it: u64) -> bool {
        self.young.contains(&it) || self.old.contains(&it)
    }

    /// Says whether it was not there yet.
    pub(super) fn insert(&mut self, now: Duration, it: u64) -> bool {
        if self.contains(it) {
            return false;
        }
        self.turn(now);
        self.young.insert(it)
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, it: u64) -> bool {
        self.young.remove(&it) | self.old.remove(&it)
    }

    /// Forgets what is old enough.
    pub(super) fn turn(&mut self, now: Duration) {
        if now < self.turned + self.every && self.young.len() < GENERATION_MAX {
            return;
        }
        let young = std::mem::take(&mut self.young);
        let is_past = now >= self.turned + self.every * 2;
        self.old = if is_past { HashSet::new() } else { young };
        self.turned = now;
    }
}
