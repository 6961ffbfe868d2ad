//! The reading half: rows of all nodes become entries of the prefix map, whatever the order in which they come.
//!
//! Three registers that only grow decide what counts: when a worker began anew, when a prefix was withdrawn from it, when it got it. Rows
//! carry ages, so all of them are points on the clock of this node. In one tick of the map a withdrawal wins.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use super::AtMs;
use super::Counts;
use super::Effect;
use super::Heard;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::routing::prefix_log::batch::Batch;
use crate::routing::prefix_log::batch::Section;
use crate::routing::prefix_map::chain::Boundary;
use crate::routing::prefix_map::slots::LEARNED_MAX;

/// Withdrawals remembered in a generation. Beyond it an older placement that comes late may count: one cache miss.
const WITHDRAWN_MAX: usize = 16_384;
/// A restart is seen by the probers of several nodes, each within its own interval. One that is seen within this of another is the same.
const ECHO: Duration = Duration::from_secs(15);

/// See the file's header.
#[derive(Debug)]
pub(super) struct Reader {
    me: StorageId,
    key: u32,
    /// Older rows, and what was heard before, no longer matter.
    kept_ms: AtMs,
    tick_ms: AtMs,
    workers: HashSet<WorkerId>,
    /// Workers that rows named before they were known here.
    skipped: HashSet<WorkerId>,
    /// When each worker began anew last, and whether this node saw it itself.
    lives: HashMap<WorkerId, (AtMs, bool)>,
    withdrawn: [HashMap<(WorkerId, Boundary), AtMs>; 2],
    turned: AtMs,
}

impl Reader {
    pub(super) fn new(me: StorageId, key: u32, ttl: Duration, tick: Duration) -> Self {
        Self {
            me,
            key,
            kept_ms: millis(ttl * u32::from(LEARNED_MAX)),
            tick_ms: millis(tick).max(1),
            workers: HashSet::new(),
            skipped: HashSet::new(),
            lives: HashMap::new(),
            withdrawn: Default::default(),
            turned: 0,
        }
    }

    /// Takes a row. `is_again`: its lessons were taken already.
    pub(super) fn take(
        &mut self,
        now: Duration,
        row: &Heard,
        is_again: bool,
        effects: &mut Vec<Effect>,
        counts: &mut Counts,
    ) {
        let at = millis(now).saturating_sub(millis(row.age));
        let Some(value) = row.value.as_ref().filter(|_| millis(row.age) <= self.kept_ms) else { return };
        let Some(batch) = Batch::decode(value) else {
            counts.garbage += 1;
            return;
        };
        if batch.key != self.key {
            counts.foreign_keys += 1;
            return;
        }
        let is_mine = row.owner == self.me;
        for section in &batch.sections {
            let worker = section.worker();
            if !self.workers.contains(&worker) {
                self.skip(worker);
                continue;
            }
            if !is_mine {
                counts.retractions_received +=
                    (section.withdrawn.len() + section.lessons().count() + usize::from(section.is_new_life)) as u64;
                counts.received += section.placed.len() as u64;
            }
            self.read(at, section, effects);
            if !is_mine && !is_again {
                let age = |ms| Duration::from_millis(ms);
                effects.extend(section.lessons().map(|(lesson, ms)| Effect::Learn(worker, lesson, age(ms))));
            }
        }
    }

    /// This node saw that a worker began anew. Says whether that is news.
    pub(super) fn saw_new_life(&mut self, now: Duration, worker: WorkerId, effects: &mut Vec<Effect>) -> bool {
        let is_echo = self.lives.get(&worker).is_some_and(|it| !it.1) && self.doubted(now, worker, effects);
        if !is_echo {
            self.began_anew(worker, millis(now), true);
        }
        !is_echo
    }

    /// The map forgot what the worker held. Says whether it is known to have begun anew a moment ago: then what it got since is read again.
    pub(super) fn doubted(&mut self, now: Duration, worker: WorkerId, effects: &mut Vec<Effect>) -> bool {
        let (at, echo) = (millis(now), millis(ECHO));
        let is_echo = self.lives.get(&worker).is_some_and(|it| at.saturating_sub(it.0) < echo);
        if is_echo {
            effects.push(Effect::ReadAgain);
        }
        is_echo
    }

    /// The workers that are known here. Rows that named others before are read again.
    pub(super) fn know(&mut self, workers: HashSet<WorkerId>, effects: &mut Vec<Effect>) {
        self.workers = workers;
        let before = self.skipped.len();
        self.skipped.retain(|it| !self.workers.contains(it));
        if self.skipped.len() < before {
            effects.push(Effect::ReadAgain);
        }
    }

    /// Forgets what can no longer matter.
    pub(super) fn turn(&mut self, now: Duration) {
        let now = millis(now);
        if now - self.turned >= self.kept_ms || self.withdrawn[0].len() >= WITHDRAWN_MAX {
            self.withdrawn.swap(0, 1);
            self.withdrawn[0].clear();
            self.turned = now;
        }
        let kept = self.kept_ms;
        self.lives.retain(|_, (at, _)| now.saturating_sub(*at) <= kept);
    }

    fn read(&mut self, at: AtMs, section: &Section, effects: &mut Vec<Effect>) {
        let worker = section.worker();
        if section.is_new_life && self.lives.get(&worker).is_none_or(|it| it.0 < at) {
            self.began_anew(worker, at, false);
            // What it got since then went with the rest, and is in rows.
            effects.extend([Effect::Forget(worker), Effect::ReadAgain]);
        }
        let born = self.lives.get(&worker).map_or(AtMs::MIN, |it| it.0);
        if at < born {
            return;
        }
        for boundary in &section.withdrawn {
            let known = self.withdrawn[0].entry((worker, *boundary)).or_insert(at);
            *known = (*known).max(at);
            effects.push(Effect::Withdraw(worker, *boundary, at));
        }
        for boundary in &section.placed {
            let name = (worker, *boundary);
            // What was withdrawn in an earlier life says nothing of this one.
            let withdrawn = self.withdrawn.iter().filter_map(|it| it.get(&name)).filter(|it| **it >= born).max();
            if withdrawn.is_none_or(|it| self.tick(*it) < self.tick(at)) {
                effects.push(Effect::Put(worker, *boundary, at));
            }
        }
    }

    fn began_anew(&mut self, worker: WorkerId, at: AtMs, is_mine: bool) {
        if self.lives.len() < WORKERS_MAX || self.lives.contains_key(&worker) {
            self.lives.insert(worker, (at, is_mine));
        }
    }

    fn skip(&mut self, worker: WorkerId) {
        if self.skipped.len() < WORKERS_MAX {
            self.skipped.insert(worker);
        }
    }

    fn tick(&self, at: AtMs) -> AtMs {
        at.div_euclid(self.tick_ms)
    }
}

fn millis(duration: Duration) -> AtMs {
    AtMs::try_from(duration.as_millis()).unwrap_or(AtMs::MAX)
}
