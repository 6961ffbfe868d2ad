//! The one task that carries sights: this node's into the table, everybody's out of it into the core, and the core's word to the registry.
//!
//! Boring on purpose. Sights that come within a moment travel together; a table that is full or a queue that is long only delays them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Observers;
use super::core::Core;
use super::core::Sight;
use super::core::memory;
use super::row;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::membership;
use crate::replication;
use crate::replication::NewRow;
use crate::replication::tables::HEALTH;
use crate::workers::health::Probe;
use crate::workers::metrics::Metrics;
use crate::workers::prober::OnRestart;
use crate::workers::registry::Registry;

const TASK: Task = Task { name: "observers", stage: Stage::Decide, on_end: OnEnd::StopNode };
/// Pause between two turns, in which sights collect. Longer delays a hint, shorter sends more messages.
const PAUSE: Duration = Duration::from_millis(50);
/// Rows published at once: some 60 KB where each names a model or two.
const ROWS_MAX: usize = 512;
/// Bytes of names of models in all rows of this node: half of what it may write, see `replication::tables`. Beyond it rows go without.
const MODELS_BYTES_MAX: usize = 512 << 10;

/// What it takes.
pub struct Setup {
    /// What to drive.
    pub observers: Observers,
    /// The workers.
    pub registry: Arc<Registry>,
    /// Where sights travel.
    pub tables: replication::Handle,
    /// Who is here; None: this node is alone.
    pub members: Option<membership::Handle>,
    /// How often this node probes.
    pub interval: Duration,
    /// Told of workers whose process is another one than before.
    pub on_restart: OnRestart,
    /// Counts.
    pub metrics: Metrics,
}

/// Starts driving.
pub fn start(setup: Setup, tasks: &Tasks) {
    let driver = Driver { setup, read: BTreeMap::new(), published: BTreeMap::new() };
    tasks.spawn(TASK, |stop| driver.run(stop));
}

struct Driver {
    setup: Setup,
    /// How far the table was read.
    read: BTreeMap<StorageId, (u64, u64)>,
    /// What this node's rows say.
    published: BTreeMap<WorkerId, Told>,
}

/// What was last told of a worker, apart from times.
#[derive(Clone, Copy, PartialEq)]
struct Told {
    is_down: bool,
    last: Probe,
    restarted: Option<Instant>,
    models_bytes: usize,
}

/// Why a turn is due.
enum Due {
    Stop,
    Time,
    Members,
    Fleet,
    Rows,
    Saw,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        let tick = (self.setup.interval / 4).max(PAUSE);
        let mut rows = self.setup.tables.changes(HEALTH);
        let (_alone, none) = watch::channel(0);
        let mut members = self.setup.members.as_ref().map_or(none, membership::Handle::changes);
        let (observers, mut fleet) = (self.setup.observers.clone(), self.setup.registry.changes());
        let mut next = Clock.now();
        loop {
            let due = tokio::select! {
                biased;
                () = stop.cancelled() => Due::Stop,
                () = tokio::time::sleep_until(next) => Due::Time,
                () = changed(&mut members) => Due::Members,
                () = changed(&mut fleet) => Due::Fleet,
                () = changed(&mut rows) => Due::Rows,
                () = observers.0.wake.notified() => Due::Saw,
            };
            let now = Clock.now();
            match due {
                Due::Stop => return,
                Due::Time | Due::Members => {
                    self.look_around(now);
                    self.read(now);
                    self.publish(now, true);
                    self.take_back();
                    self.tell_all(now);
                    self.count(now);
                    next = now + tick;
                }
                // What was heard of a worker before it was here.
                Due::Fleet => self.tell_all(now),
                Due::Rows => self.read(now).into_iter().for_each(|worker| self.tell(now, worker)),
                Due::Saw => self.publish(now, false),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = Clock.sleep(PAUSE) => {}
            }
        }
    }

    fn core<T>(&self, read: impl FnOnce(&mut Core) -> T) -> T {
        read(&mut self.setup.observers.0.core.lock())
    }

    /// Who is here, and what this node reached by itself.
    fn look_around(&self, now: Instant) {
        let view = self.setup.members.as_ref().map(membership::Handle::view).unwrap_or_default();
        let here = view.members.iter().filter(|it| it.status.is_active()).map(|it| it.peer.storage);
        let fleet = Arc::clone(&*self.setup.registry.fleet());
        let reached = fleet.all.iter().filter_map(|it| Some((it.id, it.health().lock().own().succeeded?)));
        let reached: Vec<_> = reached.collect();
        self.core(|core| {
            core.members(here);
            core.tidy(now);
            reached.into_iter().for_each(|(worker, at)| core.reached(worker, at));
        });
    }

    /// Takes what is new in the table. Returns of which workers.
    fn read(&mut self, now: Instant) -> BTreeSet<WorkerId> {
        let before: Vec<StorageId> = self.read.keys().copied().collect();
        let read = &mut self.read;
        let news: Vec<_> = self.setup.tables.owned(HEALTH, |moment, table| {
            let rows = table.news(moment, read).into_iter();
            rows.map(|it| (it.owner, it.is_new, it.name.to_vec(), it.bytes.map(<[u8]>::to_vec), it.age)).collect()
        });
        let mut anew: BTreeSet<StorageId> = before.into_iter().filter(|it| !self.read.contains_key(it)).collect();
        anew.extend(news.iter().filter(|it| it.1).map(|it| it.0));
        self.core(|core| {
            let mut touched: BTreeSet<WorkerId> = anew.into_iter().flat_map(|owner| core.forget_all(owner)).collect();
            for (owner, _, name, bytes, age) in news {
                let Some(worker) = row::worker(&name) else { continue };
                touched.insert(worker);
                match bytes.as_deref().and_then(row::decode) {
                    Some(sight) => core.observe(now, owner, worker, age, sight),
                    None => core.forget(owner, worker),
                }
            }
            touched
        })
    }

    /// Tells of what was probed since: what is news at once, the rest (`all`) with the tick, so that an idle cluster is quiet.
    fn publish(&mut self, now: Instant, all: bool) {
        let saw = std::mem::take(&mut *self.setup.observers.0.saw.lock());
        let mut rows: Vec<(WorkerId, Told, NewRow)> = Vec::new();
        let mut later = BTreeSet::new();
        let mut models_bytes: usize = self.published.values().map(|it| it.models_bytes).sum();
        for worker in saw {
            let Some(entry) = self.setup.registry.get(worker) else { continue };
            if !self.setup.observers.is_mine(&entry) {
                continue;
            }
            let (own, restarted) = (entry.health().lock().own(), entry.lifetime().lock().restarted());
            let sight = Sight::of(now, own, restarted, self.setup.interval, entry.facts.clone());
            let Some(mut sight) = sight else { continue };
            let known = self.published.get(&worker);
            models_bytes -= known.map_or(0, |it| it.models_bytes);
            if models_bytes + row::models_bytes(&sight) > MODELS_BYTES_MAX {
                sight.facts.models.clear(); // whoever needs them asks the worker
            }
            let told =
                Told { is_down: sight.is_down, last: sight.last, restarted, models_bytes: row::models_bytes(&sight) };
            models_bytes += told.models_bytes;
            if !all && known == Some(&told) {
                later.insert(worker);
            } else if let Some(bytes) = row::encode(&sight) {
                rows.push((worker, told, (row::name(worker), Some(bytes))));
            }
        }
        for part in rows.chunks(ROWS_MAX) {
            if self.setup.tables.publish(HEALTH, part.iter().map(|it| it.2.clone()).collect()) {
                self.published.extend(part.iter().map(|it| (it.0, it.1)));
            } else {
                later.extend(part.iter().map(|it| it.0)); // said again at the next turn
            }
        }
        self.setup.observers.0.saw.lock().append(&mut later);
    }

    /// Takes back what is no longer this node's to tell.
    fn take_back(&mut self) {
        let is_mine = |worker: &WorkerId| {
            self.setup.registry.get(*worker).is_some_and(|entry| self.setup.observers.is_mine(&entry))
        };
        let gone: Vec<WorkerId> = self.published.keys().filter(|it| !is_mine(it)).copied().take(ROWS_MAX).collect();
        if gone.is_empty() {
            return;
        }
        if self.setup.tables.publish(HEALTH, gone.iter().map(|it| (row::name(*it), None)).collect()) {
            self.published.retain(|it, _| !gone.contains(it));
        }
    }

    fn tell_all(&self, now: Instant) {
        let fleet = Arc::clone(&*self.setup.registry.fleet());
        fleet.all.iter().for_each(|entry| self.tell(now, entry.id));
    }

    /// Tells the registry what is said of a worker.
    fn tell(&self, now: Instant, worker: WorkerId) {
        let Some(entry) = self.setup.registry.get(worker) else { return };
        let (word, restarted, facts) = self.core(|core| {
            // What this node finds out by itself it need not be told.
            let wants_facts = entry.facts.models.is_empty() || !core.is_mine(worker, entry.spec.via);
            let facts = core.facts(now, worker).filter(|_| wants_facts).cloned();
            (core.word(now, worker), core.restarted(now, worker), facts)
        });
        entry.heard(now, word);
        if let Some(facts) = facts {
            self.setup.registry.found(worker, facts);
        }
        let lately = memory(self.setup.interval);
        let Some(restarted) = restarted.filter(|at| now.saturating_duration_since(*at) < lately) else { return };
        if entry.lifetime().lock().heard_of_restart(restarted, lately) {
            entry.load.forget_rate();
            // Whoever saw it tells of it; this node only heard.
            (self.setup.on_restart)(worker, false);
            tracing::info!(%worker, url = entry.spec.url, "another node saw the worker restart: its cache counts as empty");
        }
    }

    fn count(&self, now: Instant) {
        let counts = self.core(|core| core.counts(now));
        self.setup.metrics.observed(counts);
    }
}

/// Waits for a change; for ever, when there will be none.
async fn changed(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}
