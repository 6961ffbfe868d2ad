//! Who watches a worker, and what to make of what they saw. Pure: sights, members and the time in, hints out.
//!
//! A *sight* is what one node knows of one worker. It counts from a member that is here, while it is fresh: three of its owner's probe intervals.
//! *Invariants:* a sight that is old, from the dead or from later than now changes nothing; one member alone, whatever it
//! says, never casts doubt on a worker. *Absent on purpose:* this node's own evidence, which `health` has, counts at once,
//! and may be stronger than all of this.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::super::health::Own;
use super::super::health::Probe;
use super::super::health::Word;
use super::super::registry::Facts;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::observability::labels::Label as _;
use crate::observability::labels::label;

/// Nodes that probe one worker. Two could not outvote an odd one; more only cost probes.
pub const OBSERVERS: usize = 3;
/// Probe intervals that a sight counts for: one lost and one late must not silence an observer.
const FRESH_INTERVALS: u32 = 3;
/// Longest interval that is believed, so that no sight counts for ever.
const INTERVAL_MAX: Duration = Duration::from_secs(300);

/// How long a sight counts when its owner probes this often.
#[must_use]
pub fn memory(interval: Duration) -> Duration {
    interval.min(INTERVAL_MAX) * FRESH_INTERVALS
}

/// What one node knows of one worker. Times are ages.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// Whether it holds the worker for away.
    pub is_down: bool,
    /// How its last probe ended.
    pub last: Probe,
    /// Probes that failed since one succeeded.
    pub failures: u32,
    /// How long ago a request or a probe succeeded.
    pub succeeded_ago: Option<Duration>,
    /// How long ago it found out that the worker had restarted.
    pub restarted_ago: Option<Duration>,
    /// How often it probes.
    pub interval: Duration,
    /// What it found the worker to be.
    pub facts: Facts,
}

impl Sight {
    /// What this node knows, once it has probed.
    #[must_use]
    pub fn of(now: Instant, own: Own, restarted: Option<Instant>, interval: Duration, facts: Facts) -> Option<Self> {
        let ago = |at: Instant| now.saturating_duration_since(at);
        Some(Self {
            is_down: own.is_down,
            last: own.last?,
            failures: own.failures,
            succeeded_ago: own.succeeded.map(ago),
            restarted_ago: restarted.map(ago),
            interval,
            facts,
        })
    }

    /// In a word.
    #[must_use]
    pub fn word(&self) -> Sighted {
        match self.last {
            _ if self.is_down => Sighted::Down,
            Probe::Ok => Sighted::Up,
            Probe::Failed | Probe::TimedOut => Sighted::Failing,
        }
    }

    fn is_up(&self) -> bool {
        self.word() == Sighted::Up
    }
}

/// A sight that counts, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Whose.
    pub by: StorageId,
    /// How old it is.
    pub age: Duration,
    /// What.
    pub sight: Sight,
}

label! {
    /// What a node sees of a worker.
    pub enum Sighted {
        /// It answers.
        Up = "up",
        /// It does not always.
        Failing = "failing",
        /// It is away.
        Down = "down",
    }
}

/// How many sights count now, and what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sights, in the order of [`Sighted`].
    pub sights: [usize; Sighted::ALL.len()],
    /// Workers in doubt.
    pub doubted: usize,
}

struct Held {
    by: StorageId,
    /// When it was true, on the clock here.
    at: Instant,
    until: Instant,
    sight: Sight,
}

/// See the file's header.
pub struct Core {
    me: StorageId,
    /// Nodes that are here, this one included.
    members: BTreeSet<StorageId>,
    away_max: Duration,
    /// BOUND: a member may write only so many rows, see `replication::tables`, and the rows of one that went are dropped.
    held: BTreeMap<WorkerId, Vec<Held>>,
    /// When anybody last reached a worker; one that nobody did counts from when it was first asked for.
    reached: BTreeMap<WorkerId, Instant>,
}

impl Core {
    /// A node alone. A worker that nobody reaches for `away_max` is dead.
    #[must_use]
    pub fn new(me: StorageId, away_max: Duration) -> Self {
        Self { me, members: BTreeSet::from([me]), away_max, held: BTreeMap::new(), reached: BTreeMap::new() }
    }

    /// These are here now; this node always is.
    pub fn members(&mut self, members: impl IntoIterator<Item = StorageId>) {
        self.members = members.into_iter().chain([self.me]).collect();
    }

    /// A member saw this so long ago. It replaces what that member saw before then.
    pub fn observe(&mut self, now: Instant, by: StorageId, worker: WorkerId, age: Duration, sight: Sight) {
        let Some(at) = now.checked_sub(age) else { return };
        if self.held.get(&worker).is_some_and(|held| held.iter().any(|it| it.by == by && it.at > at)) {
            return;
        }
        self.forget(by, worker);
        if let Some(reached) = sight.succeeded_ago.and_then(|ago| at.checked_sub(ago)) {
            self.reached(worker, reached);
        }
        let until = at + memory(sight.interval);
        if now < until {
            self.held.entry(worker).or_default().push(Held { by, at, until, sight });
        }
    }

    /// A member took back what it saw of a worker.
    pub fn forget(&mut self, by: StorageId, worker: WorkerId) {
        if let Some(held) = self.held.get_mut(&worker) {
            held.retain(|it| it.by != by);
        }
    }

    /// A member's rows are gone, or told anew. Returns the workers it had seen.
    pub fn forget_all(&mut self, by: StorageId) -> Vec<WorkerId> {
        let of_it = self.held.iter_mut().filter(|(_, held)| held.iter().any(|it| it.by == by));
        of_it.map(|(worker, held)| (*worker, held.retain(|it| it.by != by)).0).collect()
    }

    /// Forgets what counts no longer.
    pub fn tidy(&mut self, now: Instant) {
        self.held.retain(|_, held| {
            held.retain(|it| now < it.until);
            !held.is_empty()
        });
    }

    /// Who is to probe a worker: its owner where only that one reaches it, and others in the order of a hash, so that all
    /// nodes that see the same members agree without a word. With fewer than three members everyone.
    #[must_use]
    pub fn observers(&self, worker: WorkerId, via: Option<StorageId>) -> Vec<StorageId> {
        let mut order: Vec<_> = self.members.iter().copied().collect();
        let score = |it: StorageId| xxh3_64_with_seed(&it.0.to_be_bytes(), worker.0);
        order.sort_unstable_by_key(|it| (Some(*it) != via, score(*it), *it));
        order.truncate(OBSERVERS);
        order
    }

    /// Whether this node is to probe it.
    #[must_use]
    pub fn is_mine(&self, worker: WorkerId, via: Option<StorageId>) -> bool {
        self.observers(worker, via).contains(&self.me)
    }

    /// What the others' sights, and this node's among them, say of a worker. Doubt takes two who hold it for away and more than half of those who
    /// look, and lasts as long as two of their sights do.
    #[must_use]
    pub fn word(&self, now: Instant, worker: WorkerId) -> Word {
        let (mut down, mut up, mut all) = (Vec::new(), None, 0);
        for it in self.fresh(now, worker) {
            all += 1;
            if it.sight.is_down {
                down.push(it.until);
            } else if it.sight.is_up() {
                up = up.max(Some(it.until));
            }
        }
        down.sort_unstable_by(|a, b| b.cmp(a));
        let doubted_until = down.get(1).copied().filter(|_| down.len() * 2 > all);
        Word { doubted_until, vouched_until: up.filter(|_| doubted_until.is_none()) }
    }

    /// What it was last found to be by one who reaches it.
    #[must_use]
    pub fn facts(&self, now: Instant, worker: WorkerId) -> Option<&Facts> {
        let found = self.fresh(now, worker).filter(|it| it.sight.is_up() && !it.sight.facts.models.is_empty());
        found.max_by_key(|it| it.at).map(|it| &it.sight.facts)
    }

    /// When somebody last found out that it had restarted.
    #[must_use]
    pub fn restarted(&self, now: Instant, worker: WorkerId) -> Option<Instant> {
        self.fresh(now, worker).filter_map(|it| it.at.checked_sub(it.sight.restarted_ago?)).max()
    }

    /// Who sees what of a worker.
    #[must_use]
    pub fn seen(&self, now: Instant, worker: WorkerId) -> Vec<Seen> {
        let seen = |it: &Held| Seen { by: it.by, age: now - it.at, sight: it.sight.clone() };
        self.fresh(now, worker).map(seen).collect()
    }

    /// How much counts now.
    #[must_use]
    pub fn counts(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        for worker in self.held.keys() {
            for it in self.fresh(now, *worker) {
                counts.sights[it.sight.word().index()] += 1;
            }
            counts.doubted += usize::from(self.word(now, *worker).doubted_until.is_some());
        }
        counts
    }

    /// Somebody reached a worker then.
    pub fn reached(&mut self, worker: WorkerId, at: Instant) {
        self.make_room(worker);
        let last = self.reached.entry(worker).or_insert(at);
        *last = (*last).max(at);
    }

    /// Whether nobody has reached it for longer than a worker may be away.
    pub fn is_dead(&mut self, now: Instant, worker: WorkerId) -> bool {
        self.make_room(worker);
        let last = *self.reached.entry(worker).or_insert(now);
        now.saturating_duration_since(last) > self.away_max
    }

    /// BOUND: as many as there may be workers; beyond it the one goes that was reached longest ago.
    fn make_room(&mut self, worker: WorkerId) {
        if self.reached.len() < WORKERS_MAX || self.reached.contains_key(&worker) {
            return;
        }
        if let Some(oldest) = self.reached.iter().min_by_key(|it| *it.1).map(|it| *it.0) {
            self.reached.remove(&oldest);
        }
    }

    fn fresh(&self, now: Instant, worker: WorkerId) -> impl Iterator<Item = &Held> {
        let held = self.held.get(&worker).into_iter().flatten();
        held.filter(move |it| it.at <= now && now < it.until && self.members.contains(&it.by))
    }
}
