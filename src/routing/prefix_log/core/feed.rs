//! The seam for engines that say themselves what they cache: one worker's log, as its only subscriber keeps it. Nobody subscribes yet.
//!
//! Events are ordered by (generation, term, sequence): the generation is the engine's life, the term the subscription's. *Rules.* 1. A
//! later generation begins with an empty cache. 2. A later term inherits the set, but says nothing before its snapshot. 3. A gap ends
//! what is known: nothing is read until a snapshot. 4. Events that are old or repeated change nothing. 5. A prefix that was stored twice is held until it was
//! removed twice. 6. One node subscribes, for as long as it lives: every other subscriber would cost the engine a stream.

use std::collections::BTreeMap;

use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::routing::draw::mix;
use crate::routing::prefix_map::chain::Boundary;

/// Prefixes of one worker: 8,192 is a cache of 16 million tokens at one in 2,048. Beyond it what is stored is not noted.
const HELD_MAX: usize = 65_536;

/// Which life of the engine, under which subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// The engine's life.
    pub generation: u64,
    /// The subscription; whoever takes over adds one to the term that it saw.
    pub term: u64,
}

/// One thing an engine says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It holds this prefix (once more).
    Stored(Boundary),
    /// It holds it once less.
    Removed(Boundary),
    /// It holds nothing.
    Cleared,
}

/// What arrives of one worker.
#[derive(Clone, Debug)]
pub enum Heard {
    /// All it holds, after the event of that number.
    Snapshot(Term, u64, Vec<(Boundary, u32)>),
    /// The event of that number.
    Event(Term, u64, Op),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Taken,
    /// It was known.
    Old,
    /// Something is missing before it: a snapshot is needed.
    Gap,
}

/// See the file's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    term: Term,
    seq: u64,
    is_whole: bool,
    held: BTreeMap<Boundary, u32>,
}

impl Feed {
    /// Takes what arrived.
    pub fn take(&mut self, heard: Heard) -> Outcome {
        let (Heard::Snapshot(term, seq, _) | Heard::Event(term, seq, _)) = &heard;
        let (term, seq) = (*term, *seq);
        let (heard_at, known) = ((term, seq), (self.term, self.seq));
        let is_known = if self.is_whole { heard_at <= known } else { heard_at < known };
        if is_known {
            return Outcome::Old;
        }
        if term > self.term {
            if term.generation > self.term.generation {
                self.held.clear();
            }
            (self.term, self.seq, self.is_whole) = (term, 0, false);
        }
        match heard {
            Heard::Snapshot(_, _, held) => {
                self.held = held.into_iter().filter(|(_, count)| *count > 0).take(HELD_MAX).collect();
                (self.seq, self.is_whole) = (seq, true);
                Outcome::Taken
            }
            Heard::Event(_, _, op) if self.is_whole && seq == self.seq + 1 => {
                self.seq = seq;
                self.apply(op);
                Outcome::Taken
            }
            Heard::Event(..) => {
                self.is_whole = false;
                Outcome::Gap
            }
        }
    }

    /// Whether the worker holds this prefix; `None` until that is known.
    #[must_use]
    pub fn holds(&self, boundary: Boundary) -> Option<bool> {
        self.is_whole.then(|| self.held.contains_key(&boundary))
    }

    /// A subscription by whoever takes over: one term later, with what is known so far, to be read after its snapshot.
    #[must_use]
    pub fn taken_over(&self) -> Self {
        let term = Term { term: self.term.term + 1, ..self.term };
        Self { term, seq: 0, is_whole: false, held: self.held.clone() }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Cleared => self.held.clear(),
            Op::Stored(boundary) => {
                if self.held.len() < HELD_MAX || self.held.contains_key(&boundary) {
                    let count = self.held.entry(boundary).or_default();
                    *count = count.saturating_add(1);
                }
            }
            Op::Removed(boundary) => {
                if let Some(count) = self.held.get_mut(&boundary) {
                    *count -= 1;
                    if *count == 0 {
                        self.held.remove(&boundary);
                    }
                }
            }
        }
    }
}

/// Who subscribes to a worker: whoever does already, while alive; else the first by rendezvous hash. `None`: nobody is alive.
#[must_use]
pub fn subscriber(worker: WorkerId, current: Option<StorageId>, alive: &[StorageId]) -> Option<StorageId> {
    let score = |it: &StorageId| (mix(worker.0 ^ mix(it.0 as u64 ^ mix((it.0 >> 64) as u64))), *it);
    current.filter(|it| alive.contains(it)).or_else(|| alive.iter().copied().max_by_key(score))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Term = Term { generation: 1, term: 1 };

    fn at(n: u64) -> Boundary {
        Boundary::of(n << 16)
    }

    fn started() -> Feed {
        let mut feed = Feed::default();
        assert_eq!(feed.take(Heard::Snapshot(FIRST, 10, vec![(at(1), 1), (at(2), 2)])), Outcome::Taken);
        feed
    }

    #[test]
    fn field_09_a_lost_event_ends_what_is_known_until_a_snapshot() {
        let mut feed = started();
        assert_eq!(feed.take(Heard::Event(FIRST, 12, Op::Removed(at(1)))), Outcome::Gap);
        assert_eq!(feed.holds(at(1)), None);
        assert_eq!(feed.take(Heard::Event(FIRST, 13, Op::Stored(at(3)))), Outcome::Gap, "also what follows");
        assert_eq!(feed.take(Heard::Snapshot(FIRST, 13, vec![(at(3), 1)])), Outcome::Taken);
        assert_eq!((feed.holds(at(1)), feed.holds(at(3))), (Some(false), Some(true)));
    }

    #[test]
    fn field_09_an_event_repeated_after_a_removal_brings_nothing_back() {
        let mut feed = started();
        assert_eq!(feed.take(Heard::Event(FIRST, 11, Op::Stored(at(5)))), Outcome::Taken);
        assert_eq!(feed.take(Heard::Event(FIRST, 12, Op::Removed(at(5)))), Outcome::Taken);
        let before = feed.clone();
        assert_eq!(feed.take(Heard::Event(FIRST, 11, Op::Stored(at(5)))), Outcome::Old);
        assert_eq!(feed.take(Heard::Snapshot(FIRST, 11, vec![(at(5), 1)])), Outcome::Old);
        assert_eq!(feed, before);
    }

    #[test]
    fn field_09_an_engine_that_restarts_begins_empty_and_its_earlier_life_is_not_heard_again() {
        let mut feed = started();
        let second = Term { generation: 2, term: 1 };
        assert_eq!(feed.take(Heard::Event(second, 1, Op::Stored(at(9)))), Outcome::Gap, "no snapshot of this life yet");
        assert_eq!(feed.take(Heard::Snapshot(second, 0, vec![])), Outcome::Taken);
        assert_eq!(feed.take(Heard::Event(FIRST, 11, Op::Stored(at(1)))), Outcome::Old);
        assert_eq!(feed.holds(at(1)), Some(false));
    }

    #[test]
    fn who_takes_over_inherits_the_set_and_says_nothing_before_its_snapshot() {
        let mut feed = started().taken_over();
        assert_eq!((feed.term, feed.holds(at(1)), feed.held.len()), (Term { generation: 1, term: 2 }, None, 2));
        let term = feed.term;
        assert_eq!(feed.take(Heard::Event(FIRST, 11, Op::Cleared)), Outcome::Old, "the old subscription is over");
        assert_eq!(feed.take(Heard::Snapshot(term, 3, vec![(at(1), 1)])), Outcome::Taken);
        assert_eq!(feed.holds(at(1)), Some(true));
    }

    #[test]
    fn what_was_stored_twice_is_held_until_it_was_removed_twice() {
        let mut feed = started();
        assert_eq!(feed.take(Heard::Event(FIRST, 11, Op::Removed(at(2)))), Outcome::Taken);
        assert_eq!(feed.holds(at(2)), Some(true));
        assert_eq!(feed.take(Heard::Event(FIRST, 12, Op::Removed(at(2)))), Outcome::Taken);
        assert_eq!(feed.take(Heard::Event(FIRST, 13, Op::Removed(at(2)))), Outcome::Taken, "once too often is no harm");
        assert_eq!(feed.holds(at(2)), Some(false));
    }

    #[test]
    fn one_node_subscribes_and_stays_while_it_lives() {
        let alive: Vec<StorageId> = (1..6).map(StorageId).collect();
        let first = subscriber(WorkerId(7), None, &alive).expect("somebody is alive");
        let others: Vec<StorageId> = alive.iter().copied().filter(|it| *it != first).collect();
        assert_eq!(subscriber(WorkerId(7), Some(others[0]), &alive), Some(others[0]));
        assert!(others.contains(&subscriber(WorkerId(7), Some(first), &others).expect("somebody is alive")));
        assert_eq!(subscriber(WorkerId(7), Some(first), &[]), None);
    }
}
